//! Ephemeral events: for who is there at this moment, and in no log.
//!
//! The hub keeps the newest value of each topic and collapse key, and, for a moment, those without a key.  Nothing is
//! queued for a subscriber: it has a number up to which it has seen all, and takes what came after it.  A value that was
//! replaced meanwhile is not there any more, so that whoever is behind gets the newest only.
//!
//! ```text
//! publish ─▶ hub ─▶ wakes those who wait for the topic
//!         └─▶ the forwarder, which tells other nodes; they call publish_local
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use bytes::Bytes;

use super::bus::{Wakes, Wanted};
use super::model::Fact;

/// How many values are kept.
const VALUES: usize = 10_000;
/// How many bytes of payload they have together at the most.
const BYTES: usize = 32 * 1024 * 1024;
/// How many without a key are kept for those who have not read them yet.
const WITHOUT_KEY: usize = 2_048;
/// How many values one read by pattern looks at.
const SCAN: usize = 4_096;

/// An ephemeral event.
#[derive(Debug)]
pub struct Ephemeral {
    /// What was published.
    pub fact: Arc<Fact>,
    /// Of one topic and key only the newest counts; empty for an event that replaces none.
    pub collapse_key: String,
    /// The event as it goes over the wire, with its length in front: made by whoever needs it first, shared by all.
    pub encoded: OnceLock<Bytes>,
}

impl Ephemeral {
    /// An event under a key, which may be empty.
    pub fn new(fact: Arc<Fact>, collapse_key: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { fact, collapse_key: collapse_key.into(), encoded: OnceLock::new() })
    }

    fn weight(&self) -> usize {
        2 * self.fact.data.len() + self.collapse_key.len() + 512
    }
}

/// Tells other nodes what this one published.
pub type Forward = Arc<dyn Fn(&Ephemeral) + Send + Sync>;

/// The ephemeral events of this node.
pub struct EphemeralHub {
    values: RwLock<Values>,
    head: AtomicU64,
    wakes: Arc<Wakes>,
    forward: OnceLock<Forward>,
}

#[derive(Default)]
struct Values {
    /// The number of the newest.
    head: u64,
    topics: HashMap<Arc<str>, Topic>,
    /// The topic of each, by its number.
    order: BTreeMap<u64, Arc<str>>,
    without_key: VecDeque<u64>,
    bytes: usize,
}

#[derive(Default)]
struct Topic {
    values: BTreeMap<u64, Arc<Ephemeral>>,
    keys: HashMap<String, u64>,
}

/// What a reader gets: events in the order of their publication.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// The wanted events with their numbers.
    pub events: Vec<(u64, Arc<Ephemeral>)>,
    /// There are no others up to this number.
    pub through: u64,
}

impl EphemeralHub {
    /// A hub that has nothing and wakes these.
    pub fn new(wakes: Arc<Wakes>) -> Self {
        Self { values: RwLock::default(), head: AtomicU64::new(0), wakes, forward: OnceLock::new() }
    }

    /// Has `forward` called for each event that this node publishes; it must not wait.  The first one stays.
    pub fn forward_with(&self, forward: Forward) {
        let _ = self.forward.set(forward);
    }

    /// Publishes on all nodes.
    pub fn publish(&self, event: Arc<Ephemeral>) {
        if let Some(forward) = self.forward.get() {
            forward(&event);
        }
        self.publish_local(event);
    }

    /// Publishes on this node only, as what another one forwarded.
    pub fn publish_local(&self, event: Arc<Ephemeral>) {
        let topic = Arc::clone(&event.fact.topic);
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        values.put(event);
        // Under the lock, so that it never goes back.
        self.head.store(values.head, Ordering::Release);
        drop(values);
        self.wakes.touch([&topic]);
    }

    /// The number of the newest event.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// The wanted events after this number, at most `limit`.
    pub fn after(&self, number: u64, wanted: &Wanted, limit: usize) -> Taken {
        if number >= self.head() {
            return Taken { events: Vec::new(), through: number };
        }
        self.values.read().unwrap_or_else(PoisonError::into_inner).after(number, wanted, limit)
    }

    /// The newest value of each wanted topic and key.
    pub fn snapshot(&self, wanted: &Wanted) -> Vec<Arc<Ephemeral>> {
        let (mut found, mut at, head) = (Vec::new(), 0, self.head());
        while at < head {
            let taken = self.after(at, wanted, VALUES);
            at = taken.through;
            let events = taken.events.into_iter().map(|(_, event)| event);
            found.extend(events.filter(|event| !event.collapse_key.is_empty()));
        }
        found
    }

    /// Forgets all: some of it was erased.
    pub fn forget(&self) {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::take(&mut *values);
        values.head = old.head;
        drop(values);
    }
}

impl Values {
    fn put(&mut self, event: Arc<Ephemeral>) {
        self.head += 1;
        let topic = Arc::clone(&event.fact.topic);
        let before = match (self.topics.get(&topic), event.collapse_key.as_str()) {
            (None, _) => None,
            (Some(_), "") => None,
            (Some(known), key) => known.keys.get(key).copied(),
        };
        if let Some(before) = before {
            self.remove(before);
        }
        self.bytes += event.weight();
        self.order.insert(self.head, Arc::clone(&topic));
        let of_topic = self.topics.entry(topic).or_default();
        if event.collapse_key.is_empty() {
            self.without_key.push_back(self.head);
        } else {
            of_topic.keys.insert(event.collapse_key.clone(), self.head);
        }
        of_topic.values.insert(self.head, event);
        while self.without_key.len() > WITHOUT_KEY
            && let Some(oldest) = self.without_key.pop_front()
        {
            self.remove(oldest);
        }
        while (self.order.len() > VALUES || self.bytes > BYTES)
            && let Some((&oldest, _)) = self.order.first_key_value()
        {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(topic) = self.order.remove(&number) else { return };
        let Some(of_topic) = self.topics.get_mut(&topic) else { return };
        if let Some(event) = of_topic.values.remove(&number) {
            self.bytes -= event.weight();
            of_topic.keys.remove(&event.collapse_key);
        }
        if of_topic.values.is_empty() {
            self.topics.remove(&topic);
        }
    }

    fn after(&self, number: u64, wanted: &Wanted, limit: usize) -> Taken {
        let mut events = Vec::new();
        let of_topics = match wanted {
            Wanted::Exactly(topics) => topics,
            Wanted::All | Wanted::Matching(_) => {
                for (looked, (&number, topic)) in self.order.range(number + 1..).enumerate() {
                    if looked >= SCAN || events.len() >= limit {
                        return Taken { events, through: number - 1 };
                    }
                    if wanted.takes(topic)
                        && let Some(event) =
                            self.topics.get(topic).and_then(|topic| topic.values.get(&number))
                    {
                        events.push((number, Arc::clone(event)));
                    }
                }
                return Taken { events, through: self.head };
            }
        };
        for topic in of_topics.iter().filter_map(|topic| self.topics.get(topic)) {
            // The next ones of all topics are among the next ones of each.
            let next = topic.values.range(number + 1..).take(limit + 1);
            events.extend(next.map(|(&number, event)| (number, Arc::clone(event))));
        }
        events.sort_unstable_by_key(|(number, _)| *number);
        let through = events.get(limit).map_or(self.head, |(next, _)| next - 1);
        events.truncate(limit);
        Taken { events, through }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::event::topic::TopicPattern;

    fn event(topic: &str, key: &str, data: &str) -> Arc<Ephemeral> {
        let fact = Fact {
            id: "evt_1".into(),
            event_type: "a.b".into(),
            data: data.into(),
            actor: String::new(),
            subject: String::new(),
            topic: topic.into(),
            created_at: Timestamp::default(),
        };
        Ephemeral::new(Arc::new(fact), key)
    }

    fn wanted(texts: &[&str]) -> Wanted {
        let patterns: Vec<_> = texts.iter().map(|text| TopicPattern::parse(text).unwrap()).collect();
        Wanted::of(&patterns)
    }

    fn data(events: &[Arc<Ephemeral>]) -> Vec<&str> {
        events.iter().map(|event| event.fact.data.as_str()).collect()
    }

    fn after(hub: &EphemeralHub, number: u64, topics: &[&str]) -> (Vec<String>, u64) {
        let taken = hub.after(number, &wanted(topics), 10);
        (taken.events.iter().map(|(_, event)| event.fact.data.clone()).collect(), taken.through)
    }

    #[test]
    fn who_is_behind_gets_the_newest_of_each_key_and_a_snapshot_has_those_only() {
        let hub = EphemeralHub::new(Arc::default());
        for (topic, key, data) in [
            ("a", "x", "1"),
            ("a", "", "2"),
            ("a", "x", "3"),
            ("b", "x", "4"),
            ("a", "y", "5"),
            ("a", "", "6"),
        ] {
            hub.publish(event(topic, key, data));
        }
        assert_eq!(after(&hub, 0, &["a"]), (["2", "3", "5", "6"].map(str::to_owned).into(), 6));
        assert_eq!(after(&hub, 3, &["a", "b"]).0, ["4", "5", "6"]);
        assert_eq!(data(&hub.snapshot(&wanted(&["*"]))), ["3", "4", "5"]);
        assert_eq!(data(&hub.snapshot(&wanted(&["b"]))), ["4"]);
        hub.forget();
        assert!(hub.snapshot(&wanted(&["*"])).is_empty());
        hub.publish(event("a", "x", "7"));
        assert_eq!(after(&hub, 6, &["*"]).0, ["7"], "numbers go on");
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let hub = EphemeralHub::new(Arc::default());
        for number in 0..VALUES + 100 {
            hub.publish(event(&format!("t:{number}"), "x", ""));
        }
        for _ in 0..WITHOUT_KEY + 100 {
            hub.publish(event("burst", "", ""));
        }
        {
            let values = hub.values.read().unwrap();
            assert!(values.order.len() <= VALUES && values.without_key.len() <= WITHOUT_KEY);
            assert_eq!(values.topics["burst"].values.len(), WITHOUT_KEY);
            assert_eq!(
                values.topics.values().map(|topic| topic.values.len()).sum::<usize>(),
                values.order.len()
            );
        }
        for number in 0..100 {
            hub.publish(event("large", &number.to_string(), &"x".repeat(1024 * 1024)));
        }
        let values = hub.values.read().unwrap();
        assert!(values.bytes <= BYTES && values.order.len() < 20, "{}", values.order.len());
    }

    #[test]
    fn what_this_node_publishes_is_forwarded_and_what_came_from_another_is_not() {
        let hub = EphemeralHub::new(Arc::default());
        let forwarded = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&forwarded);
        hub.forward_with(Arc::new(move |event| seen.lock().unwrap().push(event.fact.data.clone())));
        hub.publish(event("a", "x", "own"));
        hub.publish_local(event("a", "x", "foreign"));
        assert_eq!(*forwarded.lock().unwrap(), ["own"]);
        assert_eq!(data(&hub.snapshot(&wanted(&["a"]))), ["foreign"]);
    }

    proptest! {
        #[test]
        fn whoever_reads_in_parts_ends_with_the_newest_of_every_key(
            steps in proptest::collection::vec((0_usize..3, 0_usize..3, any::<bool>()), 1..80),
            by_pattern: bool,
            limit in 1_usize..5,
        ) {
            let hub = EphemeralHub::new(Arc::default());
            let wanted = wanted(if by_pattern { &["t:*"] } else { &["t:0", "t:1", "t:2"] });
            let (mut newest, mut seen, mut at) = (BTreeMap::new(), BTreeMap::new(), 0);
            let mut read = |at: &mut u64| {
                let taken = hub.after(*at, &wanted, limit);
                assert!(taken.events.len() <= limit && taken.through >= *at);
                for (_, event) in taken.events {
                    let (key, now) = ((event.fact.topic.clone(), event.collapse_key.clone()), event.fact.data.clone());
                    let before: Option<String> = seen.insert(key, now.clone());
                    assert!(before.is_none_or(|before| before.parse::<usize>().unwrap() < now.parse().unwrap()), "in their order");
                }
                *at = taken.through;
            };
            for (number, (topic, key, reads)) in steps.iter().enumerate() {
                let (topic, key) = (format!("t:{topic}"), format!("k{key}"));
                hub.publish(event(&topic, &key, &number.to_string()));
                newest.insert((Arc::<str>::from(topic), key), number.to_string());
                if *reads {
                    read(&mut at);
                }
            }
            while at < hub.head() {
                read(&mut at);
            }
            prop_assert_eq!(seen, newest);
        }
    }
}
