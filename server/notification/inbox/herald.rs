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
use crate::event::bus::Bus;
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
        let mut watcher = bus.watch();
        let mut position = watcher.head();
        loop {
            let records = watcher.after(position).await.unwrap_or_else(|_| {
                // It was further behind than the log reaches: whatever there was, everybody's counts may be others.
                position = watcher.head();
                self.changed([], true);
                Vec::new()
            });
            let is_broadcast =
                |fact: &Fact| &*fact.topic == topic::BROADCAST && fact.event_type.starts_with(word::SENT);
            if records.iter().any(|record| is_broadcast(&record.event.fact)) {
                self.changed([], true);
            }
            if let Some(last) = records.last() {
                position = last.event.position;
                continue;
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
