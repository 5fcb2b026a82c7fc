//! What each address or user has used up, in memory that has a bound.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::quota::{Quota, Standing};
use crate::clock::Timestamp;

const SHARDS: usize = 64;
/// How many addresses a shard has at most: 100 000 in all.
const SHARD_LIMIT: usize = 100_000_usize.div_ceil(SHARDS);

/// How much of one quota each address has used up.
#[derive(Debug)]
pub struct Cells {
    hasher: RandomState,
    shards: Box<[Shard]>,
    /// How many addresses there are: while there are none, nothing is looked up.
    count: AtomicUsize,
}

/// For each address, when all of the quota is back.
#[derive(Debug, Default)]
struct Shard(Mutex<HashMap<u128, i64>>);

impl Default for Cells {
    fn default() -> Self {
        let shards = std::iter::repeat_with(Shard::default).take(SHARDS).collect();
        Self { hasher: RandomState::new(), shards, count: AtomicUsize::new(0) }
    }
}

impl Cells {
    /// Uses the quota of an address once.
    ///
    /// # Errors
    /// How it stands when it is used up.
    pub fn take(&self, address: IpAddr, quota: &Quota, now: Timestamp) -> Result<(), Standing> {
        self.take_unit(unit(address), quota, now)
    }

    /// Uses the quota of whoever has this number once.
    ///
    /// # Errors
    /// As [`Cells::take`].
    pub fn take_unit(&self, unit: u128, quota: &Quota, now: Timestamp) -> Result<(), Standing> {
        let mut shard = self.shard(unit);
        if let Some(back) = shard.get_mut(&unit) {
            return quota.take_mut(back, now);
        }
        if shard.len() >= SHARD_LIMIT {
            let before = shard.len();
            make_room(&mut shard, now);
            self.count.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
        let mut back = 0;
        quota.take_mut(&mut back, now)?;
        shard.insert(unit, back);
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the quota of an address is used up.
    ///
    /// # Errors
    /// How it stands when it is.
    pub fn ask(&self, address: IpAddr, quota: &Quota, now: Timestamp) -> Result<(), Standing> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let unit = unit(address);
        let back = self.shard(unit).get(&unit).copied();
        back.map_or(Ok(()), |back| quota.ask(back, now))
    }

    fn shard(&self, unit: u128) -> MutexGuard<'_, HashMap<u128, i64>> {
        let hash = self.hasher.hash_one(unit);
        let at = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        self.shards[at].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets who has all of it back, or else the one who has the most: whoever used it up is remembered the longest.
fn make_room(shard: &mut HashMap<u128, i64>, now: Timestamp) {
    let (before, now) = (shard.len(), now.micros().saturating_mul(1_000));
    shard.retain(|_, back| *back > now);
    if shard.len() == before
        && let Some(first) = shard.iter().min_by_key(|(_, back)| **back).map(|(unit, _)| *unit)
    {
        shard.remove(&first);
    }
}

/// Whoever has one address of IPv6 has all of its /64 (RFC 4291, 2.5.4), and would never come from the same one twice.
pub(super) fn unit(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits() >> 64 << 64,
    }
}

/// The number of a name, which no other has.
pub(super) fn unit_of_name(name: &str) -> u128 {
    let digest = <[u8; 32]>::from(Sha256::digest(name));
    u128::from_be_bytes(*digest.first_chunk().expect("a digest is longer"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_parts(1_700_000_000 + seconds, 0)
    }

    #[test]
    fn each_address_has_its_own_and_a_network_of_ipv6_has_one() {
        let (cells, quota) = (Cells::default(), Quota::new("a", 1, Duration::from_secs(60)).unwrap());
        let take = |address: &str| cells.take(address.parse().unwrap(), &quota, at(0)).is_ok();
        assert!(take("192.0.2.1") && take("192.0.2.2") && !take("192.0.2.1") && !take("::ffff:192.0.2.1"));
        assert!(take("2001:db8::1") && !take("2001:db8::2") && take("2001:db8:0:1::1"));
        let ask = |address: &str| cells.ask(address.parse().unwrap(), &quota, at(59)).is_ok();
        assert!(!ask("192.0.2.1") && ask("192.0.2.3") && !ask("2001:db8::ffff"));
        assert!(cells.ask("192.0.2.1".parse().unwrap(), &quota, at(60)).is_ok());
    }

    #[test]
    fn memory_has_a_bound_and_who_used_all_of_it_is_remembered() {
        let (cells, quota) = (Cells::default(), Quota::new("a", 2, Duration::from_secs(60)).unwrap());
        let worst: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..2 {
            cells.take(worst, &quota, at(0)).unwrap();
        }
        for number in 0..200_000_u32 {
            cells.take(IpAddr::from((0x0a00_0000 + number).to_be_bytes()), &quota, at(1)).unwrap();
        }
        let count = cells.count.load(Ordering::Relaxed);
        assert!((90_000..=SHARD_LIMIT * SHARDS).contains(&count), "{count}");
        assert!(cells.ask(worst, &quota, at(1)).is_err());
    }
}
