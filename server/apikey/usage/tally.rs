//! What was counted and logged and is not written yet.
//!
//! Most keys have one minute, one endpoint and a few ranges of durations between two flushes, so that short lists take the place of
//! maps: a million keys in use are to fit.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use ipnet::IpNet;

use super::durations::bucket;
use super::{Call, Entry};

const SHARDS: usize = 16;
/// Endpoints of a key that are counted apart between two flushes.  The rest is counted together, so that a caller with a million
/// paths is no million counters.
const ENDPOINTS: usize = 200;
/// Networks of a key that are noted between two flushes.
const NETWORKS: usize = 20;
/// Minutes of keys that wait to be written before they are counted less finely.
const CELLS: usize = 20_000;
/// Log entries that wait in each shard.  From the middle on only errors are taken.
const ENTRIES: usize = 512;
/// What endpoints beyond the limit are counted as.
const OTHERS: &str = "(others)";
const MINUTE: i64 = 60_000_000;

/// Calls by the first digit of the status.
pub(super) type Classes = [u64; 6];

/// Calls of one endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Of method and endpoint, to compare first.
    hash: u64,
    pub method: Box<str>,
    pub endpoint: Box<str>,
    pub calls: Classes,
}

/// Calls of one key in one minute.
#[derive(Debug)]
pub(super) struct Counts {
    pub key_id: Arc<str>,
    /// In minutes since 1970.
    pub minute: i64,
    pub endpoints: Vec<Endpoint>,
    /// By range of durations.
    pub durations: Vec<(i16, u64)>,
    /// Where from.
    pub networks: Vec<IpNet>,
}

#[derive(Default)]
struct Shard {
    counts: HashTable<Counts>,
    log: VecDeque<Entry>,
}

pub(super) struct Tally {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl Default for Tally {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: Default::default() }
    }
}

impl Tally {
    fn hash(&self, key_id: &str, minute: i64) -> u64 {
        self.hasher.hash_one((key_id, minute))
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The table looks at the lowest and the highest bits.
        self.shards[(hash >> 32) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and keeps it for the log; answers whether the log had room.
    pub fn note(&self, call: &Call<'_>) -> bool {
        let minute = call.at.micros().div_euclid(MINUTE);
        let hash = self.hash(call.key_id, minute);
        let endpoint = self.hasher.hash_one((call.method, &*call.endpoint));
        let range = bucket(call.duration);
        let network = call.address.and_then(network);
        let mut shard = self.shard(hash);
        let counts = self.counts(&mut shard.counts, hash, call.key_id, minute);
        let class = usize::from(call.status / 100).min(5);
        counts.count(endpoint, call.method, &call.endpoint)[class] += 1;
        counts.took(range, 1);
        if let Some(network) = network {
            counts.see(network);
        }
        let waiting = shard.log.len();
        let room = waiting < ENTRIES / 2 || (call.status >= 400 && waiting < ENTRIES);
        if room {
            shard.log.push_back(Entry::from(call));
        }
        room
    }

    fn counts<'a>(
        &self,
        table: &'a mut HashTable<Counts>,
        hash: u64,
        key_id: &Arc<str>,
        minute: i64,
    ) -> &'a mut Counts {
        let is_it = |counts: &Counts| counts.minute == minute && counts.key_id == *key_id;
        let again = |counts: &Counts| self.hash(&counts.key_id, counts.minute);
        table.entry(hash, is_it, again).or_insert_with(|| Counts::new(key_id, minute)).into_mut()
    }

    /// Takes what there is, to write it: in the order of keys, minutes and endpoints, the same on every node, so that no two
    /// wait for each other.
    pub fn take(&self) -> (Vec<Counts>, Vec<Entry>) {
        let (mut counts, mut log) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let (taken, logged) = (std::mem::take(&mut shard.counts), std::mem::take(&mut shard.log));
            drop(shard);
            counts.extend(taken);
            log.extend(logged);
        }
        counts.sort_unstable_by(|one: &Counts, other| {
            (&one.key_id, one.minute).cmp(&(&other.key_id, other.minute))
        });
        for counts in &mut counts {
            counts.endpoints.sort_unstable_by(|one, other| {
                (&one.method, &one.endpoint).cmp(&(&other.method, &other.endpoint))
            });
            counts.durations.sort_unstable();
        }
        log.sort_by_key(|entry| entry.at);
        (counts, log)
    }

    /// Gives counts back that could not be written.
    pub fn give_back(&self, counts: Vec<Counts>) {
        // A database that is away for long must not fill the memory: then all minutes of an hour are one.
        let coarse = counts.len() > CELLS;
        for back in counts {
            let minute = back.minute - if coarse { back.minute.rem_euclid(60) } else { 0 };
            let hash = self.hash(&back.key_id, minute);
            let mut shard = self.shard(hash);
            self.counts(&mut shard.counts, hash, &back.key_id, minute).join(back);
        }
    }
}

impl Counts {
    fn new(key_id: &Arc<str>, minute: i64) -> Self {
        Self {
            key_id: Arc::clone(key_id),
            minute,
            endpoints: Vec::with_capacity(1),
            durations: Vec::with_capacity(1),
            networks: Vec::new(),
        }
    }

    fn join(&mut self, other: Self) {
        for Endpoint { hash, method, endpoint, calls } in other.endpoints {
            let sum = self.count(hash, &method, &endpoint);
            for (one, more) in sum.iter_mut().zip(calls) {
                *one += more;
            }
        }
        for (range, calls) in other.durations {
            self.took(range, calls);
        }
        other.networks.into_iter().for_each(|network| self.see(network));
    }

    fn count(&mut self, hash: u64, method: &str, endpoint: &str) -> &mut Classes {
        let found = self.find(hash, method, endpoint);
        let at = found.unwrap_or_else(|| {
            let (hash, method, endpoint) =
                if self.endpoints.len() < ENDPOINTS { (hash, method, endpoint) } else { (0, "", OTHERS) };
            let others = if hash == 0 { self.find(hash, method, endpoint) } else { None };
            others.unwrap_or_else(|| {
                let (method, endpoint) = (method.into(), endpoint.into());
                self.endpoints.push(Endpoint { hash, method, endpoint, calls: Classes::default() });
                self.endpoints.len() - 1
            })
        });
        &mut self.endpoints[at].calls
    }

    fn find(&self, hash: u64, method: &str, endpoint: &str) -> Option<usize> {
        self.endpoints
            .iter()
            .position(|one| one.hash == hash && *one.method == *method && *one.endpoint == *endpoint)
    }

    fn took(&mut self, range: i16, calls: u64) {
        match self.durations.iter_mut().find(|(known, _)| *known == range) {
            Some((_, sum)) => *sum += calls,
            None => self.durations.push((range, calls)),
        }
    }

    fn see(&mut self, network: IpNet) {
        if self.networks.len() < NETWORKS && !self.networks.contains(&network) {
            self.networks.push(network);
        }
    }
}

/// The network of an address: what one place usually has.
fn network(address: IpAddr) -> Option<IpNet> {
    let length = if address.is_ipv4() { 24 } else { 48 };
    IpNet::new(address, length).ok().map(|network| network.trunc())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::endpoint;
    use super::*;
    use crate::clock::Timestamp;

    const AT: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn note(tally: &Tally, key_id: &str, path: &str, status: u16) -> bool {
        tally.note(&Call {
            key_id: &key_id.into(),
            method: "GET",
            path,
            endpoint: endpoint::of(path),
            status,
            code: "VALID",
            address: Some("192.0.2.7".parse().unwrap()),
            duration: Duration::from_micros(50),
            at: AT,
        })
    }

    #[test]
    fn counts_are_exact_and_memory_has_an_end() {
        let tally = Tally::default();
        let mut logged = 0;
        for number in 0..10_000_u32 {
            let status = if number % 4 == 0 { 404 } else { 200 };
            logged += usize::from(note(&tally, "key_1", &format!("/a{number}x"), status));
        }
        let (counts, log) = tally.take();
        let counts = counts.into_iter().next().unwrap();
        let sum = |class: usize| counts.endpoints.iter().map(|one| one.calls[class]).sum::<u64>();
        let durations: u64 = counts.durations.iter().map(|(_, calls)| calls).sum();
        assert_eq!((sum(2), sum(4), durations), (7_500, 2_500, 10_000));
        assert!(counts.endpoints.len() <= ENDPOINTS + 1 && counts.networks.len() == 1);
        assert!(log.len() == logged && logged == ENTRIES, "{logged}");
        assert!(log[ENTRIES / 2..].iter().all(|entry| entry.status == 404), "errors go first");
    }

    #[test]
    fn what_could_not_be_written_is_added_to_what_came_since() {
        let tally = Tally::default();
        note(&tally, "key_1", "/orders/1", 200);
        let (counts, _) = tally.take();
        note(&tally, "key_1", "/orders/2", 500);
        tally.give_back(counts);
        let (counts, _) = tally.take();
        assert_eq!(counts.len(), 1);
        let one = &counts[0].endpoints[0];
        assert_eq!((&*one.method, &*one.endpoint, one.calls), ("GET", "/orders/{id}", [0, 0, 1, 0, 0, 1]));
        assert!(tally.take().0.is_empty());
    }

    #[test]
    fn keys_and_their_endpoints_are_written_in_one_order() {
        let tally = Tally::default();
        for number in [5, 3, 9, 1] {
            for path in ["/b", "/a", "/c"] {
                note(&tally, &format!("key_{number}"), path, 200);
            }
        }
        let (counts, _) = tally.take();
        assert_eq!(
            counts.iter().map(|one| &*one.key_id).collect::<Vec<_>>(),
            ["key_1", "key_3", "key_5", "key_9"]
        );
        for one in counts {
            let paths: Vec<_> = one.endpoints.iter().map(|one| &*one.endpoint).collect();
            assert_eq!(paths, ["/a", "/b", "/c"]);
        }
    }
}
