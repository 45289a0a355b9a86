//! An answer that comes before the body has been read still reaches its client.
//!
//! A server that closes a connection with unread bytes in it makes the kernel send a reset, which can
//! overtake the answer. So what is left of the body is read and thrown away, up to a limit. After a small
//! body the connection stays: under overload each refusal would otherwise cost both sides a new one.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderValue, Version, header},
    middleware::Next,
    response::Response,
};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::{sync::oneshot, time::timeout};

/// How much of an unwanted body is read, in bytes, and for how long. A load balancer that holds a request whole before it
/// passes it on (33 MiB in `deploy/envoy/envoy.yaml`) sends all of it, whatever is answered meanwhile.
const MOST_BYTES: usize = 64 << 20;
const LONGEST: Duration = Duration::from_secs(1);

/// Largest unwanted body, in bytes, after which the connection stays: most of it has arrived when the answer is there.
const SMALL_BYTES: u64 = 1 << 20;

pub(super) async fn layer(request: Request, next: Next) -> Response {
    if request.version() >= Version::HTTP_2 || request.body().is_end_stream() {
        // HTTP/2 cancels the stream by itself.
        return next.run(request).await;
    }
    let asks_first = request.headers().contains_key(header::EXPECT);
    let (left, rest) = oneshot::channel();
    let request = request.map(|body| Body::new(Watched { body: Some(body), begun: false, left: Some(left) }));
    let mut response = next.run(request).await;
    if let Ok(Left { body, begun }) = rest.await {
        // Who asked with `Expect: 100-continue` and was not told to go on sends nothing; reading would tell it to.
        let comes = begun || !asks_first;
        let is_small = body.size_hint().upper().is_some_and(|bytes| bytes <= SMALL_BYTES);
        if !(comes && is_small) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if comes {
            tokio::spawn(timeout(LONGEST, discard(body)));
        }
    }
    response
}

async fn discard(mut body: Body) {
    let mut bytes = 0;
    while bytes < MOST_BYTES {
        match body.frame().await {
            Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
}

/// What was left of a body when its handler was done with it.
struct Left {
    body: Body,
    begun: bool,
}

/// A body that hands itself back when it is dropped before its end.
struct Watched {
    body: Option<Body>,
    begun: bool,
    left: Option<oneshot::Sender<Left>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.begun = true;
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && !body.is_end_stream()
            && let Some(left) = self.left.take()
        {
            let _ = left.send(Left { body, begun: self.begun });
        }
    }
}
