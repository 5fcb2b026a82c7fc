//! Live streams: each has every event once, in the order of the log, over all the times that it was resumed.

use std::collections::{BTreeMap, HashMap};

use super::{Guarantee, Run, Verdict};
use crate::torture::journal::{Arrived, Kind};

/// What a stream has had.
#[derive(Default)]
struct Had<'a> {
    position: i64,
    events: HashMap<&'a str, u64>,
}

pub(super) fn check(run: &Run<'_>, verdict: &mut Verdict) {
    let mut streams: BTreeMap<usize, Had<'_>> = BTreeMap::new();
    for entry in run.arrived {
        match entry {
            Arrived::Opened { stream, resumed, asked } => {
                streams.entry(*stream).or_default();
                if *asked && !resumed {
                    verdict.add(Guarantee::G1, format!("stream {stream} could not go on where it was"));
                }
            }
            Arrived::Gap { stream } => {
                verdict.add(Guarantee::G1, format!("stream {stream} has a gap, and says so"));
            }
            Arrived::Event { stream, number, id, position, .. } => {
                verdict.figures.stream_events += 1;
                let had = streams.entry(*stream).or_default();
                if had.events.insert(id, *number).is_some() {
                    verdict.add(Guarantee::G2, format!("stream {stream} has {number} ({id}) again"));
                } else if *position <= had.position {
                    let order = format!("{position} after {}", had.position);
                    verdict.add(Guarantee::G1, format!("stream {stream} is out of order: {order}"));
                }
                had.position = had.position.max(*position);
                let accepted = run.accepted.get(number);
                if accepted.is_none_or(|accepted| accepted.id != id) {
                    verdict.figures.phantom += 1;
                    verdict.add(
                        Guarantee::G3,
                        format!("stream {stream} has {number} as {id}, and it was {accepted:?}"),
                    );
                } else if accepted.is_some_and(|event| event.position != 0 && event.position != *position) {
                    verdict.add(Guarantee::G3, format!("stream {stream} has {number} in another place"));
                }
            }
            _ => {}
        }
    }
    for (stream, had) in &streams {
        for (number, accepted) in run.accepted.iter().filter(|(_, accepted)| accepted.kind != Kind::Mail) {
            if !had.events.contains_key(accepted.id) {
                verdict.figures.lost += 1;
                verdict.add(Guarantee::G1, format!("stream {stream} never had {number} ({})", accepted.id));
            }
        }
    }
}
