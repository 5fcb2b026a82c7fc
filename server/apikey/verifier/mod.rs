//! Verifies keys in memory.
//!
//! A malformed key ends at its checksum.  A well-formed one is looked up by its prefix in memory, and read from the database
//! once when it is not there; that no key has a prefix is remembered for a while, too.  Then the MAC is compared, in constant
//! time, and for a prefix that no key has as for one that a key has.
//!
//! Every change of a key has a revision.  This node forgets what it changes itself at once; what others change it learns by
//! asking four times a second for what is new.  When it could not ask for a second, it believes only what it read within the
//! last second: a key that is revoked anywhere is refused everywhere after that time, or the database is away and the caller is
//! told so.

mod holders;
mod memory;
mod record;
mod store;

pub use record::Record;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::credits::lease::Lease;
use super::key::{self, MacKey};
use super::limit::LimitState;
use crate::clock::{SharedClock, Stopwatch};
use crate::db::Db;
use crate::error::{Error, Kind, Result};
use crate::rpc::admission::quota::{Quota, Standing};
use crate::rpc::{Endings, Principal};
use crate::secret::{KEY_LENGTH, SecretText};
use holders::Prefixes;
use memory::{Flights, Id, Memory};

/// How often a node asks what other nodes changed.
pub const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);
/// The longest that a change on another node goes unseen.
const STALE: u64 = 1_000_000;
/// How long it is believed that no key has a prefix.
const UNKNOWN_FOR: u64 = 10_000_000;

/// Verifies keys.
pub struct Verifier {
    db: Db,
    mac_key: MacKey,
    clock: SharedClock,
    memory: Memory,
    flights: Flights,
    /// Times are counted from here.
    began: Stopwatch,
    /// When it was last asked what changed.
    followed: AtomicU64,
    /// The revision up to which changes were seen; below zero when none was asked for yet.
    revision: AtomicI64,
    /// How often a key was read from the database.
    reads: AtomicU64,
    /// The limit of keys without a limit of their own.
    default_limit: ArcSwapOption<Quota>,
    /// Which prefix the key with an id has.
    prefixes: Prefixes,
    /// Where it is told that keys have changed.
    endings: Endings,
}

impl Verifier {
    /// A verifier that has seen no key yet.
    pub fn new(db: Db, mac_key: &Zeroizing<[u8; KEY_LENGTH]>, clock: SharedClock) -> Self {
        Self {
            db,
            mac_key: MacKey::new(mac_key),
            clock,
            memory: Memory::new(),
            flights: Flights::default(),
            began: Stopwatch::start(),
            followed: AtomicU64::new(0),
            revision: AtomicI64::new(-1),
            reads: AtomicU64::new(0),
            default_limit: ArcSwapOption::empty(),
            prefixes: Prefixes::default(),
            endings: Endings::default(),
        }
    }

    /// Has keys without a limit of their own have this one on this server, from now on.
    pub fn set_default_limit(&self, quota: Option<Quota>) {
        self.default_limit.store(quota.map(Arc::new));
    }

    /// What the database has of a key.
    pub fn mac(&self, text: &SecretText) -> Vec<u8> {
        self.mac_key.mac(text.reveal()).to_vec()
    }

    /// Reads a key again at its next use.
    pub fn forget(&self, prefix: &str) {
        // A key that nobody used here has no calls that last.
        if key::id(prefix).is_some_and(|id| self.memory.forget(&id)) {
            self.endings.tell();
        }
    }

    /// Where it is told that keys have changed.
    pub fn endings(&self) -> &Endings {
        &self.endings
    }

    /// How often keys were read from the database.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// What this node has in hand of the credits of a key.
    pub(super) fn lease(&self, prefix: &str) -> Option<Arc<Lease>> {
        self.memory.before(&key::id(prefix)?)?.bounds()?.lease.clone()
    }

    /// Every key in memory.
    pub fn in_memory(&self) -> Vec<Arc<Record>> {
        self.memory.all()
    }

    /// Learns what other nodes changed.
    ///
    /// # Errors
    /// When the database can not be asked.
    pub async fn follow(&self) -> Result<()> {
        let now = self.now();
        let mut conn = self.db.reader().await?;
        let (seen, current) = (self.revision.load(Ordering::Acquire), store::revision(&mut conn).await?);
        if current != seen {
            if seen < 0 {
                // What was read before anybody asked may have changed since.
                self.memory.forget_all();
                self.endings.tell();
            } else {
                let changed = store::changed_after(&mut conn, seen).await?;
                changed.iter().for_each(|prefix| self.forget(prefix));
            }
            self.revision.store(current, Ordering::Release);
        }
        self.followed.fetch_max(now, Ordering::AcqRel);
        Ok(())
    }

    /// The record of a key that is known in memory and matches; `None` when the database has to be asked.
    pub fn look(&self, text: &str) -> Option<Option<Arc<Record>>> {
        self.look_at(text, &Stopwatch::start())
    }

    /// As [`Verifier::look`], for whoever has just looked at the time.
    pub(super) fn look_at(&self, text: &str, now: &Stopwatch) -> Option<Option<Arc<Record>>> {
        if !key::is_well_formed(text) {
            return Some(None);
        }
        let now = micros(now.since(&self.began));
        let record = self.memory.get(&key::id(text)?, |record, read| self.is_believed(record, read, now))?;
        Some(self.matching(text, record))
    }

    /// The record of a key; `None` when there is no such key, or its secret is another one.
    ///
    /// # Errors
    /// When the database can not be asked.
    pub async fn find(&self, text: &str) -> Result<Option<Arc<Record>>> {
        if let Some(known) = self.look(text) {
            return Ok(known);
        }
        let Some(id) = key::id(text) else { return Ok(None) };
        Ok(self.matching(text, self.read(id, key::prefix(text)).await?))
    }

    /// The holder of a key that is known in memory; `None` when it has to be read.
    pub fn cached(&self, text: &str) -> Option<Result<Principal>> {
        Some(self.holder(self.look(text)?))
    }

    /// The holder of a key.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, the same for every key that does not work.
    pub async fn verify(&self, text: &str) -> Result<Principal> {
        self.holder(self.find(text).await?)
    }

    /// Whether a key whose holder is known may be used now and from this address, on this server; answers how it stands with the
    /// limit that is used up the furthest.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for the address, `RESOURCE_EXHAUSTED` for the rate limits.
    pub fn admit(&self, text: &str, address: Option<IpAddr>) -> Result<Option<Standing>> {
        let Some(record) = key::id(text).and_then(|id| self.memory.before(&id)) else {
            // It was there a moment ago and had to go for others.  Nobody is let in by that.
            return Err(Error::unavailable("the API key has to be read again", "it was forgotten under way"));
        };
        record.require_from(address)?;
        match record.bounds().filter(|bounds| !bounds.limits.are(&[])) {
            None => self.admit_by_default(&record),
            Some(bounds) => {
                let now = self.clock.steady();
                match bounds.limits.take_once(now) {
                    Some(standing) => Ok(Some(standing)),
                    // Nothing came back since: the time is the same.
                    None => Err(limited(&bounds.limits.take(&[], 1, now).1)),
                }
            }
        }
    }

    fn admit_by_default(&self, record: &Record) -> Result<Option<Standing>> {
        let quota = self.default_limit.load();
        let Some(quota) = &*quota else { return Ok(None) };
        let taken = quota.take(&record.used, self.clock.steady());
        taken.map(Some).map_err(|standing| standing.into_error("the rate limit of the API key is used up"))
    }

    /// Says the same of all that do not work.
    fn holder(&self, record: Option<Arc<Record>>) -> Result<Principal> {
        match record {
            Some(record) if record.works(self.clock.now()) => Ok(record.principal.clone()),
            _ => Err(invalid()),
        }
    }

    /// Compares in the same time whether there is such a key or not.
    fn matching(&self, text: &str, record: Arc<Record>) -> Option<Arc<Record>> {
        let same: bool = self.mac_key.mac(text)[..].ct_eq(&record.mac).into();
        (same & record.exists).then_some(record)
    }

    async fn read(&self, id: Id, prefix: &str) -> Result<Arc<Record>> {
        let flight = self.flights.join(id);
        let _turn = flight.turn.lock().await;
        if let Some(record) = self.memory.get(&id, |record, read| self.is_believed(record, read, self.now()))
        {
            return Ok(record);
        }
        // The time counts from before the query: a key that is revoked while it runs is not believed for longer.
        let (read, forgotten) = (self.now(), self.memory.forgotten());
        self.reads.fetch_add(1, Ordering::Relaxed);
        let found = store::find(&mut self.db.reader().await?, prefix).await?;
        let record = match found {
            None => self.memory.unknown(),
            Some(mut kept) => {
                let scopes = self.memory.scopes(std::mem::take(&mut kept.key.scopes.0));
                Arc::new(Record::new(kept, scopes, self.memory.before(&id).as_deref()))
            }
        };
        self.memory.put(id, &record, read, forgotten);
        Ok(record)
    }

    fn is_believed(&self, record: &Record, read: u64, now: u64) -> bool {
        let (age, unseen) =
            (now.saturating_sub(read), now.saturating_sub(self.followed.load(Ordering::Acquire)));
        // One process alone changes an embedded database; all that it changes it forgets.
        let is_current = !self.db.is_shared() | (unseen < STALE) | (age < STALE);
        // No branch tells an unknown prefix from a known one by the time it takes.
        is_current & (record.exists | (age <= UNKNOWN_FOR))
    }

    /// Microseconds since the verifier began.
    fn now(&self) -> u64 {
        micros(self.began.elapsed())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn limited(limits: &[LimitState]) -> Error {
    match limits.iter().max_by_key(|limit| limit.retry_after) {
        None => Error::internal("a key without limits was over one"),
        Some(longest) => {
            let after = longest.retry_after.unwrap_or_default();
            let message = format!("the rate limit {:?} of the API key is used up", longest.name);
            Standing { after, ..standing(longest) }.into_error(message)
        }
    }
}

fn standing(limit: &LimitState) -> Standing {
    Standing {
        name: limit.name.clone().into(),
        uses: limit.limit,
        period: limit.period,
        policy: None,
        remaining: limit.remaining,
        after: limit.full_after,
    }
}

/// What every key that does not work is answered.
fn invalid() -> Error {
    Error::new(Kind::Unauthenticated, "KEY_INVALID", "Invalid or revoked API key")
}
