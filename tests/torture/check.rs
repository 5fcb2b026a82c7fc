//! Decides from the two logs of a run whether the guarantees of docs/reliability.md held. It is a function of the logs and
//! of the bounds, and of nothing else.

mod audit;
mod deliveries;
mod restart;
mod streams;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::journal::{Arrived, Asked, Kind, Moment, Place};

/// A guarantee, as docs/reliability.md numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guarantee {
    /// What was acknowledged arrives.
    G1,
    /// It arrives again only where a kill cut it off, bounded and under the same id.
    G2,
    /// Nothing arrives that was not accepted, and one request makes one thing.
    G3,
    /// Each change has one entry in the audit log.
    G4,
    /// A revoked key is refused.
    G5,
    /// What a server uses is bounded.
    G6,
    /// A slow destination does not delay another.
    G7,
    /// A restart recovers by itself, soon.
    G8,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What it violates.
    pub guarantee: Guarantee,
    /// What it is.
    pub what: String,
}

/// What is promised in numbers.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// How many of a destination one kill may repeat.
    pub in_flight: fn(Place) -> usize,
    /// How long after the answer to an attempt its result is durable at the latest.
    pub settled: Moment,
    /// How long after a lone server is ready the first of what was left behind arrives at the latest.
    pub first_send: Option<Moment>,
    /// How long after a server is killed the others have sent what it left behind.
    pub taken_over: Option<Moment>,
    /// How long after its revocation a key may still be taken for valid.
    pub revoked: Moment,
    /// Resident memory, in KiB.
    pub memory: u64,
    /// Open files.
    pub files: u64,
    /// How long 99 of 100 deliveries to the quick endpoint take at the most, whatever the slow one does.
    pub neighbour: Moment,
}

/// What happened, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    pub kills: usize,
    pub acknowledged: usize,
    pub arrivals: usize,
    pub stream_events: usize,
    pub duplicates: usize,
    pub most_per_kill: usize,
    pub lost: usize,
    pub phantom: usize,
    pub changes: usize,
    pub revocations: usize,
    /// The worst first send after a restart, in microseconds, where one server is alone.
    pub first_send: Option<Moment>,
    /// The longest time from a kill to the arrival of what others took over, in microseconds.
    pub taken_over: Option<Moment>,
    /// The 99th of 100 deliveries to the quick endpoint, in microseconds.
    pub neighbour: Moment,
    /// The most memory, in KiB.
    pub memory: u64,
    pub files: u64,
    /// Kills by where they were.
    pub places: BTreeMap<String, usize>,
}

/// What is decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What is wrong; of each kind only the first ones in words.
    pub violations: Vec<Violation>,
    /// What happened.
    pub figures: Figures,
}

/// How many violations of a guarantee are told in words.
const TOLD: usize = 5;

impl Verdict {
    fn add(&mut self, guarantee: Guarantee, what: impl fmt::Display) {
        if self.violations.iter().filter(|known| known.guarantee == guarantee).count() < TOLD {
            self.violations.push(Violation { guarantee, what: what.to_string() });
        }
    }

    /// Whether this guarantee was violated.
    pub fn violates(&self, guarantee: Guarantee) -> bool {
        self.violations.iter().any(|violation| violation.guarantee == guarantee)
    }
}

/// A server was killed.
#[derive(Debug, Clone, Copy)]
struct Kill {
    node: usize,
    at: Moment,
}

/// Something that was acknowledged.
#[derive(Debug, Clone)]
struct Accepted<'a> {
    kind: Kind,
    id: &'a str,
    position: i64,
    at: Moment,
}

/// The logs, in a form in which one can look things up.
struct Run<'a> {
    asked: &'a [Asked],
    arrived: &'a [Arrived],
    accepted: HashMap<u64, Accepted<'a>>,
    kills: Vec<Kill>,
}

/// Checks a run.
pub fn check(asked: &[Asked], arrived: &[Arrived], bounds: &Bounds) -> Verdict {
    let mut verdict = Verdict::default();
    let run = read(asked, arrived, &mut verdict);
    deliveries::check(&run, bounds, &mut verdict);
    streams::check(&run, &mut verdict);
    audit::check(&run, bounds, &mut verdict);
    restart::check(&run, bounds, &mut verdict);
    resources(&run, bounds, &mut verdict);
    verdict
}

fn read<'a>(asked: &'a [Asked], arrived: &'a [Arrived], verdict: &mut Verdict) -> Run<'a> {
    let mut kinds = HashMap::new();
    let mut accepted: HashMap<u64, Accepted<'a>> = HashMap::new();
    let mut by_id: HashMap<&str, u64> = HashMap::new();
    let mut kills = Vec::new();
    for entry in asked {
        match entry {
            Asked::Sent { number, kind } => {
                kinds.insert(*number, *kind);
            }
            Asked::Acknowledged { number, id, position, at } => {
                let Some(&kind) = kinds.get(number) else {
                    verdict.add(Guarantee::G3, format!("{number} was acknowledged and never sent"));
                    continue;
                };
                if let Some(other) = by_id.insert(id, *number) {
                    verdict.add(Guarantee::G3, format!("{number} and {other} have both become {id}"));
                }
                let accept = Accepted { kind, id, position: *position, at: *at };
                if let Some(earlier) = accepted.insert(*number, accept)
                    && earlier.id != id
                {
                    verdict.add(Guarantee::G3, format!("{number} has become {} and {id}", earlier.id));
                }
            }
            Asked::Killed { node, at, place } => {
                kills.push(Kill { node: *node, at: *at });
                *verdict.figures.places.entry(place.clone()).or_default() += 1;
            }
            Asked::KilledBeside { place } => {
                verdict.figures.kills += 1;
                *verdict.figures.places.entry(place.clone()).or_default() += 1;
            }
            Asked::Unfinished { what, count } => {
                verdict.add(Guarantee::G1, format!("{count} {what} have come to no end"));
            }
            _ => {}
        }
    }
    kills.sort_by_key(|kill| kill.at);
    verdict.figures.kills += kills.len();
    verdict.figures.acknowledged = accepted.len();
    Run { asked, arrived, accepted, kills }
}

fn resources(run: &Run<'_>, bounds: &Bounds, verdict: &mut Verdict) {
    for entry in run.asked {
        if let Asked::Used { node, memory, files } = entry {
            if *memory > bounds.memory {
                verdict.add(Guarantee::G6, format!("server {node} used {memory} KiB"));
            }
            if *files > bounds.files {
                verdict.add(Guarantee::G6, format!("server {node} had {files} files open"));
            }
            verdict.figures.memory = verdict.figures.memory.max(*memory);
            verdict.figures.files = verdict.figures.files.max(*files);
        }
    }
}
