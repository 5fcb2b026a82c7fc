//! The newest events of the log in memory, with an index by topic.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::wanted::Wanted;
use super::{Read, Record};

/// How many events are kept in memory.
const RING_EVENTS: usize = 65_536;
/// How many bytes of payload are kept in memory.
const RING_BYTES: usize = 64 * 1024 * 1024;
/// How many events one read by pattern looks at.
const SCAN: usize = 4_096;

/// The newest events, all that there are.
#[derive(Default)]
pub(super) struct Ring {
    records: VecDeque<Arc<Record>>,
    /// The same, by topic.
    topics: HashMap<Arc<str>, VecDeque<Arc<Record>>>,
    bytes: usize,
    /// All that the log has after this position, up to `last`, is here.
    pub first: i64,
    /// How far the log is known here.
    pub last: i64,
    /// How often everything here was forgotten.
    pub forgotten: u64,
}

impl Ring {
    /// An empty one at this position.
    pub fn at(position: i64, forgotten: u64) -> Self {
        Self { first: position, last: position, forgotten, ..Self::default() }
    }

    /// Knows that there is nothing else up to this position.
    pub fn reach(&mut self, position: i64) {
        self.last = self.last.max(position);
    }

    /// Adds the next event.
    pub fn push(&mut self, record: Arc<Record>) {
        debug_assert!(record.event.position > self.last, "the ring is in order");
        self.last = record.event.position;
        self.bytes += record.weight();
        let topic = &record.event.fact.topic;
        match self.topics.get_mut(topic) {
            Some(records) => records.push_back(Arc::clone(&record)),
            None => {
                self.topics.insert(Arc::clone(topic), VecDeque::from([Arc::clone(&record)]));
            }
        }
        self.records.push_back(record);
        while self.records.len() > RING_EVENTS || self.bytes > RING_BYTES {
            let Some(oldest) = self.records.pop_front() else {
                break;
            };
            self.first = oldest.event.position;
            self.bytes -= oldest.weight();
            let topic = &oldest.event.fact.topic;
            if let Some(records) = self.topics.get_mut(topic) {
                // The oldest of all is the oldest of its topic.
                records.pop_front();
                if records.is_empty() {
                    self.topics.remove(topic);
                }
            }
        }
    }

    /// What follows `position` and is wanted; `None` when the ring does not reach back that far.
    pub fn after(&self, position: i64, wanted: &Wanted, limit: usize) -> Option<Read> {
        if position >= self.last {
            return Some(Read { records: Vec::new(), through: position });
        }
        if position < self.first {
            return None;
        }
        let (records, all) = match wanted {
            Wanted::All => {
                let records: Vec<_> = from(&self.records, position).take(limit).cloned().collect();
                let all = records.len() < limit;
                (records, all)
            }
            Wanted::Exactly(topics) => self.of_topics(position, topics, limit),
            Wanted::Matching(_) => return Some(self.matching(position, wanted, limit)),
        };
        let through = records.last().filter(|_| !all).map_or(self.last, |record| record.event.position);
        Some(Read { records, through })
    }

    /// The next of some topics, and whether that is all of them.
    fn of_topics(&self, position: i64, topics: &[Arc<str>], limit: usize) -> (Vec<Arc<Record>>, bool) {
        let mut records: Vec<Arc<Record>> = Vec::new();
        let mut found = 0;
        for topic in topics {
            let Some(of_topic) = self.topics.get(topic) else { continue };
            let before = records.len();
            // The next ones of all topics are among the next ones of each.
            records.extend(from(of_topic, position).take(limit).cloned());
            found += usize::from(records.len() > before);
        }
        if found > 1 {
            records.sort_unstable_by_key(|record| record.event.position);
        }
        let all = records.len() < limit;
        records.truncate(limit);
        (records, all)
    }

    /// The next that patterns take, among so many that others do not have to wait.
    fn matching(&self, position: i64, wanted: &Wanted, limit: usize) -> Read {
        let mut records = Vec::new();
        for (looked, record) in from(&self.records, position).enumerate() {
            if looked >= SCAN {
                return Read { records, through: record.event.position - 1 };
            }
            if wanted.takes(&record.event.fact.topic) {
                records.push(Arc::clone(record));
                if records.len() >= limit {
                    return Read { records, through: record.event.position };
                }
            }
        }
        Read { records, through: self.last }
    }
}

/// Those after a position; positions have holes where something was erased.
fn from(records: &VecDeque<Arc<Record>>, position: i64) -> impl Iterator<Item = &Arc<Record>> {
    let skip = records.partition_point(|record| record.event.position <= position);
    records.range(skip..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::event::topic::TopicPattern;
    use crate::event::{Event, Fact};

    fn record_of(position: i64, topic: &str, bytes: usize) -> Arc<Record> {
        let fact = Fact {
            id: format!("evt_{position}").into(),
            event_type: "a.b".into(),
            data: "x".repeat(bytes),
            actor: String::new(),
            subject: String::new(),
            topic: topic.into(),
            created_at: Timestamp::default(),
        };
        Record::new(Event { position, fact: Arc::new(fact) })
    }

    fn record(position: i64) -> Arc<Record> {
        record_of(position, "events", 2)
    }

    fn after(ring: &Ring, position: i64) -> Option<Vec<i64>> {
        let read = ring.after(position, &Wanted::All, 100)?;
        Some(read.records.iter().map(|record| record.event.position).collect())
    }

    #[test]
    fn a_ring_with_holes_answers_what_there_is_and_knows_how_far_back_it_reaches() {
        let mut ring = Ring::at(10, 0);
        assert_eq!(after(&ring, 10), Some(Vec::new()));
        assert_eq!(after(&ring, 9), None);
        for position in [11, 12, 15, 19] {
            ring.push(record(position));
        }
        assert_eq!(after(&ring, 10), Some(vec![11, 12, 15, 19]));
        assert_eq!(after(&ring, 12), Some(vec![15, 19]));
        assert_eq!(
            after(&ring, 13),
            Some(vec![15, 19]),
            "an event that was erased is a place like any other"
        );
        assert_eq!(after(&ring, 18), Some(vec![19]));
        assert_eq!(after(&ring, 19), Some(Vec::new()));
        for position in 20..=RING_EVENTS as i64 + 18 {
            ring.push(record(position));
        }
        assert_eq!(after(&ring, 13), None, "it has forgotten 15");
        assert_eq!(after(&ring, 15).unwrap()[0], 19, "and remembers all after it");
    }

    #[test]
    fn what_is_forgotten_is_forgotten_by_topic_too() {
        let mut ring = Ring::at(0, 0);
        for position in 1..=100 {
            ring.push(record_of(position, &format!("chat:{position}"), RING_BYTES / 10));
        }
        assert!(ring.records.len() < 10 && ring.topics.len() == ring.records.len());
        assert!(ring.topics.values().all(|records| records.len() == 1));
    }

    proptest! {
        #[test]
        fn reads_that_go_on_from_each_other_are_the_wanted_part_of_the_log(
            topics in proptest::collection::vec(0_usize..6, 0..200),
            gaps in proptest::collection::vec(1_i64..4, 200),
            wanted in proptest::collection::vec(
                prop::sample::select(vec!["chat:0", "chat:1", "chat:5", "chat:*", "none", "*"]), 0..4),
            limit in 1_usize..9,
        ) {
            let mut ring = Ring::at(0, 0);
            let mut position = 0;
            for (topic, gap) in topics.iter().zip(&gaps) {
                position += gap;
                ring.push(record_of(position, &format!("chat:{topic}"), 2));
            }
            let patterns: Vec<_> = wanted.iter().map(|text| TopicPattern::parse(text).unwrap()).collect();
            let expected: Vec<_> = ring
                .records
                .iter()
                .filter(|record| patterns.iter().any(|pattern| pattern.matches(&record.event.fact.topic)))
                .map(|record| record.event.position)
                .collect();
            let wanted = Wanted::of(&patterns);
            let (mut at, mut seen) = (0, Vec::new());
            while at < ring.last {
                let read = ring.after(at, &wanted, limit).unwrap();
                prop_assert!(read.records.len() <= limit);
                prop_assert!(read.through > at, "every read goes on");
                prop_assert!(read.records.last().is_none_or(|record| record.event.position <= read.through));
                seen.extend(read.records.iter().map(|record| record.event.position));
                at = read.through;
            }
            prop_assert_eq!(seen, expected);
        }
    }
}
