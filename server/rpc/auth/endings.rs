//! Tells calls that last that some key or token may have ended, or may do less.

use std::sync::Arc;

use tokio::sync::watch;

/// Where endings are told.  Whoever hears of one asks whether it was their own: there are few, and asking is cheap.
#[derive(Debug, Clone)]
pub struct Endings(Arc<watch::Sender<u64>>);

impl Default for Endings {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Endings {
    /// Says that something ended or may do less.  What knows of it must know before.
    pub fn tell(&self) {
        self.0.send_modify(|told| *told += 1);
    }

    /// Hears what is told from now on.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
