//! Whose tokens were ended, and up to when: all of it in memory, because every call of a user asks.
//!
//! A node knows at once what it ends itself.  What others end it learns by asking four times a second for what is new; when it
//! could not ask for a second, it asks before it believes a token, or says that it can not.  A user who is ended again and
//! again has one entry, and an entry goes once no token from before it can be alive.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Mutex;

use super::model::{LEEWAY, LONGEST};
use super::store;
use crate::audit::{self, Change, Recorder};
use crate::clock::{SharedClock, Stopwatch, Timestamp};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::origin;
use crate::rpc::Endings;

/// How often a node asks what other nodes ended.
pub const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);
/// The longest that what another node ended goes unseen, in microseconds.
const STALE: u64 = 1_000_000;

/// Whose tokens were ended.
pub struct Revocations {
    db: Db,
    clock: SharedClock,
    endings: Endings,
    ended: RwLock<HashMap<String, Timestamp>>,
    /// Times are counted from here.
    began: Stopwatch,
    /// When it was last asked what is new.
    followed: AtomicU64,
    /// The revision up to which it is known.
    revision: AtomicI64,
    /// Held by the one who asks for all that wait.
    turn: Mutex<()>,
}

impl Revocations {
    /// Reads what there is.
    ///
    /// # Errors
    /// When the database can not be read.
    pub async fn open(db: Db, clock: SharedClock, endings: Endings) -> Result<Arc<Self>> {
        let revocations = Self {
            db,
            clock,
            endings,
            ended: RwLock::default(),
            began: Stopwatch::start(),
            followed: AtomicU64::new(0),
            revision: AtomicI64::new(-1),
            turn: Mutex::default(),
        };
        revocations.follow().await?;
        Ok(Arc::new(revocations))
    }

    /// Whether what is in memory can be believed.
    pub(super) fn is_current(&self) -> bool {
        // One process alone changes an embedded database.
        !self.db.is_shared() || self.now().saturating_sub(self.followed.load(Ordering::Acquire)) < STALE
    }

    /// Sees to it that what is in memory can be believed.
    ///
    /// # Errors
    /// When the database can not be asked.
    pub(super) async fn make_current(&self) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        if self.is_current() { Ok(()) } else { self.follow().await }
    }

    /// Whether a token of a user that was made at this time has been ended.
    pub(super) fn has_ended(&self, user_id: &str, made: Timestamp) -> bool {
        let ended = self.ended.read().unwrap_or_else(PoisonError::into_inner);
        ended.get(user_id).is_some_and(|&up_to| made <= up_to)
    }

    /// Learns what other nodes ended.
    ///
    /// # Errors
    /// When the database can not be asked.
    pub async fn follow(&self) -> Result<()> {
        let now = self.now();
        let mut conn = self.db.reader().await?;
        let (seen, current) = (self.revision.load(Ordering::Acquire), store::revision(&mut conn).await?);
        if current != seen {
            for (user_id, up_to) in store::ended_after(&mut conn, seen).await? {
                self.take(user_id, up_to);
            }
            self.revision.fetch_max(current, Ordering::AcqRel);
            self.endings.tell();
        }
        self.followed.fetch_max(now, Ordering::AcqRel);
        Ok(())
    }

    /// Ends every token that a user has; answers up to when they were made.
    pub(super) async fn end(self: &Arc<Self>, user_id: String, audit: Recorder) -> Result<Timestamp> {
        let revocations = Arc::clone(self);
        // A task of its own: what is committed is in memory too, also when the caller is gone by then.
        let work = async move {
            let now = revocations.clock.now();
            let user = user_id.clone();
            let unit = revocations.db.transaction(move |conn| {
                Box::pin(async move {
                    let up_to = store::end(conn, &user, now).await?;
                    let change = Change::new("subscriber_tokens", user, "revoke");
                    let told = audit::fields(&json!({ "revoke_time": up_to.to_string() }));
                    audit.record(conn, change.to(told)).await?;
                    Ok(up_to)
                })
            });
            let up_to = unit.await?;
            revocations.take(user_id, up_to);
            revocations.endings.tell();
            Ok(up_to)
        };
        tokio::spawn(origin::carried(work)).await.map_err(Error::internal)?
    }

    /// Forgets what no living token is from before of.
    ///
    /// # Errors
    /// When the database refuses it.
    pub async fn forget_old(&self) -> Result<()> {
        // Another node's clock may be behind, and so may the provider's that made a token.
        let before = self.clock.now() - LONGEST - 2 * LEEWAY;
        self.ended.write().unwrap_or_else(PoisonError::into_inner).retain(|_, up_to| *up_to >= before);
        let unit =
            self.db.transaction(move |conn| Box::pin(async move { store::forget(conn, before).await }));
        unit.await.map(drop)
    }

    fn take(&self, user_id: String, up_to: Timestamp) {
        let mut ended = self.ended.write().unwrap_or_else(PoisonError::into_inner);
        let known = ended.entry(user_id).or_default();
        *known = up_to.max(*known);
    }

    /// Microseconds since it began.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
