//! No thread is inside ONNX Runtime, or holds a lock that a child could want, while the process forks: the child would
//! find it locked for ever. And none is inside when the process ends.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Threads at work, and forks that wait for them.
struct State {
    inside: usize,
    closed: usize,
    over: bool,
}

static STATE: Mutex<State> = Mutex::new(State { inside: 0, closed: 0, over: false });
static CHANGED: Condvar = Condvar::new();

/// A thread at work.
pub(crate) struct Inside(());

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits while the gate is closed. Never called with the GIL held.
pub(crate) fn enter() -> Inside {
    let mut state = CHANGED.wait_while(state(), |state| state.closed > 0).unwrap_or_else(PoisonError::into_inner);
    state.inside += 1;
    Inside(())
}

impl Drop for Inside {
    fn drop(&mut self) {
        state().inside -= 1;
        CHANGED.notify_all();
    }
}

/// Before a fork: waits until nobody is inside, and lets nobody in. A thread inside needs no GIL to get
/// out.
pub(crate) fn close() {
    let mut state = state();
    state.closed += 1;
    drop(CHANGED.wait_while(state, |state| state.inside > 0));
}

/// After it, in the parent.
pub(crate) fn open() {
    let mut state = state();
    state.closed = state.closed.saturating_sub(1);
    CHANGED.notify_all();
}

/// After it, in the child, which has one thread.
pub(crate) fn reset() {
    *state() = State { inside: 0, closed: 0, over: false };
}

/// At the end of the process: as [`close`], for good.
pub(crate) fn end() {
    state().over = true;
    close();
}

/// Whether nobody gets in any more.
pub(crate) fn is_over() -> bool {
    state().over
}
