//! A cancelled decode stops at its next check, and checks often.

use std::sync::{Arc, Barrier, atomic::Ordering};
use std::thread;

use crate::image::{
    Cancel, Header, ImageError, KEEP_FRAME_BYTES, Limits, Pixels, Preprocessing, Scratch, corpus, inspect, prepare,
};

/// Limit of pixels between two checks, for files in which every byte encodes pixels.
const MOST_PIXELS_A_LOOK: u64 = 1 << 18;

fn decode(bytes: &[u8], header: &Header, scratch: &mut Scratch, cancel: &Cancel) -> Result<Pixels, ImageError> {
    prepare(bytes, header, Preprocessing::Resize, scratch, cancel)
}

#[test]
fn every_format_stops_at_the_next_check() {
    let samples = [corpus::photos(400, 300), corpus::bombs(300_000)].map(|made| made.expect("files")).concat();
    for corpus::Sample { name, bytes } in samples {
        let header = inspect(&bytes, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut scratch = Scratch::default();
        let whole = Cancel::default();
        // Files that claim more than they contain fail at the end.
        let _ = decode(&bytes, &header, &mut scratch, &whole);
        let looks = whole.probe.looks.load(Ordering::SeqCst);
        assert!(looks > header.pixels() / MOST_PIXELS_A_LOOK, "{name}: {looks} looks");

        for at in [1, looks / 3, looks * 2 / 3, looks].map(|at| at.max(1)) {
            let barrier = Arc::new(Barrier::new(2));
            let mut cancel = Cancel::default();
            cancel.probe.hold = Some((at, Arc::clone(&barrier)));
            let decoded = thread::scope(|scope| {
                scope.spawn(|| {
                    barrier.wait();
                    cancel.cancel();
                    barrier.wait();
                });
                decode(&bytes, &header, &mut scratch, &cancel)
            });
            assert_eq!(decoded, Err(ImageError::Cancelled), "{name}, look {at} of {looks}");
            // PNG's decoder reports only that its input failed, so the flag is checked once more for the reason.
            let more = cancel.probe.looks.load(Ordering::SeqCst) - at;
            assert!(more <= 1, "{name}: {more} looks after look {at} of {looks}");
            assert!(scratch.frame.capacity() <= KEEP_FRAME_BYTES, "{name} keeps its memory");
        }
    }
}

#[test]
fn a_decode_that_is_cancelled_before_it_begins_does_nothing() {
    for corpus::Sample { name, bytes } in corpus::photos(64, 64).expect("files") {
        let header = inspect(&bytes, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let cancel = Cancel::default();
        cancel.clone().cancel();
        let decoded = decode(&bytes, &header, &mut Scratch::default(), &cancel);
        assert_eq!(decoded, Err(ImageError::Cancelled), "{name}");
    }
}
