//! What somebody should look at: too many keys of one owner, keys that nobody uses, and unusual use.

mod store;

use std::collections::HashMap;
use std::time::Duration;

use super::service::{ApiKeyService, DAY};
use super::store::ApiKey;
use crate::clock::Timestamp;
use crate::error::Result;

/// The most active keys of an owner that are nothing to look at.
const KEYS: i64 = 10;
const UNUSED: u32 = 30;
const NEW: Duration = DAY;
const BURST: Duration = Duration::from_secs(60 * 60);
/// So many calls are needed to speak of a burst of errors, and half of them must be errors.
const BURST_CALLS: i64 = 20;

/// Something to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// The key's owner has more than ten keys that work.
    TooManyKeys,
    /// The key works, and was not used for 30 days.
    Unused,
    /// It was used from a network in the last day that it was never used from before.
    NewNetwork,
    /// At least half of its calls of the last hour failed, and there were twenty or more.
    ErrorBurst,
}

/// What is known of a key's use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// What to look at.
    pub warnings: Vec<Warning>,
}

impl ApiKeyService {
    /// What is known of the use of keys, by their id.
    pub async fn remarks(&self, keys: &[ApiKey]) -> Result<HashMap<String, Remarks>> {
        let now = self.clock.now();
        let ids: Vec<String> = keys.iter().map(|key| key.id.clone()).collect();
        let owners = |named: bool| {
            let mut owners: Vec<String> = keys
                .iter()
                .filter(|key| key.external_id.is_empty() != named)
                .map(|key| if named { key.external_id.clone() } else { key.created_by.clone() })
                .collect();
            owners.sort();
            owners.dedup();
            owners
        };
        let mut conn = self.db.reader().await?;
        let last_used = store::last_used(&mut conn, &ids).await?;
        let of = store::keys_of(&mut conn, &owners(true), now).await?;
        let by = store::keys_by(&mut conn, &owners(false), now).await?;
        let mut networks = HashMap::<String, (bool, bool)>::new();
        for (id, first) in store::networks(&mut conn, &ids).await? {
            let seen = networks.entry(id).or_default();
            if first > now - NEW { seen.0 = true } else { seen.1 = true }
        }
        let mut calls = HashMap::<String, (i64, i64)>::new();
        for (id, class, count) in store::statuses(&mut conn, &ids, now - BURST).await? {
            let sum = calls.entry(id).or_default();
            sum.0 += count;
            sum.1 += if class >= 4 { count } else { 0 };
        }
        let remarks = |key: &ApiKey| {
            let last_used_at = last_used.get(&key.id).copied();
            let owned =
                if key.external_id.is_empty() { by.get(&key.created_by) } else { of.get(&key.external_id) };
            let works = key.works(now);
            let unused = works && now.since(last_used_at.unwrap_or(key.created_at)) >= DAY * UNUSED;
            let (all, failed) = calls.get(&key.id).copied().unwrap_or_default();
            let found = [
                (works && owned.is_some_and(|&count| count > KEYS), Warning::TooManyKeys),
                (unused, Warning::Unused),
                (networks.get(&key.id) == Some(&(true, true)), Warning::NewNetwork),
                (all >= BURST_CALLS && failed * 2 >= all, Warning::ErrorBurst),
            ];
            let warnings = found.into_iter().filter(|(is, _)| *is).map(|(_, warning)| warning).collect();
            (key.id.clone(), Remarks { last_used_at, warnings })
        };
        Ok(keys.iter().map(remarks).collect())
    }
}
