//! The open streams of this node, by name.
//!
//! ```text
//! subscribe ──────────▶ enter: limits ─▶ seat, which the stream holds as long as it lasts
//! update, refresh ────▶ the stream's entry ─▶ its bell ─▶ the stream takes note
//! settings, drain, … ─▶ all bells
//! sweep ──────────────▶ streams whose peer does not read: told so if they come back, and cut off if not
//! ```
//! A stream of another node is somebody else's affair ([`Elsewhere`]).

mod id;
mod limits;
mod seat;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::view::{Filter, Grant, View, Wish};
use crate::clock::Stopwatch;
use crate::error::{Error, Result, Violations};
use crate::rpc::{Principal, cut};
use crate::secret::SharedRandom;
use limits::Opens;
use seat::{Entry, State};

pub use id::node_of;
pub use limits::Limits;
pub use seat::{Changes, Seat};

/// A drain ends so many streams in a second, so that their clients do not come back all at once.
const DRAINED_PER_SECOND: usize = 1_000;
/// Whoever is refused is asked to wait for up to this long more.
const PATIENCE: Duration = Duration::from_secs(2);

/// A change of a stream: all that it is to be about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Greater than that of every change before.
    pub generation: i64,
    /// What it is to be about.
    pub wish: Wish,
}

impl Update {
    /// Checks it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with everything that is wrong.
    pub fn check(&self) -> Result<Filter> {
        let mut violations = Violations::default();
        violations.require(self.generation > 0, "generation", "must be greater than 0");
        let filter = self.wish.read(&mut violations);
        violations.finish()?;
        Ok(filter)
    }
}

/// Reaches the streams of other nodes.
pub trait Elsewhere: Send + Sync + 'static {
    /// Has another node change a stream of its own; answers as [`Registry::update`].
    fn update<'a>(
        &'a self,
        node: i64,
        id: &'a str,
        caller: &'a Principal,
        update: &'a Update,
    ) -> BoxFuture<'a, Result<i64>>;

    /// Has another node put another caller in the place of the one before; answers as [`Registry::refresh`].
    fn refresh<'a>(&'a self, node: i64, id: &'a str, caller: &'a Principal) -> BoxFuture<'a, Result<()>>;
}

/// There are no other nodes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl Elsewhere for Nowhere {
    fn update<'a>(
        &'a self,
        _node: i64,
        id: &'a str,
        _caller: &'a Principal,
        _update: &'a Update,
    ) -> BoxFuture<'a, Result<i64>> {
        Box::pin(async move { Err(unknown(id)) })
    }

    fn refresh<'a>(&'a self, _node: i64, id: &'a str, _caller: &'a Principal) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { Err(unknown(id)) })
    }
}

/// Knows which keys took the place of which.
pub trait Succession: Send + Sync + 'static {
    /// Whether a key was replaced by another one, directly or in several steps.
    fn is_replaced_by<'a>(&'a self, key_id: &'a str, by: &'a str) -> BoxFuture<'a, Result<bool>>;
}

/// How long a peer may leave what is sent to it unread.
#[derive(Debug, Clone, Copy)]
pub struct Unread {
    /// After this time the stream is to end.
    pub ends: Duration,
    /// After this time more it is cut off.
    pub cut: Duration,
}

impl Default for Unread {
    fn default() -> Self {
        Self { ends: Duration::from_secs(60), cut: Duration::from_secs(15) }
    }
}

/// The open streams.
pub struct Registry {
    node: i64,
    random: SharedRandom,
    succession: Arc<dyn Succession>,
    unread: Unread,
    limits: ArcSwap<Limits>,
    opens: Opens,
    streams: Mutex<Streams>,
    watch: Stopwatch,
    /// Grows when every stream has to ask anew whether its caller is still valid.
    rechecks: AtomicU64,
    drains: AtomicBool,
    drain: OnceLock<Drain>,
}

#[derive(Default)]
struct Streams {
    open: HashMap<String, Arc<Entry>>,
    users: HashMap<String, usize>,
    addresses: HashMap<u128, usize>,
}

/// A drain under way.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// When it began.
    pub began: Stopwatch,
    /// In how much time all streams end.
    pub window: Duration,
}

impl Registry {
    /// A registry without streams.
    pub fn new(
        node: i64,
        random: SharedRandom,
        succession: Arc<dyn Succession>,
        unread: Unread,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            random,
            succession,
            unread,
            limits: ArcSwap::default(),
            opens: Opens::new(),
            streams: Mutex::default(),
            watch: Stopwatch::start(),
            rechecks: AtomicU64::new(0),
            drains: AtomicBool::new(false),
            drain: OnceLock::new(),
        })
    }

    /// This node.
    pub fn node(&self) -> i64 {
        self.node
    }

    /// How many streams are open.
    pub fn len(&self) -> usize {
        self.streams().open.len()
    }

    /// The users that have one open.
    pub fn users(&self) -> Vec<String> {
        self.streams().users.keys().cloned().collect()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the settings say.
    pub fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    /// Has these limits from now on, for the open streams too.
    pub fn set_limits(&self, limits: Limits) {
        if **self.limits.load() != limits {
            self.limits.store(Arc::new(limits));
            self.wake();
        }
    }

    /// Takes a place for a stream from what counts as one address, if it counts.  Nothing is asked but memory.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` with the reason `LIVE_DISABLED`, `RESOURCE_EXHAUSTED` with `STREAM_LIMIT`.
    pub fn enter(
        self: &Arc<Self>,
        principal: &Principal,
        address: Option<u128>,
        filter: &Arc<Filter>,
        silence: Duration,
    ) -> Result<Seat> {
        let limits = self.limits();
        if !limits.enabled {
            return Err(limits::disabled());
        }
        let wait = || PATIENCE / 2 + self.jitter(PATIENCE);
        let user = principal.user.as_ref().map(|user| user.id.clone());
        let id = id::new(self.node, &self.random);
        let mut streams = self.streams();
        if streams.open.len() >= limits.streams {
            let message = format!("{} streams are open on this node already", limits.streams);
            return Err(limits::full("notifications.max_streams", message, wait()));
        }
        let of_user = user.as_ref().and_then(|user| streams.users.get(user)).copied().unwrap_or_default();
        if of_user >= limits.per_user {
            let message = format!("{} streams of this user are open already", limits.per_user);
            return Err(limits::full("notifications.max_streams_per_user", message, wait()));
        }
        if let (Some(most), Some(address)) = (limits.per_address, address)
            && streams.addresses.get(&address).is_some_and(|&count| count >= most)
        {
            let message = format!("{most} streams from this address are open already");
            return Err(limits::full("notifications.max_streams_per_address", message, wait()));
        }
        // The last, so that what is refused for another reason is not counted.
        if let Err(after) = self.opens.take(&limits) {
            let message = format!("{} streams were opened within a second", limits.opens_per_second);
            let setting = "notifications.stream_opens_per_second";
            return Err(limits::full(setting, message, after + self.jitter(PATIENCE)));
        }
        let entry = Arc::new(Entry {
            bell: Arc::default(),
            state: Mutex::new(State::new(principal.clone(), Arc::clone(filter))),
            changed: AtomicBool::new(false),
            polled: AtomicU64::new(self.millis()),
            silence: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX),
            slow: AtomicBool::new(false),
            cut: cut::current(),
        });
        streams.open.insert(id.clone(), Arc::clone(&entry));
        if let Some(user) = &user {
            streams.users.insert(user.clone(), of_user + 1);
        }
        if let Some(address) = address {
            *streams.addresses.entry(address).or_default() += 1;
        }
        drop(streams);
        Ok(Seat { registry: Arc::clone(self), id, user, address, entry })
    }

    fn leave(&self, seat: &Seat) {
        let mut streams = self.streams();
        streams.open.remove(&seat.id);
        if let Some(user) = &seat.user {
            one_less(&mut streams.users, user);
        }
        if let Some(address) = &seat.address {
            one_less(&mut streams.addresses, address);
        }
    }

    /// Changes what a stream of this node is about, unless a later change did; answers the generation that it has now.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`; `NOT_FOUND` when this caller has no such stream here; `PERMISSION_DENIED` with the reason
    /// `TOPIC_DENIED`.
    pub async fn update(&self, id: &str, caller: &Principal, update: &Update) -> Result<i64> {
        let filter = update.check()?;
        self.of(id, caller).await?.update(update.generation, Arc::new(filter))
    }

    /// Puts another caller in the place of the one who opened a stream of this node, or refreshed it last.
    ///
    /// # Errors
    /// `NOT_FOUND` when this caller has no such stream here.
    pub async fn refresh(&self, id: &str, caller: &Principal) -> Result<()> {
        self.of(id, caller).await?.refresh(caller.clone());
        Ok(())
    }

    /// The stream, for whom it belongs to: the same user, or the same key or one that replaced it.
    async fn of(&self, id: &str, caller: &Principal) -> Result<Arc<Entry>> {
        let entry = self.streams().open.get(id).cloned().ok_or_else(|| unknown(id))?;
        let owner = entry.state().principal.clone();
        let same = match (&owner.user, &caller.user) {
            (Some(owner), Some(caller)) => owner.id == caller.id,
            (None, None) if owner.key_id == caller.key_id => true,
            (None, None) => self.succession.is_replaced_by(&owner.key_id, &caller.key_id).await?,
            _ => false,
        };
        if same { Ok(entry) } else { Err(unknown(id)) }
    }

    /// Has every stream ask anew, and now, whether its caller is still valid: some were revoked.
    pub fn recheck(&self) {
        self.rechecks.fetch_add(1, Ordering::AcqRel);
        self.wake();
    }

    /// How often that was asked for.
    pub fn rechecks(&self) -> u64 {
        self.rechecks.load(Ordering::Acquire)
    }

    /// Has every stream look at the time and at the settings.
    pub fn wake(&self) {
        let bells: Vec<_> = self.streams().open.values().map(|entry| Arc::clone(&entry.bell)).collect();
        bells.iter().for_each(|bell| bell.notify_one());
    }

    /// Whether the caller of some stream asked for this topic or type by its name, or by a pattern that is not for all.
    pub fn is_asked_for(&self, topic: &str, event_type: &str) -> bool {
        self.streams().open.values().any(|entry| entry.state().asks_for(topic, event_type))
    }

    /// Ends all streams, spread over some time: at most `longest`, and less when there are few.
    pub fn drain(&self, longest: Duration) {
        let window = Duration::from_secs(1).mul_f64(self.len() as f64 / DRAINED_PER_SECOND as f64);
        let _ = self.drain.set(Drain { began: Stopwatch::start(), window: window.min(longest) });
        self.drains.store(true, Ordering::Release);
        self.wake();
    }

    /// The drain, once there is one.
    pub fn draining(&self) -> Option<Drain> {
        if self.drains.load(Ordering::Acquire) { self.drain.get().copied() } else { None }
    }

    /// How often to [sweep](Self::sweep).
    pub fn sweep_interval(&self) -> Duration {
        (self.unread.ends.min(self.unread.cut) / 3).min(Duration::from_secs(5))
    }

    /// Sees to streams whose peer does not read.  A stream that is read says something within its heartbeat.
    pub fn sweep(&self) {
        let now = self.millis();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (ends, cut) = (millis(self.unread.ends), millis(self.unread.cut));
        let stuck: Vec<_> = {
            let streams = self.streams();
            let unread = |entry: &Entry| {
                now.saturating_sub(entry.polled.load(Ordering::Relaxed)).saturating_sub(entry.silence)
            };
            let of = |(_, entry): (_, &Arc<Entry>)| (unread(entry), Arc::clone(entry));
            streams.open.iter().map(of).filter(|(unread, _)| *unread > ends).collect()
        };
        for (unread, entry) in stuck {
            if !entry.slow.swap(true, Ordering::Relaxed) {
                entry.bell.notify_one();
            }
            if unread > ends + cut
                && let Some(task) = &entry.cut
            {
                task.cut();
            }
        }
    }

    /// A time between none and this one, that differs each time.
    pub fn jitter(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.chance())
    }

    /// A number from 0 to 1, not 1 itself, that differs each time.
    pub fn chance(&self) -> f64 {
        let mut bytes = [0; 4];
        self.random.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.watch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one_less<K: Hash + Eq>(counts: &mut HashMap<K, usize>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}

/// No such stream, or not this caller's: nobody is told which.
fn unknown(id: &str) -> Error {
    Error::not_found("subscription", id)
}

/// A view for a caller.
///
/// # Errors
/// As [`View::new`].
pub fn view(principal: &Principal, filter: &Arc<Filter>) -> Result<View> {
    View::new(&Arc::new(Grant::of(principal)), filter)
}
