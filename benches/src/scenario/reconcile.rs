//! What was published, held against what arrived.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::report::Figure;
use crate::sink::Arrival;

/// An event that the server acknowledged.
#[derive(Debug)]
pub struct Sent {
    /// Its id.
    pub event: String,
    /// When the call began.
    pub at: Instant,
    /// When it was answered.
    pub acknowledged: Instant,
}

/// What became of all of them.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// From send to arrival, for each delivery that arrived.
    pub from_send: Vec<Duration>,
    /// From the answer to arrival; zero for what arrived before its publisher had the answer.
    pub from_acknowledgement: Vec<Duration>,
    /// Deliveries that never came.
    pub lost: usize,
    /// Deliveries that came again.
    pub duplicates: usize,
    /// Deliveries of events that nobody was told are accepted.
    pub unknown: usize,
    /// When the last one came.
    pub last: Option<Instant>,
}

impl Reconciled {
    /// Goes through all arrivals; every event is due once at each of the endpoints, which are numbered from 0.
    pub fn new(sent: &[Sent], arrivals: &[Arrival], endpoints: u32) -> Self {
        let mut of_event: HashMap<&str, (&Sent, Vec<bool>)> =
            sent.iter().map(|sent| (sent.event.as_str(), (sent, vec![false; endpoints as usize]))).collect();
        let mut found = Self { lost: sent.len() * endpoints as usize, ..Self::default() };
        for arrival in arrivals {
            let entry = of_event.get_mut(arrival.event.as_str());
            let place = entry.and_then(|(sent, seen)| Some((sent, seen.get_mut(arrival.endpoint as usize)?)));
            match place {
                None => found.unknown += 1,
                Some((_, true)) => found.duplicates += 1,
                Some((sent, seen)) => {
                    *seen = true;
                    found.lost -= 1;
                    found.from_send.push(arrival.at.saturating_duration_since(sent.at));
                    found.from_acknowledgement.push(arrival.at.saturating_duration_since(sent.acknowledged));
                    found.last = found.last.max(Some(arrival.at));
                }
            }
        }
        found
    }

    /// What must be 0.
    pub fn faults(&self) -> [Figure; 3] {
        [
            Figure::sum("lost", self.lost),
            Figure::sum("duplicates", self.duplicates),
            Figure::sum("unknown", self.unknown),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_delivery_is_accounted_for() {
        let begin = Instant::now();
        let after = |milliseconds| begin + Duration::from_millis(milliseconds);
        let sent = |event: &str, at| Sent { event: event.into(), at: after(at), acknowledged: after(at + 2) };
        let arrival = |event: &str, endpoint, at| Arrival { event: event.into(), endpoint, at: after(at) };

        let sent = [sent("a", 0), sent("b", 10)];
        let arrivals = [
            arrival("a", 0, 1),
            arrival("a", 1, 5),
            arrival("a", 1, 6),
            arrival("b", 0, 14),
            arrival("b", 2, 15),
            arrival("c", 0, 16),
        ];
        let found = Reconciled::new(&sent, &arrivals, 2);

        let milliseconds =
            |values: &[u64]| -> Vec<Duration> { values.iter().copied().map(Duration::from_millis).collect() };
        assert_eq!(found.from_send, milliseconds(&[1, 5, 4]));
        assert_eq!(found.from_acknowledgement, milliseconds(&[0, 3, 2]));
        assert_eq!((found.lost, found.duplicates, found.unknown), (1, 1, 2));
        assert_eq!(found.last, Some(after(14)));
    }
}
