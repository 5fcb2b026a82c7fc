//! Watching settings change, with the guarantees of a watch in etcd.
//!
//! A watch is *ordered* (revisions come in theirs), *unique* (each once), *reliable* (none is left out), *atomic* (a
//! revision comes whole or not at all), *resumable* (from any revision that the history still has) and *bookmarkable* (when
//! nothing happens, the revision that it is at comes all the same).  It holds a position and nothing else: what follows
//! is read from the history, so that a slow one costs nothing.  A revision comes when this node has its values, so
//! that who reads a setting after it does not get an older one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::definition;
use super::history::{self, Revision};
use super::service::SettingsService;
use crate::clock::Stopwatch;
use crate::db::{Db, revision};
use crate::error::{Error, Kind, Result, Violations};
use crate::rpc::admission::Admission;
use crate::rpc::{Access, Authenticate, Principal};

/// How many may watch a node.
pub const WATCHERS: usize = 128;
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(15);
const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(1);
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(50);
const KEY_LIMIT: usize = 100;
/// How many revisions are read at a time.
const BATCH: i64 = 64;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What watches of this node share.
#[derive(Clone)]
pub struct Watches {
    authenticate: Arc<dyn Authenticate>,
    admission: Arc<Admission>,
    stop: CancellationToken,
    room: Arc<Semaphore>,
}

/// What a watcher asks for.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The revision after which to begin; now without one.
    pub after: Option<i64>,
    /// Settings, or categories as `email.*`; all when there are none.
    pub keys: Vec<String>,
    /// How often something comes at least.
    pub heartbeat: Option<Duration>,
}

/// A watch.
pub struct Watch {
    watches: Watches,
    principal: Principal,
    access: Access,
    db: Db,
    head: watch::Receiver<i64>,
    keys: Vec<String>,
    heartbeat: Duration,
    position: i64,
    pending: VecDeque<Revision>,
    opened: bool,
    ended: bool,
    sent: Stopwatch,
    checked: Stopwatch,
    /// Told when a key or token may have ended or may do less.
    revoked: watch::Receiver<u64>,
    _room: OwnedSemaphorePermit,
}

/// What comes of a watch: the revision up to which all has come, and what it changed, if that is new.
#[derive(Debug)]
pub struct Step {
    /// Where the watch is.
    pub position: i64,
    /// The revision, with the changes that were asked for.
    pub revision: Option<Revision>,
}

impl Watches {
    /// Watches that end with `stop`, and when whoever made them may not go on.
    pub fn new(
        authenticate: Arc<dyn Authenticate>,
        admission: Arc<Admission>,
        stop: CancellationToken,
    ) -> Self {
        Self { authenticate, admission, stop, room: Arc::new(Semaphore::new(WATCHERS)) }
    }

    /// Begins a watch.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a wish that can not be, `OUT_OF_RANGE` for a revision that is forgotten,
    /// `RESOURCE_EXHAUSTED` when too many watch already.
    pub async fn open(
        &self,
        settings: &SettingsService,
        principal: Principal,
        access: Access,
        wish: Wish,
    ) -> Result<Watch> {
        let mut violations = Violations::default();
        violations.require(wish.keys.len() <= KEY_LIMIT, "keys", "must have at most 100 entries");
        for (index, key) in wish.keys.iter().enumerate() {
            let category = |known: &definition::Definition| Some(known.category()) == key.strip_suffix(".*");
            let known = definition::find(key).is_some() || definition::all().any(category);
            violations.require(
                known,
                &format!("keys[{index}]"),
                "is not a setting, nor a category such as email.*",
            );
        }
        let heartbeat = wish.heartbeat.unwrap_or(DEFAULT_HEARTBEAT);
        let sane = (SHORTEST_HEARTBEAT..=LONGEST_HEARTBEAT).contains(&heartbeat);
        violations.require(sane, "heartbeat_interval", "must be 1 to 50 seconds");
        violations.finish()?;
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            let message = format!("{WATCHERS} watch the settings of this node already");
            Error::new(Kind::ResourceExhausted, "WATCH_LIMIT", message).retry_after(RETRY_AFTER)
        })?;
        let (head, mut revoked) = (settings.head(), self.authenticate.revoked());
        // What was told between the gate and here was told to nobody.
        revoked.mark_changed();
        let position = match wish.after {
            None => *head.borrow(),
            Some(after) => {
                // Another node may have told of a revision that this one has not read yet.
                let mut conn = settings.db.reader().await?;
                let current = revision::current(&mut conn, revision::SETTINGS).await?;
                if after > current {
                    return Err(Error::field(
                        "after_revision",
                        format!("is newer than the newest, {current}"),
                    ));
                }
                history::require_known(&mut conn, after, current).await?;
                after
            }
        };
        Ok(Watch {
            watches: self.clone(),
            principal,
            access,
            db: settings.db.clone(),
            head,
            keys: wish.keys,
            heartbeat,
            position,
            pending: VecDeque::new(),
            opened: false,
            ended: false,
            sent: Stopwatch::start(),
            checked: Stopwatch::start(),
            revoked,
            _room: room,
        })
    }
}

impl Watch {
    /// What comes next; `None` after an error, which ends the watch.
    pub async fn next(&mut self) -> Option<Result<Step>> {
        if self.ended {
            return None;
        }
        let step = self.step().await;
        self.ended = step.is_err();
        self.sent = Stopwatch::start();
        Some(step)
    }

    async fn step(&mut self) -> Result<Step> {
        // A bookmark at once: whoever watches knows from where on nothing is missed.
        if !std::mem::replace(&mut self.opened, true) {
            return Ok(self.bookmark());
        }
        loop {
            if self.watches.stop.is_cancelled() {
                let message = "the server stops: watch again, after the revision that came last";
                return Err(Error::new(Kind::Unavailable, "UNAVAILABLE", message)
                    .with("revision", self.position.to_string())
                    .retry_after(RETRY_AFTER));
            }
            // A key that ends or may do less must end its watches, busy ones too: at once when somebody does that, and soon when
            // its time is over.
            let told = self.revoked.has_changed().unwrap_or(false);
            if told || self.checked.elapsed() >= self.heartbeat {
                self.revoked.mark_unchanged();
                self.checked = Stopwatch::start();
                let Watches { authenticate, admission, .. } = &self.watches;
                admission.revalidate(&**authenticate, &self.principal, &self.access).await?;
            }
            self.read().await?;
            while let Some(mut revision) = self.pending.pop_front() {
                self.position = revision.number;
                revision.changes.retain(|change| wants(&self.keys, &change.key));
                if !revision.changes.is_empty() {
                    return Ok(Step { position: self.position, revision: Some(revision) });
                }
            }
            let left = self.heartbeat.saturating_sub(self.sent.elapsed());
            if left.is_zero() {
                return Ok(self.bookmark());
            }
            if self.position < *self.head.borrow() {
                continue;
            }
            tokio::select! {
                // The sender lives as long as the service, whose port ends this watch first.
                _ = self.head.changed() => {}
                _ = self.revoked.changed() => self.revoked.mark_changed(),
                () = tokio::time::sleep(left) => {}
                () = self.watches.stop.cancelled() => {}
            }
        }
    }

    /// Reads what follows the position, up to what this node knows.
    async fn read(&mut self) -> Result<()> {
        // Marked as seen before it is read: what comes in between wakes the watch.
        let head = *self.head.borrow_and_update();
        if !self.pending.is_empty() || self.position >= head {
            return Ok(());
        }
        let mut conn = self.db.reader().await?;
        let mut revisions = history::after(&mut conn, self.position, Some(BATCH)).await?;
        // Read first and judged then, because the history may forget in between.
        if revisions.first().is_none_or(|first| first.number != self.position + 1) {
            history::require_known(&mut conn, self.position, head).await?;
        }
        revisions.retain(|revision| revision.number <= head);
        self.pending = revisions.into();
        Ok(())
    }

    fn bookmark(&self) -> Step {
        Step { position: self.position, revision: None }
    }
}

fn wants(keys: &[String], key: &str) -> bool {
    let matches = |wanted: &String| match wanted.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => key == wanted,
    };
    keys.is_empty() || keys.iter().any(matches)
}
