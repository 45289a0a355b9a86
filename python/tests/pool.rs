//! The pool's threads, with work that panics.

#[path = "../src/pool.rs"]
mod pool;

use std::any::Any;

use pool::{Pool, Work};

/// Counts its jobs since it began or panicked; panics at 0.
struct Counting;

impl Work for Counting {
    type Job = u32;
    type Reply = Result<u32, String>;
    type State = u32;

    fn run(&self, state: &mut Option<u32>, job: u32) -> Result<u32, String> {
        let count = state.get_or_insert(0);
        assert!(job != 0, "a job panics");
        *count += 1;
        Ok(*count)
    }

    fn end(&self, _: Option<u32>) {}

    fn panicked(&self, payload: &(dyn Any + Send)) -> Result<u32, String> {
        Err(payload.downcast_ref::<&str>().copied().unwrap_or_default().to_owned())
    }
}

#[test]
fn a_panic_is_its_job_s_reply_and_the_thread_goes_on() {
    let pool = Pool::new(Counting, 1);
    let replies: Vec<_> = [1, 1, 0, 1].map(|job| pool.submit(job).expect("a thread")).into_iter().collect();
    let replies: Vec<_> = replies.into_iter().map(|reply| reply.recv().expect("a reply")).collect();
    // After a panic nothing is kept.
    assert_eq!(replies, [Ok(1), Ok(2), Err("a job panics".into()), Ok(1)]);
}

#[test]
fn a_closed_pool_answers_nothing_more() {
    let pool = Pool::new(Counting, 2);
    let first = pool.submit(1).expect("a thread");
    assert_eq!(first.recv(), Ok(Ok(1)));
    pool.close();
    assert!(pool.submit(1).expect("a channel").recv().is_err());
}
