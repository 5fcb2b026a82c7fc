//! The grouped writer: hot writes of many callers share one commit.
//!
//! A [`Lane`] takes writes of one kind and answers each after the commit that made it durable.  A loop takes whatever
//! has gathered in the lanes while the last commit ran, writes it in one transaction, commits, runs what must follow
//! the commit (the hand-over to the delivery engine, the wake-up of the live log), and answers the callers.  There is no
//! waiting for a group to fill: on an idle server a write is a group of its own.  Only a lane with *patience*, whose
//! writes nobody waits for, holds them back for a moment, so that they share a commit that happens anyway.
//!
//! On SQLite one loop serves all lanes, because there is one writer and so one fsync to share.  On PostgreSQL each
//! lane has a loop of its own, and the server groups their fsyncs.
//!
//! Guarantees: a caller is answered `Ok` only after a durable commit; a write that the database refuses fails alone, and
//! the others of its group are written without it; a commit whose outcome is not known is never repeated.  Queues are
//! bounded: a full lane refuses at once.

mod batch;
mod lane;
mod run;

pub use batch::{Done, Fault, GroupedWrite};
pub use lane::Lane;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Db;
use lane::{AnyLane, Readiness};

/// Gathers lanes; [`Writer::start`] sets them to work.
pub struct Writer {
    db: Db,
    wake: Arc<Notify>,
    lanes: Vec<(Arc<dyn AnyLane>, Arc<Notify>)>,
}

impl Writer {
    /// A writer without lanes.
    pub fn new(db: Db) -> Self {
        Self { db, wake: Arc::new(Notify::new()), lanes: Vec::new() }
    }

    /// Adds a lane for one kind of write.  With a `patience` above zero, its writes may wait that long for company.
    pub fn lane<W: GroupedWrite>(&mut self, context: Arc<W::Context>, patience: Duration) -> Lane<W> {
        let wake = if self.db.is_shared() { Arc::new(Notify::new()) } else { Arc::clone(&self.wake) };
        let lane = Lane::new(context, patience, Arc::clone(&wake));
        self.lanes.push((lane.erased(), wake));
        lane
    }

    /// Runs until `stop` is cancelled and the lanes are empty.
    pub fn start(self, tracker: &TaskTracker, stop: &CancellationToken) {
        if self.db.is_shared() {
            for (lane, wake) in self.lanes {
                tracker.spawn(serve(self.db.clone(), vec![lane], wake, stop.clone()));
            }
        } else {
            let lanes = self.lanes.into_iter().map(|(lane, _)| lane).collect();
            tracker.spawn(serve(self.db, lanes, self.wake, stop.clone()));
        }
    }
}

async fn serve(db: Db, lanes: Vec<Arc<dyn AnyLane>>, wake: Arc<Notify>, stop: CancellationToken) {
    loop {
        let readiness = lanes.iter().map(|lane| lane.readiness()).min().unwrap_or(Readiness::Empty);
        let stopping = stop.is_cancelled();
        match readiness {
            Readiness::Now => run::group(&db, take(&lanes)).await,
            Readiness::In(_) if stopping => run::group(&db, take(&lanes)).await,
            Readiness::In(wait) => {
                // A time-out is the normal case here: the patience has run out.
                let _ = tokio::time::timeout(wait, wake.notified()).await;
            }
            Readiness::Empty if stopping => return,
            Readiness::Empty => {
                tokio::select! {
                    () = wake.notified() => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }
}

fn take(lanes: &[Arc<dyn AnyLane>]) -> Vec<Box<dyn batch::AnyBatch>> {
    lanes.iter().filter_map(|lane| lane.take()).collect()
}
