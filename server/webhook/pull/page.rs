//! What one read answers: wanted events in their order, few enough to be one message.

use std::sync::Arc;

use crate::event::bus::Record;

/// How many events one read looks at.
pub(super) const SCAN: usize = 20_000;
/// Below what clients take as one message unless told otherwise (4 MiB), with room for its other fields.
const BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;
/// What the other fields of an event take at the most: its id, type, time and cursor, with all tags and lengths.
const BESIDE: usize = 512;

/// What was found so far.
pub(super) struct Found {
    /// The wanted events.
    pub records: Vec<Arc<Record>>,
    /// Up to where all were looked at and, if wanted, taken.
    pub position: i64,
    limit: usize,
    scanned: usize,
    bytes: usize,
}

impl Found {
    /// Nothing yet, after this position.
    pub(super) fn after(position: i64, limit: usize) -> Self {
        Self { records: Vec::new(), position, limit, scanned: 0, bytes: 0 }
    }

    /// Looks at what follows; answers whether the answer has enough.
    pub(super) fn take(&mut self, read: Vec<Arc<Record>>, wants: impl Fn(&str) -> bool) -> bool {
        for record in read {
            if self.is_full() {
                return true;
            }
            if wants(&record.event.fact.event_type) {
                let weight = weight(&record);
                if !self.records.is_empty() && self.bytes + weight > BYTES {
                    return true;
                }
                self.bytes += weight;
                self.position = record.event.position;
                self.records.push(record);
            } else {
                self.position = record.event.position;
            }
            self.scanned += 1;
        }
        self.is_full()
    }

    fn is_full(&self) -> bool {
        self.records.len() >= self.limit || self.scanned >= SCAN
    }

    /// Up to where nothing was wanted.
    pub(super) fn unwanted(&self) -> i64 {
        self.records.first().map_or(self.position, |first| first.event.position - 1)
    }
}

fn weight(record: &Record) -> usize {
    let fact = &record.event.fact;
    fact.data.len() + fact.actor.len() + fact.subject.len() + BESIDE
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::event::{Event, Fact};

    fn record(position: i64, event_type: &str, bytes: usize) -> Arc<Record> {
        let fact = Fact {
            id: "evt_1".into(),
            event_type: event_type.into(),
            data: "x".repeat(bytes),
            actor: String::new(),
            subject: String::new(),
            topic: "events".into(),
            created_at: Timestamp::default(),
        };
        Arc::new(Record { event: Event { position, fact: Arc::new(fact) }, encoded: OnceLock::new() })
    }

    proptest! {
        #[test]
        fn reads_that_go_on_from_each_other_find_every_wanted_event_once(
            log in proptest::collection::vec((any::<bool>(), 0_usize..2_000_000), 0..40),
            limit in 1_usize..8,
            batch in 1_usize..8,
        ) {
            let record = |(index, (wanted, bytes)): (usize, &(bool, usize))| {
                record(index as i64 + 1, if *wanted { "a" } else { "b" }, *bytes)
            };
            let log: Vec<_> = log.iter().enumerate().map(record).collect();
            let (mut position, mut seen) = (0, Vec::new());
            while (position as usize) < log.len() {
                let mut found = Found::after(position, limit);
                for read in log[position as usize..].chunks(batch) {
                    if found.take(read.to_vec(), |event_type| event_type == "a") {
                        break;
                    }
                }
                prop_assert!(found.records.len() <= limit);
                let bytes: usize = found.records.iter().map(|record| weight(record)).sum();
                prop_assert!(found.records.len() == 1 || bytes <= BYTES);
                prop_assert!(found.position > position, "every read goes on");
                seen.extend(found.records.iter().map(|record| record.event.position));
                position = found.position;
            }
            let wanted: Vec<_> = log
                .iter()
                .filter(|record| &*record.event.fact.event_type == "a")
                .map(|record| record.event.position)
                .collect();
            prop_assert_eq!(seen, wanted);
        }
    }

    #[test]
    fn a_read_looks_at_so_many_and_says_how_far_it_came() {
        let mut found = Found::after(0, 10);
        let mut next = 1;
        let mut batch = || {
            let records = (next..next + 512).map(|position| record(position, "b", 0)).collect();
            next += 512;
            records
        };
        while !found.take(batch(), |_| false) {}
        assert_eq!(found.position, SCAN as i64);
        assert_eq!(found.unwanted(), SCAN as i64);
    }
}
