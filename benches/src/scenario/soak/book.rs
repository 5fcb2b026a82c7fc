//! What was acknowledged and what arrived, for so long that neither can be kept until the end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::report::Figure;
use crate::scenario::reconcile::Sent;
use crate::sink::Arrival;
use crate::stats::quantile;

/// One in so many times of arrival is kept.
const KEPT: u64 = 8;

/// Knows each event until it was acknowledged and has arrived everywhere.
pub struct Book {
    endpoints: usize,
    began: Instant,
    time: Duration,
    under_way: HashMap<String, Event>,
    arrived: u64,
    /// How many deliveries have been forgotten because their event is done.
    whole: u64,
    duplicates: u64,
    /// From due to arrival, in the first third and in the last.
    early: Vec<Duration>,
    late: Vec<Duration>,
}

#[derive(Default)]
struct Event {
    due: Option<Instant>,
    /// When it came to each endpoint.
    arrivals: Vec<Option<Instant>>,
}

impl Book {
    /// For events that each have as many endpoints, and are due within `time` from now.
    pub fn new(endpoints: u32, time: Duration) -> Self {
        Self {
            endpoints: endpoints as usize,
            began: Instant::now(),
            time,
            under_way: HashMap::new(),
            arrived: 0,
            whole: 0,
            duplicates: 0,
            early: Vec::new(),
            late: Vec::new(),
        }
    }

    /// Notes what was acknowledged and what arrived.
    pub fn note(&mut self, sent: Vec<Sent>, arrivals: Vec<Arrival>) {
        for Arrival { event, endpoint, at } in arrivals {
            let arrivals = &mut self.under_way.entry(event).or_default().arrivals;
            arrivals.resize(self.endpoints, None);
            match arrivals.get_mut(endpoint as usize) {
                Some(place @ None) => *place = Some(at),
                _ => self.duplicates += 1,
            }
            self.arrived += 1;
        }
        for Sent { event, at, .. } in sent {
            self.under_way.entry(event).or_default().due = Some(at);
        }
        let whole: Vec<String> = self
            .under_way
            .iter()
            .filter(|(_, event)| self.is_whole(event))
            .map(|(id, _)| id.clone())
            .collect();
        for id in whole {
            let Some(Event { due: Some(due), arrivals }) = self.under_way.remove(&id) else { continue };
            for at in arrivals.into_iter().flatten() {
                self.keep(due, at.saturating_duration_since(due));
            }
        }
    }

    fn is_whole(&self, event: &Event) -> bool {
        event.due.is_some() && event.arrivals.iter().flatten().count() == self.endpoints
    }

    fn keep(&mut self, due: Instant, took: Duration) {
        let at = due.saturating_duration_since(self.began);
        self.whole += 1;
        if !self.whole.is_multiple_of(KEPT) {
            return;
        }
        if at < self.time / 3 {
            self.early.push(took);
        } else if at >= self.time * 2 / 3 {
            self.late.push(took);
        }
    }

    /// How many deliveries of what was acknowledged have not come.
    pub fn lost(&self) -> u64 {
        let missing = |event: &Event| (self.endpoints - event.arrivals.iter().flatten().count()) as u64;
        self.under_way.values().filter(|event| event.due.is_some()).map(missing).sum()
    }

    /// The figures, with how much of everything has not come. What came again after it was there everywhere is among the unknown.
    pub fn figures(&mut self, lost: u64, time: Duration) -> Vec<Figure> {
        let unknown = self.under_way.values().filter(|event| event.due.is_none()).count();
        vec![
            Figure::spread("deliveries/s", self.arrived as f64 / time.as_secs_f64()),
            Figure::spread("p99 ms, first third", quantile(&mut self.early, 0.99)),
            Figure::spread("p99 ms, last third", quantile(&mut self.late, 0.99)),
            Figure::sum("lost", lost as usize),
            Figure::sum("duplicates", self.duplicates as usize),
            Figure::sum("unknown", unknown),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whole_is_forgotten_and_the_rest_is_told() {
        let mut book = Book::new(2, Duration::from_secs(9));
        let now = Instant::now();
        let sent = |event: &str| Sent { event: event.into(), at: now, acknowledged: now };
        let arrival = |event: &str, endpoint| Arrival { event: event.into(), endpoint, at: now };
        // What arrives before its publisher has the answer is as good.
        book.note(vec![], vec![arrival("a", 0), arrival("a", 1), arrival("b", 1)]);
        book.note(vec![sent("a"), sent("b"), sent("c")], vec![arrival("b", 1)]);
        assert_eq!((book.lost(), book.duplicates, book.under_way.len()), (3, 1, 2));
        book.note(vec![], vec![arrival("b", 0), arrival("c", 0), arrival("c", 1), arrival("a", 0)]);
        assert_eq!(book.lost(), 0);
        let of =
            |name: &str, figures: &[Figure]| figures.iter().find(|figure| figure.name == name).unwrap().value;
        let figures = book.figures(0, Duration::from_secs(1));
        assert_eq!((of("unknown", &figures), of("duplicates", &figures)), (1.0, 1.0));
    }
}
