//! Webhooks and mails: nothing lost, nothing that was not accepted, and repeats only where a kill explains them.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Accepted, Bounds, Guarantee, Run, Verdict};
use crate::torture::journal::{Arrived, Moment, Place, milliseconds};

/// How much later than the end of a process what it sent may be read: the two are told of by different parts of the system.
const SLACK: Moment = 100_000;
/// So few quick deliveries say nothing about how long they take.
const FEW: usize = 100;
/// So long after a restart the server is still busy with what was left behind.
const BACKLOG: Moment = 1_000_000;

/// One arrival.
#[derive(Debug, Clone, Copy)]
struct Arrival<'a> {
    place: Place,
    id: &'a str,
    delivery: &'a str,
    content: u32,
    at: Moment,
}

pub(super) fn check(run: &Run<'_>, bounds: &Bounds, verdict: &mut Verdict) {
    let mut copies: HashMap<(Place, u64), Vec<Arrival<'_>>> = HashMap::new();
    let mut answers: HashMap<(Place, &str), Vec<Moment>> = HashMap::new();
    for entry in run.arrived {
        match entry {
            Arrived::Delivery { place, number, id, delivery, content, at } => {
                verdict.figures.arrivals += 1;
                let copy = Arrival { place: *place, id, delivery, content: *content, at: *at };
                copies.entry((*place, *number)).or_default().push(copy);
            }
            Arrived::Answered { place, delivery, at } => {
                answers.entry((*place, delivery.as_str())).or_default().push(*at);
            }
            _ => {}
        }
    }
    for (number, accepted) in &run.accepted {
        for place in accepted.kind.places() {
            if !copies.contains_key(&(*place, *number)) {
                verdict.figures.lost += 1;
                verdict.add(Guarantee::G1, format!("{number} ({}) never came to {place:?}", accepted.id));
            }
        }
    }
    let mut repeated: BTreeMap<(Moment, Place), HashSet<u64>> = BTreeMap::new();
    for ((place, number), copies) in &mut copies {
        copies.sort_by_key(|copy| copy.at);
        if !is_genuine(run.accepted.get(number), *place, *number, copies, verdict) {
            continue;
        }
        for pair in copies.windows(2) {
            verdict.figures.duplicates += 1;
            let answered = answers.get(&(*place, pair[0].delivery)).into_iter().flatten();
            let answered = answered.copied().filter(|at| (pair[0].at..pair[1].at).contains(at)).min();
            if let Some(kill) = repeat(run, *number, [pair[0], pair[1]], answered, bounds, verdict) {
                repeated.entry((kill, *place)).or_default().insert(*number);
            }
        }
    }
    for ((kill, place), numbers) in repeated {
        let count = numbers.len();
        verdict.figures.most_per_kill = verdict.figures.most_per_kill.max(count);
        let most = (bounds.in_flight)(place);
        if count > most {
            let what = format!("the kill at {} ms repeated {count} at {place:?}", milliseconds(kill));
            verdict.add(Guarantee::G2, format!("{what}, where {most} can be in flight"));
        }
    }
    neighbours(run, &copies, bounds, verdict);
}

/// Whether these copies are what was accepted; says what is wrong where not.
fn is_genuine(
    accepted: Option<&Accepted<'_>>,
    place: Place,
    number: u64,
    copies: &[Arrival<'_>],
    verdict: &mut Verdict,
) -> bool {
    let genuine = |copy: &&Arrival<'_>| {
        accepted.is_some_and(|accepted| {
            let right = match place {
                Place::Mail => copy.id.strip_prefix('<').and_then(|id| id.split(['@', '.']).next()),
                _ => Some(copy.id),
            };
            right == Some(accepted.id) && accepted.kind.places().contains(&place)
        })
    };
    let mut all = true;
    for copy in copies.iter().filter(|copy| !genuine(copy)) {
        all = false;
        verdict.figures.phantom += 1;
        verdict.add(Guarantee::G3, format!("{number} came to {place:?} as {}: {accepted:?}", copy.id));
    }
    all
}

/// Judges a repeat; answers when the kill was that explains it.
fn repeat(
    run: &Run<'_>,
    number: u64,
    [first, second]: [Arrival<'_>; 2],
    answered: Option<Moment>,
    bounds: &Bounds,
    verdict: &mut Verdict,
) -> Option<Moment> {
    let place = first.place;
    let same = |copy: &Arrival<'_>| (copy.id.to_owned(), copy.delivery.to_owned(), copy.content);
    if same(&first) != same(&second) {
        let ids = [first.id, second.id];
        verdict.add(Guarantee::G2, format!("{number} came again to {place:?} as another one: {ids:?}"));
    }
    // Of several kills in between, the first one cut it off, or it was answered before and its result was lost.
    let between = |at: Moment| first.at <= at + SLACK && at < second.at;
    let Some(kill) = run.kills.iter().map(|kill| kill.at).find(|at| between(*at)) else {
        let times = [first.at, second.at].map(milliseconds);
        verdict.add(
            Guarantee::G2,
            format!("{number} came again to {place:?} without a kill in between ({times:?} ms)"),
        );
        return None;
    };
    if let Some(answered) = answered.filter(|answered| answered + bounds.settled < kill) {
        let before = milliseconds(kill - answered);
        verdict.add(
            Guarantee::G2,
            format!("{number} came again to {place:?}, which had answered {before} ms before the kill"),
        );
    }
    Some(kill)
}

/// The quick endpoint while the slow one is busy.
fn neighbours(
    run: &Run<'_>,
    copies: &HashMap<(Place, u64), Vec<Arrival<'_>>>,
    bounds: &Bounds,
    verdict: &mut Verdict,
) {
    let ready = super::restart::ready(run);
    let mut times: Vec<Moment> = run
        .accepted
        .iter()
        .filter_map(|(number, accepted)| {
            let first = copies.get(&(Place::Quick, *number))?.first()?.at;
            let next = run.kills.partition_point(|kill| kill.at + SLACK < accepted.at);
            let cut_off = run.kills.get(next).is_some_and(|kill| kill.at <= first);
            let last = ready.partition_point(|(at, _)| *at <= accepted.at).checked_sub(1);
            let late = last.is_some_and(|last| accepted.at < ready[last].0 + BACKLOG);
            (!cut_off && !late).then(|| first.saturating_sub(accepted.at))
        })
        .collect();
    if times.len() < FEW {
        return;
    }
    times.sort_unstable();
    let time = times[times.len() * 99 / 100];
    verdict.figures.neighbour = time;
    if time > bounds.neighbour {
        let time = milliseconds(time);
        verdict.add(Guarantee::G7, format!("one in a hundred quick deliveries took more than {time} ms"));
    }
}
