//! Tells devices how many notifications wait: after the commit, absolutely, and as an event that is not kept.
//!
//! Whoever changes counts names the users, and goes on; the herald reads the counts when it comes to it, so that many
//! changes of one inbox are told once, and what it tells is what was true last.  A broadcast changes everybody's: each
//! node tells the users that have a stream open on it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::store;
use super::word;
use crate::clock::SharedClock;
use crate::db::Db;
use crate::error::Result;
use crate::event::bus::{Bus, Record, Wanted};
use crate::event::topic::TopicPattern;
use crate::event::{Fact, topic};
use crate::id::{IdGenerator, Kind};

/// Of the counts of a user, only the newest are of any use.
pub const COLLAPSE_KEY: &str = "counts";
/// How many users' counts are read in a row, before others have their turn.
const AT_A_TIME: usize = 100;

/// The way to devices that listen now.
pub trait Devices: Send + Sync + 'static {
    /// Tells an event that is not kept; of those with one topic and key only the newest counts.  Everywhere means on the
    /// other nodes too.
    fn tell(&self, fact: Arc<Fact>, collapse_key: &str, everywhere: bool);

    /// The users that have a stream open on this node.
    fn users(&self) -> Vec<String>;
}

/// Users whose counts change in transactions that are not committed yet.
#[derive(Debug, Clone, Default)]
pub struct Changed(Arc<Mutex<BTreeSet<String>>>);

impl Changed {
    /// Notes users.
    pub fn note(&self, users: impl IntoIterator<Item = String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(users);
    }

    /// Tells the counts of those that were noted; to be called after the commit.
    pub fn tell(&self, herald: &Herald) {
        let users = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if !users.is_empty() {
            herald.changed(users, false);
        }
    }
}

#[derive(Default)]
struct Waiting {
    users: BTreeSet<String>,
    everybody: bool,
}

/// The herald.
pub struct Herald {
    /// The database.
    pub db: Db,
    /// Where to.
    pub devices: Arc<dyn Devices>,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

impl Herald {
    /// A herald that has nothing to tell yet.
    pub fn new(db: Db, devices: Arc<dyn Devices>, ids: Arc<IdGenerator>, clock: SharedClock) -> Self {
        Self { db, devices, ids, clock, waiting: Mutex::default(), wake: Notify::new() }
    }

    /// Notes whose counts may be others now.
    pub fn changed(&self, users: impl IntoIterator<Item = String>, everybody: bool) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.users.extend(users);
        waiting.everybody |= everybody;
        drop(waiting);
        self.wake.notify_one();
    }

    /// Tells, until it is stopped.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
            }
            let Waiting { users, everybody } =
                std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            let told = async {
                self.tell(users.into_iter().collect(), true).await?;
                if everybody {
                    self.tell(self.devices.users(), false).await?;
                }
                Ok::<_, crate::error::Error>(())
            };
            if let Err(error) = told.await {
                tracing::warn!(%error, "counts of notifications were not told; devices have them when they ask");
            }
        }
    }

    /// Follows the broadcasts of all nodes, for the users of this one, until it is stopped.
    pub async fn follow(self: Arc<Self>, bus: Arc<Bus>, stop: CancellationToken) {
        let wanted = Wanted::of(&[TopicPattern::Exactly(topic::BROADCAST.to_owned())]);
        let watcher = bus.watch_topics(wanted, Arc::default());
        let mut position = watcher.head();
        loop {
            match watcher.after(position).await {
                Ok(Some(read)) => {
                    let is_ours = |record: &Arc<Record>| record.event.fact.event_type.starts_with(word::SENT);
                    if read.records.iter().any(is_ours) {
                        self.changed([], true);
                    }
                    position = read.through;
                    if !read.records.is_empty() {
                        continue;
                    }
                }
                // The log begins later by now: whatever there was, everybody's counts may be others.
                Ok(None) => {
                    position = watcher.head();
                    self.changed([], true);
                }
                Err(error) => {
                    tracing::warn!(%error, "the log of broadcasts could not be read; it is tried again");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = watcher.changed() => {}
            }
        }
    }

    async fn tell(&self, users: Vec<String>, everywhere: bool) -> Result<()> {
        for users in users.chunks(AT_A_TIME) {
            let mut conn = self.db.reader().await?;
            for user_id in users {
                let now = self.clock.now();
                let counts = store::counts(&mut conn, user_id, now).await?;
                let data =
                    json!({ "unread": counts.unread, "unseen": counts.unseen, "version": counts.version });
                let topic = topic::of_user(user_id);
                let fact = Fact {
                    id: self.ids.next(Kind::Event).into(),
                    event_type: word::COUNTS.into(),
                    data: data.to_string(),
                    actor: String::new(),
                    subject: topic.clone(),
                    topic: topic.into(),
                    created_at: now,
                };
                self.devices.tell(Arc::new(fact), COLLAPSE_KEY, everywhere);
            }
        }
        Ok(())
    }
}
