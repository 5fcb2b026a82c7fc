//! What was left behind by a kill is sent soon: by the server that is started again, or by the others.

use std::collections::HashMap;

use super::{Bounds, Guarantee, Kill, Run, Verdict};
use crate::torture::journal::{Arrived, Asked, Moment, Place, milliseconds};

/// When servers were ready, in order.
pub(super) fn ready(run: &Run<'_>) -> Vec<(Moment, usize)> {
    let ready = run.asked.iter().filter_map(|entry| match entry {
        Asked::Ready { node, at } => Some((*at, *node)),
        _ => None,
    });
    let mut ready: Vec<_> = ready.collect();
    ready.sort_unstable();
    ready
}

pub(super) fn check(run: &Run<'_>, bounds: &Bounds, verdict: &mut Verdict) {
    // When what was acknowledged came for the first time; what never came is lost, which is said elsewhere.
    let mut first: HashMap<(Place, u64), Moment> = HashMap::new();
    let mut arrivals: Vec<Moment> = Vec::new();
    for entry in run.arrived {
        if let Arrived::Delivery { place, number, at, .. } = entry {
            let known = first.entry((*place, *number)).or_insert(*at);
            *known = (*known).min(*at);
            arrivals.push(*at);
        }
    }
    arrivals.sort_unstable();
    // For each kill, when that came which had been acknowledged before and had not come yet.
    let mut left: Vec<Vec<Moment>> = vec![Vec::new(); run.kills.len()];
    for (number, accepted) in &run.accepted {
        for place in accepted.kind.places() {
            if let Some(&arrived) = first.get(&(*place, *number)) {
                let from = run.kills.partition_point(|kill| kill.at <= accepted.at);
                let until = run.kills.partition_point(|kill| kill.at < arrived);
                left.iter_mut().take(until).skip(from).for_each(|left| left.push(arrived));
            }
        }
    }
    let end = run.asked.iter().find_map(|entry| match entry {
        Asked::Ended { at } => Some(*at),
        _ => None,
    });
    let ready = ready(run);
    for (index, (kill, left)) in run.kills.iter().zip(&left).enumerate() {
        let quiet = run.kills.get(index + 1).map(|next| next.at).or(end).unwrap_or(Moment::MAX);
        if let Some(bound) = bounds.first_send {
            let new = arrivals.get(arrivals.partition_point(|at| *at <= kill.at));
            let sent = left.iter().min().or(new).copied();
            first_send(kill, &ready, sent, quiet, bound, verdict);
        }
        let is_last = index + 1 == run.kills.len();
        if let Some(bound) =
            bounds.taken_over.filter(|bound| is_last || kill.at.saturating_add(*bound) <= quiet)
        {
            let last = left.iter().max().map_or(0, |arrived| arrived - kill.at);
            verdict.figures.taken_over = verdict.figures.taken_over.max(Some(last));
            if last > bound {
                let last = milliseconds(last);
                verdict.add(Guarantee::G8, format!("what a kill left behind came {last} ms after it"));
            }
        }
    }
}

/// Judges the first send after a restart: of what was left behind, or else of something new.
fn first_send(
    kill: &Kill,
    ready: &[(Moment, usize)],
    sent: Option<Moment>,
    quiet: Moment,
    bound: Moment,
    verdict: &mut Verdict,
) {
    let later = &ready[ready.partition_point(|(at, _)| *at <= kill.at)..];
    let again = later.iter().find(|(_, node)| *node == kill.node).map(|(at, _)| *at);
    let Some(ready) = again.filter(|ready| *ready < quiet) else {
        return;
    };
    let sent = sent.filter(|sent| *sent <= quiet);
    // Deliveries begin before the port is open.
    let took = sent.unwrap_or(quiet).saturating_sub(ready);
    if sent.is_some() {
        verdict.figures.first_send = verdict.figures.first_send.max(Some(took));
    }
    if took > bound {
        let took = milliseconds(took);
        verdict.add(Guarantee::G8, format!("the first send came later than {took} ms after a restart"));
    }
}
