//! This node's lease on its deliveries.
//!
//! SQLite has one process, which holds its file: the lease never ends.  On PostgreSQL each node renews a row of `nodes`
//! by the database's clock; a node whose row has run out loses its deliveries to whoever notices.  The node itself
//! counts from before it asked for the renewal, by a clock that nobody can set, so that it stops starting attempts
//! before anybody else may begin with them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::model::Table;
use super::store;
use crate::clock::{SharedClock, Stopwatch};
use crate::db::Db;
use crate::error::Result;

/// How long a node's deliveries stay its own after its last sign of life.
pub const LEASE: Duration = Duration::from_secs(15);

/// This node.
pub struct Node {
    id: i64,
    lease: Duration,
    /// When the lease was last asked for; `None` for a lease that never ends.
    renewed: Option<Mutex<Stopwatch>>,
    /// Grows when the lease had ended before it was renewed: what was in hand then may be somebody else's by now.
    term: AtomicU64,
}

impl Node {
    /// A node of a database that only it uses.
    pub fn alone(id: i64) -> Self {
        Self { id, lease: LEASE, renewed: None, term: AtomicU64::new(0) }
    }

    /// A node among others; it must be renewed before its first delivery.
    pub fn among_others(id: i64, lease: Duration) -> Self {
        Self { id, lease, renewed: Some(Mutex::new(Stopwatch::start())), term: AtomicU64::new(0) }
    }

    /// Its id, the `lease_owner` of its deliveries.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Whether its deliveries are still its own.
    pub fn holds_lease(&self) -> bool {
        self.renewed.as_ref().is_none_or(|renewed| {
            renewed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).elapsed() < self.lease
        })
    }

    /// Which unbroken stretch of the lease this is: a delivery may be started in the one that it was taken in.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// How often to call [`Node::renew`].
    pub fn renewal_interval(&self) -> Duration {
        self.lease / 3
    }

    /// Renews the lease, and returns the deliveries of dead nodes to the queue.
    pub async fn renew(&self, db: &Db, clock: &SharedClock) -> Result<()> {
        let Some(renewed) = &self.renewed else {
            return Ok(());
        };
        let asked = Stopwatch::start();
        store::renew_node(db, self.id, self.lease).await?;
        self.renewed_at(renewed, asked);
        for table in [Table::WebhookDeliveries, Table::EmailQueue] {
            let recovered = store::recover_dead(db, table, clock.now()).await?;
            if recovered > 0 {
                tracing::warn!(
                    channel = table.channel(),
                    recovered,
                    "a node died: its deliveries returned to the queue"
                );
            }
        }
        store::forget_dead_nodes(db).await
    }

    fn renewed_at(&self, renewed: &Mutex<Stopwatch>, asked: Stopwatch) {
        let mut renewed = renewed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if renewed.elapsed() >= self.lease {
            // Before the lease counts again.
            self.term.fetch_add(1, Ordering::AcqRel);
        }
        *renewed = asked;
    }

    /// Gives the lease up: the last thing a node does.
    pub async fn leave(&self, db: &Db) -> Result<()> {
        if self.renewed.is_none() {
            return Ok(());
        }
        store::forget_node(db, self.id).await
    }
}
