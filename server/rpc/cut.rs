//! Cutting off what can not be ended otherwise: a stream whose peer does not read is not asked for anything any more.
//!
//! Each HTTP/2 stream and each connection has a task.  Whatever answers a request can take a [`Cut`] of its task and have
//! it aborted later: the peer gets RST_STREAM, or the end of its HTTP/1.1 connection.

use std::sync::{Arc, OnceLock};

use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

tokio::task_local! {
    static CURRENT: Cut;
}

/// Ends a task.
#[derive(Debug, Clone, Default)]
pub struct Cut(Arc<OnceLock<AbortHandle>>);

impl Cut {
    /// Ends it.
    pub fn cut(&self) {
        if let Some(handle) = self.0.get() {
            handle.abort();
        }
    }
}

/// Ends the task that works on the current request; `None` outside of one.
pub fn current() -> Option<Cut> {
    CURRENT.try_with(Cut::clone).ok()
}

/// Starts a task that can be cut off.
pub(super) fn spawn<F: Future<Output: Send> + Send + 'static>(tracker: &TaskTracker, work: F) {
    let cut = Cut::default();
    let task = tracker.spawn(CURRENT.scope(cut.clone(), work));
    let _ = cut.0.set(task.abort_handle());
}

/// Has hyper start the tasks of HTTP/2 streams so.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Executor;

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, work: F) {
        let cut = Cut::default();
        let task = tokio::spawn(CURRENT.scope(cut.clone(), work));
        let _ = cut.0.set(task.abort_handle());
    }
}
