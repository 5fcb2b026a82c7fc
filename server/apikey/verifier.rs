//! Verifies keys in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::key;
use super::store;
use crate::clock::{SharedClock, Stopwatch, Timestamp};
use crate::db::Db;
use crate::error::{Error, Kind, Result};
use crate::rpc::Principal;
use crate::secret::{KEY_LENGTH, SecretText};

/// How long a key is believed before one of its callers reads it again.
const FRESH: Duration = Duration::from_millis(500);
/// How long the others go on with it meanwhile: the longest that a revocation on another node goes unseen.
const STALE: Duration = Duration::from_secs(1);
/// How many keys are kept in memory, unknown ones too.
const KEPT: usize = 100_000;

/// Verifies keys.
pub struct Verifier {
    db: Db,
    mac_key: Zeroizing<[u8; KEY_LENGTH]>,
    clock: SharedClock,
    known: RwLock<HashMap<String, Known>>,
    /// How often a key was forgotten: what was read before is not kept after.
    forgotten: AtomicU64,
}

#[derive(Clone)]
struct Known {
    /// `None` for a prefix that no key has.
    record: Option<Arc<Record>>,
    read: Stopwatch,
    /// Somebody reads it again, so that a thousand callers of one key are not a thousand queries.
    refreshing: Arc<AtomicBool>,
}

impl Known {
    fn is_believed(&self) -> bool {
        let age = self.read.elapsed();
        age < FRESH || (age < STALE && self.refreshing.swap(true, Ordering::Relaxed))
    }
}

struct Record {
    principal: Principal,
    mac: Vec<u8>,
    active: bool,
    expires_at: Timestamp,
}

impl Verifier {
    /// A verifier that has seen no key yet.
    pub fn new(db: Db, mac_key: Zeroizing<[u8; KEY_LENGTH]>, clock: SharedClock) -> Self {
        Self { db, mac_key, clock, known: RwLock::default(), forgotten: AtomicU64::new(0) }
    }

    /// What the database has of a key.
    pub fn mac(&self, text: &SecretText) -> Vec<u8> {
        key::mac(&self.mac_key, text.reveal()).to_vec()
    }

    /// Reads a key again at its next use.
    pub fn forget(&self, prefix: &str) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        known.remove(prefix);
    }

    /// The holder of a key that was read a moment ago; `None` when it has to be read.
    pub fn cached(&self, text: &str) -> Option<Result<Principal>> {
        if !key::is_well_formed(text) {
            return Some(Err(invalid()));
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(key::prefix(text)).filter(|known| known.is_believed())?.record.clone();
        Some(self.judge(text, known.as_deref()))
    }

    /// The holder of a key.
    pub async fn verify(&self, text: &str) -> Result<Principal> {
        if !key::is_well_formed(text) {
            return Err(invalid());
        }
        let prefix = key::prefix(text);
        // The time counts from before the query: a key that is revoked while it runs is not believed for longer.
        let read = Stopwatch::start();
        let forgotten = self.forgotten.load(Ordering::Acquire);
        let found = store::find_by_prefix(&mut self.db.reader().await?, prefix).await?;
        let record = found.map(|(api_key, mac)| {
            let principal = Principal { key_id: api_key.id.into(), scopes: api_key.scopes.0.into() };
            Arc::new(Record { principal, mac, active: api_key.active, expires_at: api_key.expires_at })
        });
        let answer = self.judge(text, record.as_deref());
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.retain(|_, known| known.record.is_some() && known.read.elapsed() < STALE);
        }
        if known.len() < KEPT && self.forgotten.load(Ordering::Acquire) == forgotten {
            known.insert(prefix.to_owned(), Known { record, read, refreshing: Arc::default() });
        }
        answer
    }

    /// Whether the key of a call that lasts still works.
    pub async fn is_valid(&self, principal: &Principal) -> bool {
        let Ok(mut conn) = self.db.reader().await else {
            // A database that is away for a moment must not end every stream.
            return true;
        };
        match store::find(&mut conn, &principal.key_id).await {
            Ok(api_key) => api_key.active && api_key.expires_at > self.clock.now(),
            Err(error) => error.kind() != Kind::NotFound,
        }
    }

    /// Compares in the same time whether there is such a key or not, and says the same of all that do not work.
    fn judge(&self, text: &str, record: Option<&Record>) -> Result<Principal> {
        let mac = key::mac(&self.mac_key, text);
        let expected = record.map_or(&[0; 32][..], |record| &record.mac);
        let same: bool = mac[..].ct_eq(expected).into();
        match record {
            Some(record) if same && record.active && record.expires_at > self.clock.now() => {
                Ok(record.principal.clone())
            }
            _ => Err(invalid()),
        }
    }
}

fn invalid() -> Error {
    Error::new(Kind::Unauthenticated, "KEY_INVALID", "Invalid or revoked API key")
}
