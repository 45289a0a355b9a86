//! An answer's body on its way out: its request is in flight until it is sent, and over HTTP/2 it goes out in small
//! pieces, so that no more than one is buffered for a client that does not read.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use super::connection::InFlight;

/// Bytes of a piece.
const PIECE: usize = 16 << 10;

pub(super) struct Answer {
    body: Body,
    /// What is left of the last frame.
    rest: Bytes,
    in_flight: InFlight,
    http2: bool,
}

impl Answer {
    pub(super) fn new(body: Body, in_flight: InFlight, http2: bool) -> Self {
        if http2 && !body.is_end_stream() {
            in_flight.waits_for_client(true);
        }
        Self { body, rest: Bytes::new(), in_flight, http2 }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.http2 {
            return Pin::new(&mut self.body).poll_frame(cx);
        }
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Poll::Pending => {
                    self.in_flight.waits_for_client(false);
                    return Poll::Pending;
                }
                ended => return ended,
            }
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        self.in_flight.waits_for_client(true);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        // Upper first: a hint's lower bound may not exceed its upper one.
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(inner.lower() + rest);
        hint
    }
}
