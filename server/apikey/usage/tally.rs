//! What was counted and logged and is not written yet.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::Call;
use super::durations::{LAST, bucket};

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

/// Calls of one key in one minute.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By method and endpoint: by the first digit of the status.
    pub endpoints: HashMap<(Box<str>, Box<str>), [i64; 6]>,
    /// By range of durations.
    pub durations: HashMap<i16, i64>,
    /// Where from.
    pub networks: Vec<Box<str>>,
}

/// A key in a minute, in minutes since 1970.
pub(super) type Cell = (Arc<str>, i64);

#[derive(Default)]
struct Shard {
    counts: HashMap<Cell, Counts>,
    log: VecDeque<Call>,
}

#[derive(Default)]
pub(super) struct Tally([Mutex<Shard>; SHARDS]);

impl Tally {
    /// Counts a call and keeps it for the log; answers whether the log had room.
    pub fn note(&self, call: Call) -> bool {
        let mut hasher = DefaultHasher::new();
        call.key_id.hash(&mut hasher);
        let shard = &self.0[hasher.finish() as usize % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = (Arc::clone(&call.key_id), call.at.micros().div_euclid(MINUTE));
        shard.counts.entry(cell).or_default().add(&call);
        let waiting = shard.log.len();
        let room = waiting < ENTRIES / 2 || (call.status >= 400 && waiting < ENTRIES);
        if room {
            shard.log.push_back(call);
        }
        room
    }

    /// Takes what there is, to write it.
    pub fn take(&self) -> (Vec<(Cell, Counts)>, Vec<Call>) {
        let (mut counts, mut log) = (Vec::new(), Vec::new());
        for shard in &self.0 {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            counts.extend(std::mem::take(&mut shard.counts));
            log.extend(std::mem::take(&mut shard.log));
        }
        // In one order on every node, so that no two wait for each other.
        counts.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        log.sort_by_key(|call| call.at);
        (counts, log)
    }

    /// Gives counts back that could not be written.
    pub fn give_back(&self, counts: Vec<(Cell, Counts)>) {
        // A database that is away for long must not fill the memory: then all minutes of an hour are one.
        let coarse = counts.len() > CELLS;
        for (mut cell, back) in counts {
            cell.1 -= if coarse { cell.1.rem_euclid(60) } else { 0 };
            let mut hasher = DefaultHasher::new();
            cell.0.hash(&mut hasher);
            let shard = &self.0[hasher.finish() as usize % SHARDS];
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.counts.entry(cell).or_default().join(back);
        }
    }
}

impl Counts {
    fn add(&mut self, call: &Call) {
        let class = usize::from(call.status / 100).min(5);
        self.count(&call.method, &call.endpoint)[class] += 1;
        *self.durations.entry(bucket(call.duration).min(LAST)).or_default() += 1;
        if let Some(network) = call.address.map(network) {
            self.see(network.into());
        }
    }

    fn join(&mut self, other: Self) {
        for ((method, endpoint), calls) in other.endpoints {
            let sum = self.count(&method, &endpoint);
            for (one, more) in sum.iter_mut().zip(calls) {
                *one += more;
            }
        }
        for (bucket, calls) in other.durations {
            *self.durations.entry(bucket).or_default() += calls;
        }
        other.networks.into_iter().for_each(|network| self.see(network));
    }

    fn count(&mut self, method: &str, endpoint: &str) -> &mut [i64; 6] {
        let full = self.endpoints.len() >= ENDPOINTS;
        let key = (Box::from(method), Box::from(endpoint));
        if full && !self.endpoints.contains_key(&key) {
            return self.endpoints.entry(("".into(), OTHERS.into())).or_default();
        }
        self.endpoints.entry(key).or_default()
    }

    fn see(&mut self, network: Box<str>) {
        if self.networks.len() < NETWORKS && !self.networks.contains(&network) {
            self.networks.push(network);
        }
    }
}

/// The network of an address: what one place usually has.
fn network(address: IpAddr) -> String {
    let length = if address.is_ipv4() { 24 } else { 48 };
    ipnet::IpNet::new(address, length).map_or_else(|_| String::new(), |network| network.trunc().to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::endpoint;
    use super::*;
    use crate::clock::Timestamp;

    fn call(path: &str, status: u16) -> Call {
        Call {
            key_id: "key_1".into(),
            method: "GET".into(),
            path: path.to_owned().into(),
            endpoint: endpoint::of(path).into_owned().into(),
            status,
            code: "VALID",
            address: Some("192.0.2.7".parse().unwrap()),
            duration: Duration::from_micros(50),
            at: Timestamp::from_micros(1_700_000_000_000_000),
        }
    }

    #[test]
    fn counts_are_exact_and_memory_has_an_end() {
        let tally = Tally::default();
        let mut logged = 0;
        for number in 0..10_000_u32 {
            logged += usize::from(
                tally.note(call(&format!("/a{number}x"), if number % 4 == 0 { 404 } else { 200 })),
            );
        }
        let (counts, log) = tally.take();
        let (_, counts) = counts.into_iter().next().unwrap();
        let sum = |class: usize| counts.endpoints.values().map(|calls| calls[class]).sum::<i64>();
        assert_eq!((sum(2), sum(4), counts.durations.values().sum::<i64>()), (7_500, 2_500, 10_000));
        assert!(counts.endpoints.len() <= ENDPOINTS + 1 && counts.networks.len() == 1);
        assert!(log.len() == logged && logged == ENTRIES, "{logged}");
        assert!(log[ENTRIES / 2..].iter().all(|call| call.status == 404), "errors go first");
    }

    #[test]
    fn what_could_not_be_written_is_added_to_what_came_since() {
        let tally = Tally::default();
        tally.note(call("/orders/1", 200));
        let (counts, _) = tally.take();
        tally.note(call("/orders/2", 500));
        tally.give_back(counts);
        let (counts, _) = tally.take();
        assert_eq!(counts.len(), 1);
        let calls = &counts[0].1.endpoints[&("GET".into(), "/orders/{id}".into())];
        assert_eq!(calls, &[0, 0, 1, 0, 0, 1]);
    }
}
