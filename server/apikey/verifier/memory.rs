//! The memory of keys: many small maps, so that nobody waits for anybody, with room for as many keys as are used, and a
//! little for prefixes that no key has.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::record::{self, Record};

const SHARDS: usize = 64;
/// Keys in each shard: 1.28 million together.  A key that has to go is read again when it is next used, and its rate limits
/// begin anew.
const KEYS: usize = 20_000;
/// Prefixes that no key has, in each shard.
const UNKNOWN: usize = 1_600;
/// Different lists of scopes.
const SCOPE_LISTS: usize = 10_000;

/// The part of a prefix that differs.
pub(super) type Id = [u8; 11];

/// A key and when it was read, in microseconds since the verifier began.
struct Slot {
    id: Id,
    record: Arc<Record>,
    read: u64,
}

/// A slot that was read never is read again.
const NEVER: u64 = 0;

#[derive(Default)]
struct Shard {
    slots: HashTable<Slot>,
    unknown: usize,
}

impl Shard {
    fn find(&self, hash: u64, id: &Id) -> Option<&Slot> {
        self.slots.find(hash, |slot| slot.id == *id)
    }
}

/// The memory.
pub(super) struct Memory {
    shards: Box<[RwLock<Shard>]>,
    hasher: RandomState,
    /// Shared by every prefix that no key has, so that these cost the same time and no memory.
    unknown: Arc<Record>,
    /// How often keys were forgotten: what was read before is not kept after.
    forgotten: AtomicU64,
    scopes: Mutex<HashSet<Arc<[String]>>>,
}

impl Memory {
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            unknown: Arc::new(record::unknown()),
            forgotten: AtomicU64::new(0),
            scopes: Mutex::default(),
        }
    }

    fn hash(&self, id: &Id) -> u64 {
        self.hasher.hash_one(id)
    }

    /// The table looks at the lowest and the highest bits of the hash.
    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// What is known of an id, if it may be believed by when it was read.
    pub fn get(&self, id: &Id, is_believed: impl FnOnce(&Record, u64) -> bool) -> Option<Arc<Record>> {
        let hash = self.hash(id);
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        let slot = shard.find(hash, id)?;
        (slot.read != NEVER && is_believed(&slot.record, slot.read)).then(|| Arc::clone(&slot.record))
    }

    /// What was known of an id, however long ago.
    pub fn before(&self, id: &Id) -> Option<Arc<Record>> {
        let hash = self.hash(id);
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        shard.find(hash, id).map(|slot| Arc::clone(&slot.record)).filter(|record| record.exists)
    }

    /// Has an id read again; answers whether there was a key with it.  What is counted of the key is kept.
    pub fn forget(&self, id: &Id) -> bool {
        let hash = self.hash(id);
        let mut shard = self.shard(hash).write().unwrap_or_else(PoisonError::into_inner);
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        shard.slots.find_mut(hash, |slot| slot.id == *id).is_some_and(|slot| {
            slot.read = NEVER;
            slot.record.exists
        })
    }

    /// Has every id read again.
    pub fn forget_all(&self) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            self.forgotten.fetch_add(1, Ordering::AcqRel);
            shard.slots.iter_mut().for_each(|slot| slot.read = NEVER);
        }
    }

    /// How often something was forgotten.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Acquire)
    }

    /// The record of an id that no key has.
    pub fn unknown(&self) -> Arc<Record> {
        Arc::clone(&self.unknown)
    }

    /// Keeps what was read; when something was forgotten since, it is read again at the next use.
    pub fn put(&self, id: Id, record: &Arc<Record>, read: u64, forgotten: u64) {
        let hash = self.hash(&id);
        let mut shard = self.shard(hash).write().unwrap_or_else(PoisonError::into_inner);
        let read = if self.forgotten() == forgotten { read.max(1) } else { NEVER };
        let exists = record.exists;
        if shard.unknown >= UNKNOWN && !exists {
            shard.slots.retain(|slot| slot.record.exists);
            shard.unknown = 0;
        }
        if shard.slots.len() - shard.unknown >= KEYS && exists && shard.find(hash, &id).is_none() {
            let mut victims = KEYS / 8;
            shard.slots.retain(|slot| {
                let goes = slot.record.exists && victims > 0;
                victims -= usize::from(goes);
                !goes
            });
        }
        let slot = Slot { id, record: Arc::clone(record), read };
        let mut was_unknown = false;
        match shard.slots.entry(hash, |slot| slot.id == id, |slot| self.hash(&slot.id)) {
            Entry::Occupied(mut was) => {
                was_unknown = !was.get().record.exists;
                *was.get_mut() = slot;
            }
            Entry::Vacant(free) => drop(free.insert(slot)),
        }
        shard.unknown += usize::from(!exists);
        shard.unknown -= usize::from(was_unknown);
    }

    /// The one copy of a list of scopes: most keys share theirs with others.
    pub fn scopes(&self, scopes: Vec<String>) -> Arc<[String]> {
        let mut known = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = known.get(&scopes[..]) {
            return Arc::clone(list);
        }
        if known.len() >= SCOPE_LISTS {
            known.retain(|list| Arc::strong_count(list) > 1);
        }
        let list: Arc<[String]> = scopes.into();
        if known.len() < SCOPE_LISTS {
            known.insert(Arc::clone(&list));
        }
        list
    }

    /// Every key in memory.
    pub fn all(&self) -> Vec<Arc<Record>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            all.extend(
                shard.slots.iter().filter(|slot| slot.record.exists).map(|slot| Arc::clone(&slot.record)),
            );
        }
        all
    }
}

/// Who reads which key, so that a thousand callers of one key are one query.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Id, Arc<tokio::sync::Mutex<()>>>>);

/// A place in the queue of those who want to read a key.
pub(super) struct Flight<'a> {
    flights: &'a Flights,
    id: Id,
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

impl Flights {
    pub fn join(&self, id: Id) -> Flight<'_> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = Arc::clone(all.entry(id).or_default());
        Flight { flights: self, id, turn }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut all = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's own and this one.
        if Arc::strong_count(&self.turn) <= 2 {
            all.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> Id {
        let mut id = [0; 11];
        id[..8].copy_from_slice(&number.to_le_bytes());
        id
    }

    #[test]
    fn a_million_keys_are_kept_and_there_is_an_end_to_keys_and_to_unknown_prefixes() {
        const MILLION: u64 = 1_000_000;
        let memory = Memory::new();
        for number in 0..MILLION {
            let scopes = memory.scopes(vec![format!("orders{}:read", number % 100), "users:read".into()]);
            memory.put(id(number), &Arc::new(record::sample(number, scopes)), 1, 0);
        }
        assert_eq!(memory.all().len(), MILLION as usize, "all of them are kept");

        for number in 0..300_000 {
            memory.put(id(MILLION + number), &memory.unknown(), 1, 0);
        }
        let known = Arc::new(record::sample(0, Arc::new([])));
        for number in 0..500_000 {
            memory.put(id(MILLION * 2 + number), &known, 1, 0);
        }
        for shard in &memory.shards {
            let shard = shard.read().unwrap();
            assert!(shard.slots.len() - shard.unknown <= KEYS && shard.unknown <= UNKNOWN);
            assert_eq!(shard.unknown, shard.slots.iter().filter(|slot| !slot.record.exists).count());
        }
    }

    #[test]
    fn what_was_read_before_something_was_forgotten_is_not_kept() {
        let memory = Memory::new();
        let known = Arc::new(record::sample(0, Arc::new([])));
        let before = memory.forgotten();
        memory.put(id(1), &known, 5, before);
        assert!(memory.get(&id(1), |_, read| read == 5).is_some());
        memory.forget(&id(1));
        assert!(memory.get(&id(1), |_, _| true).is_none() && memory.before(&id(1)).is_some());
        memory.put(id(1), &known, 6, before);
        assert!(memory.get(&id(1), |_, _| true).is_none());
        memory.put(id(1), &known, 7, memory.forgotten());
        assert!(memory.get(&id(1), |_, _| true).is_some());
    }
}
