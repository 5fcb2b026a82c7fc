//! Presence: who is online.
//!
//! # What it means
//! A user is online while a stream of theirs is open on any node, and for the *linger* after the last one was closed: who
//! reloads a page or changes networks does not go.  `user.online` and `user.offline` are published once for each change,
//! whatever the number of devices and nodes.
//!
//! # How it works
//! ```text
//! stream opens / closes ─▶ roster (memory) ─ first of a user here / linger ended ─▶ presence_nodes, presence_users
//!                                                                                     └─▶ announce ─▶ the event log
//! ```
//! * The [`roster`] counts the streams of this node.  Nothing is written for a stream or a heartbeat: a node has one row
//!   for each user, written when they come and removed when their linger has ended.  One task writes, and takes at a time
//!   all who have gathered meanwhile.
//! * The transaction that adds or removes the row also decides whether the user came or went as such: they have a row in
//!   `presence_users`, which is locked.  Each change adds one to its generation.
//! * A change is published right after the commit ([`announce`]), by a request id made of user and generation; what a crash
//!   keeps from being published is found in the row by whoever looks next.
//! * A node that dies leaves rows.  Another one takes them over when its lease has ended, as if those users had closed
//!   their last stream at that moment, and a node that starts alone does so with the rows of the process before.  A node
//!   that was only thought dead notes its users anew.

mod announce;
mod erase;
mod roster;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use erase::PresenceBelongings;
pub use store::Standing;

use self::roster::{Arrival, Changes, Roster};
use crate::clock::{SharedClock, Stopwatch};
use crate::db::Db;
use crate::db::group::Lane;
use crate::delivery::Node;
use crate::error::{Result, Violations};
use crate::event::{PublishWrite, topic};
use crate::id::IdGenerator;
use crate::notification::attendance::Attendance;
use crate::rpc::User;

/// How long a user stays online after their last stream was closed, when no setting says otherwise.
pub const LINGER: Duration = Duration::from_secs(15);
/// How many users one transaction takes.
const BATCH: usize = 1_000;
/// How often it is looked whether a linger has ended.
const TICK: Duration = Duration::from_millis(250);
/// How often a node looks for what others left behind.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// For how long it is remembered that somebody was online: longer than the request ids of what was published of it.
const REMEMBERED: Duration = Duration::from_secs(48 * 60 * 60);
/// How many users a filter may name.
pub const FILTER_LIMIT: usize = 500;

/// What presence needs.
pub struct Parts {
    /// The database.
    pub db: Db,
    /// This node.
    pub node: Arc<Node>,
    /// Where what happens is published.
    pub publishes: Lane<PublishWrite>,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
}

/// Knows who is online.
pub struct Presence {
    parts: Parts,
    roster: Roster,
    /// In microseconds.
    linger: AtomicI64,
    wake: Notify,
}

/// A stream that is open.
struct Here {
    presence: Arc<Presence>,
    user_id: Arc<str>,
}

impl Drop for Here {
    fn drop(&mut self) {
        if self.presence.roster.leave(&self.user_id, self.presence.parts.clock.steady()) {
            self.presence.wake.notify_one();
        }
    }
}

impl Attendance for Arc<Presence> {
    fn arrived(&self, user: &User) -> Box<dyn Send> {
        if topic::check_user_id(&user.id).is_err() {
            // Nobody could have a topic of their own by this name, and so nobody can ask for it either.
            return Box::new(());
        }
        let (user_id, news) = self.roster.arrive(&user.id, &shown(&user.name));
        if news {
            self.wake.notify_one();
        }
        Box::new(Here { presence: Arc::clone(self), user_id })
    }
}

/// A name as it can be kept and shown, whatever an identity provider calls people.
fn shown(name: &str) -> String {
    name.chars().filter(|character| !character.is_control()).take(256).collect()
}

impl Presence {
    /// Nobody is here yet.
    pub fn new(parts: Parts) -> Arc<Self> {
        let linger = AtomicI64::new(LINGER.as_micros() as i64);
        Arc::new(Self { parts, roster: Roster::default(), linger, wake: Notify::new() })
    }

    /// Says how long a user stays online after their last stream was closed; holds for those who linger already.
    pub fn set_linger(&self, linger: Duration) {
        self.linger.store(linger.as_micros() as i64, Ordering::Relaxed);
        self.wake.notify_one();
    }

    fn linger(&self) -> Duration {
        Duration::from_micros(self.linger.load(Ordering::Relaxed).unsigned_abs())
    }

    /// Writes who comes and goes, and looks after what others left behind, until `stop`.
    ///
    /// What is not written then is taken over by another node, or by the next start.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut term = self.parts.node.term();
        let mut looked: Option<Stopwatch> = None;
        loop {
            let work = async {
                if looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
                    looked = Some(Stopwatch::start());
                    self.look(&mut term).await?;
                }
                self.write_all().await
            };
            let failed = work.await.inspect_err(|error| {
                tracing::warn!(%error, "who is online could not be written; it is tried again");
            });
            let wait = match failed {
                Err(_) => PAUSE,
                Ok(()) if self.roster.is_lingering() => TICK,
                Ok(()) => LOOK,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified(), if failed.is_ok() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Looks for users of dead nodes, and for changes that nobody has published.
    async fn look(&self, term: &mut u64) -> Result<()> {
        let current = self.parts.node.term();
        if std::mem::replace(term, current) != current {
            // The lease had ended: another node may have taken over our users.
            self.roster.doubt();
        }
        let node_id = self.parts.node.id();
        while store::are_abandoned(&mut self.parts.db.reader().await?, node_id).await? {
            let adopted = self.parts.db.transaction(move |conn| {
                Box::pin(async move { store::adopt(conn, node_id, BATCH as i64).await })
            });
            let adopted = adopted.await?;
            if adopted.is_empty() {
                // Another node is at it.
                break;
            }
            self.roster.adopt(&adopted, self.parts.clock.steady());
        }
        self.announce_due().await
    }

    async fn write_all(&self) -> Result<()> {
        loop {
            let changes = self.roster.take(self.parts.clock.steady(), self.linger(), BATCH);
            if changes.is_empty() {
                return Ok(());
            }
            let Changes { arrived, left } = changes;
            let arriving = self.write_arrivals(arrived).await;
            // Also when that failed: what was taken is to be given back.
            let leaving = self.write_departures(left).await;
            let mut standings = arriving?;
            standings.extend(leaving?);
            self.announce(standings).await?;
        }
    }

    async fn write_arrivals(&self, arrived: Vec<Arrival>) -> Result<Vec<Standing>> {
        if arrived.is_empty() {
            return Ok(Vec::new());
        }
        let (node_id, now) = (self.parts.node.id(), self.parts.clock.now());
        let users = arrived.clone();
        let written = self.parts.db.transaction(move |conn| {
            Box::pin(async move { store::arrive(conn, node_id, &users, now).await })
        });
        let written = written.await;
        self.roster.arrivals_written(&arrived, written.is_ok());
        written
    }

    async fn write_departures(&self, left: Vec<String>) -> Result<Vec<Standing>> {
        if left.is_empty() {
            return Ok(Vec::new());
        }
        let (node_id, now) = (self.parts.node.id(), self.parts.clock.now());
        let user_ids = left.clone();
        let written = self.parts.db.transaction(move |conn| {
            Box::pin(async move { store::leave(conn, node_id, &user_ids, now).await })
        });
        let written = written.await;
        self.roster.departures_written(&left, written.is_ok());
        written
    }

    /// Those who are online, by user id after `after`, of these users or of all; and how many there are in all.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for bad ids or too many.
    pub async fn list(
        &self,
        user_ids: &[String],
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Standing>, i64)> {
        let mut violations = Violations::default();
        violations.require(user_ids.len() <= FILTER_LIMIT, "user_ids", "must have at most 500 entries");
        for (index, user_id) in user_ids.iter().enumerate().take(FILTER_LIMIT) {
            violations.check(&format!("user_ids[{index}]"), topic::check_user_id(user_id));
        }
        violations.finish()?;
        let mut conn = self.parts.db.reader().await?;
        let online = store::list(&mut conn, user_ids, after, limit as i64).await?;
        Ok((online, store::count(&mut conn, user_ids).await?))
    }

    /// How many are online.
    ///
    /// # Errors
    /// When the database can not be read.
    pub async fn online(&self) -> Result<i64> {
        store::count(&mut self.parts.db.reader().await?, &[]).await
    }

    /// Forgets those who went long ago.
    ///
    /// # Errors
    /// When the database refuses it.
    pub async fn tidy(&self) -> Result<()> {
        let before = self.parts.clock.now() - REMEMBERED;
        loop {
            let forgotten = self.parts.db.transaction(move |conn| {
                Box::pin(async move { store::forget(conn, before, BATCH as i64).await })
            });
            if forgotten.await? < BATCH {
                return Ok(());
            }
        }
    }
}
