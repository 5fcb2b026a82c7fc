//! The checker on logs that were written by hand, and on logs made by chance: a good one passes, and nothing can be taken
//! from it or added to it that is not found.

use proptest::prelude::*;

use super::check::{Bounds, Guarantee, Verdict, check};
use super::journal::{Arrived, Asked, Kind, Moment, Place};

/// The time between one thing that is sent and the next, in microseconds.
const STEP: Moment = 10_000;
/// How long a server takes to be ready again.
const START: Moment = 400_000;

fn bounds() -> Bounds {
    Bounds {
        in_flight: |_| 3,
        settled: 1_000_000,
        first_send: Some(2_000_000),
        taken_over: None,
        revoked: 0,
        memory: 1_000,
        files: 100,
        neighbour: 1_000_000,
    }
}

fn id(number: u64, kind: Kind) -> String {
    if kind == Kind::Mail { format!("em_{number}") } else { format!("evt_{number}") }
}

fn delivery(place: Place, number: u64, kind: Kind, at: Moment) -> Arrived {
    let id = match place {
        Place::Mail => format!("<{}@example.com>", id(number, kind)),
        _ => id(number, kind),
    };
    Arrived::Delivery {
        place,
        number,
        id,
        delivery: format!("{place:?} {number}"),
        content: number as u32,
        at,
    }
}

/// The logs of a run in which everything is well.
#[derive(Debug, Clone, Default)]
struct Logs {
    asked: Vec<Asked>,
    arrived: Vec<Arrived>,
}

impl Logs {
    fn check(&self) -> Verdict {
        check(&self.asked, &self.arrived, &bounds())
    }

    /// After each of `kills`, a server that has sent so many of these is killed, and what arrived last comes again.
    fn new(kinds: &[Kind], kills: &[usize]) -> Self {
        let mut logs = Self::default();
        let mut now = STEP;
        let mut position = 0;
        let mut opened = vec![(false, false); 2];
        logs.asked.push(Asked::Ready { node: 0, at: 1 });
        logs.open(&mut opened);
        for (index, kind) in kinds.iter().copied().enumerate() {
            let number = index as u64 + 1;
            now += STEP;
            logs.asked.push(Asked::Sent { number, kind });
            if kind != Kind::Mail {
                position += 1;
            }
            let place = if kind == Kind::Mail { 0 } else { position };
            let acknowledged =
                Asked::Acknowledged { number, id: id(number, kind), position: place, at: now + 1_000 };
            logs.asked.push(acknowledged);
            for place in kind.places() {
                let at = now + 2_000;
                logs.arrived.push(delivery(*place, number, kind, at));
                let delivery = format!("{place:?} {number}");
                logs.arrived.push(Arrived::Answered { place: *place, delivery, at: at + 500 });
            }
            if kind != Kind::Mail {
                for stream in 0..2 {
                    let id = id(number, kind);
                    logs.arrived.push(Arrived::Event { stream, number, id, position, at: now + 1_500 });
                }
            }
            if kills.contains(&index) {
                logs.asked.push(Asked::Killed { node: 0, at: now + 4_000, place: "any moment".into() });
                now += START;
                logs.asked.push(Asked::Ready { node: 0, at: now });
                logs.open(&mut opened);
                // What was in flight.
                for place in kind.places() {
                    logs.arrived.push(delivery(*place, number, kind, now + 100));
                }
            }
        }
        for number in 1..=3 {
            logs.asked.push(Asked::Change { number });
            logs.asked.push(Asked::Changed { number });
            logs.asked.push(Asked::Audited { number });
        }
        logs.asked.push(Asked::Revoked { key: "key_1".into(), at: 5_000 });
        logs.asked.push(Asked::Verified { key: "key_1".into(), began: 4_000, valid: true });
        logs.asked.push(Asked::Verified { key: "key_1".into(), began: 6_000, valid: false });
        logs.asked.push(Asked::Used { node: 0, memory: 1_000, files: 100 });
        logs.asked.push(Asked::Ended { at: now + 3_000_000 });
        logs
    }

    fn open(&mut self, opened: &mut [(bool, bool)]) {
        for (stream, (asked, resumed)) in opened.iter_mut().enumerate() {
            self.arrived.push(Arrived::Opened { stream, resumed: *resumed, asked: *asked });
            (*asked, *resumed) = (true, true);
        }
    }
}

#[track_caller]
fn assert_found(logs: &Logs, guarantee: Guarantee) {
    let verdict = logs.check();
    let all: Vec<_> = verdict.violations.iter().map(|violation| violation.guarantee).collect();
    assert!(!all.is_empty() && all.iter().all(|found| *found == guarantee), "{guarantee:?}: {verdict:#?}");
}

const MIXED: [Kind; 8] =
    [Kind::Quick, Kind::Mail, Kind::Slow, Kind::Quick, Kind::Mail, Kind::Quick, Kind::Slow, Kind::Quick];

/// A good log to which this was done.
fn with(change: impl FnOnce(&mut Logs)) -> Logs {
    let mut logs = Logs::new(&MIXED, &[2, 5]);
    change(&mut logs);
    logs
}

#[test]
fn a_good_log_passes_and_is_counted() {
    let verdict = Logs::new(&MIXED, &[2, 5]).check();
    assert_eq!(verdict.violations, []);
    let figures = verdict.figures;
    assert_eq!((figures.kills, figures.acknowledged, figures.arrivals), (2, 8, 13));
    assert_eq!((figures.duplicates, figures.most_per_kill), (3, 1));
    assert_eq!((figures.lost, figures.phantom, figures.stream_events), (0, 0, 12));
    assert_eq!((figures.changes, figures.revocations, figures.first_send), (3, 1, Some(100)));
}

#[test]
fn what_has_come_to_no_end_is_found() {
    assert_found(
        &with(|logs| logs.asked.push(Asked::Unfinished { what: "mails".into(), count: 2 })),
        Guarantee::G1,
    );
}

#[test]
fn streams_that_skip_repeat_or_give_up_are_found() {
    let is_event = |entry: &Arrived| matches!(entry, Arrived::Event { stream: 1, .. });
    let twice = with(|logs| {
        let place = logs.arrived.iter().position(is_event).unwrap();
        let again = logs.arrived[place].clone();
        logs.arrived.push(again);
    });
    assert_found(&twice, Guarantee::G2);
    let swapped = with(|logs| {
        let places: Vec<_> =
            (0..logs.arrived.len()).filter(|place| is_event(&logs.arrived[*place])).collect();
        logs.arrived.swap(places[0], places[1]);
    });
    assert_found(&swapped, Guarantee::G1);
    assert_found(&with(|logs| logs.arrived.push(Arrived::Gap { stream: 0 })), Guarantee::G1);
    let fresh = Arrived::Opened { stream: 0, resumed: false, asked: true };
    assert_found(&with(|logs| logs.arrived.push(fresh)), Guarantee::G1);
}

#[test]
fn repeats_that_no_kill_explains_are_found() {
    let now = 10 * STEP + 2 * START;
    let again = with(|logs| {
        logs.arrived.push(delivery(Place::Quick, 8, Kind::Quick, now));
    });
    assert_found(&again, Guarantee::G2);
    // There is a kill in between, but the result was known long before.
    let late = with(|logs| {
        logs.asked.push(Asked::Killed { node: 0, at: now + 2_000_000, place: "any moment".into() });
        logs.arrived.push(delivery(Place::Quick, 8, Kind::Quick, now + 2_500_000));
    });
    assert_found(&late, Guarantee::G2);
    let mut many = Logs::new(&MIXED, &[]);
    let now = 10 * STEP;
    many.asked.push(Asked::Killed { node: 0, at: now, place: "any moment".into() });
    for number in [1, 4, 6, 8] {
        many.arrived.push(delivery(Place::Quick, number, Kind::Quick, now + 1));
    }
    assert_found(&many, Guarantee::G2);
    many.arrived.pop();
    assert_eq!(many.check().violations, [], "three can be in flight");
    let another = with(|logs| {
        for entry in &mut logs.arrived {
            if let Arrived::Delivery { place: Place::Slow, number: 3, content, at, .. } = entry {
                *content += u32::from(*at > START);
            }
        }
    });
    assert_found(&another, Guarantee::G2);
}

#[test]
fn what_nobody_sent_is_found() {
    for (number, kind, place) in
        [(99, Kind::Quick, Place::Quick), (98, Kind::Mail, Place::Mail), (1, Kind::Quick, Place::Slow)]
    {
        let logs = with(|logs| logs.arrived.push(delivery(place, number, kind, 9 * STEP)));
        assert_found(&logs, Guarantee::G3);
    }
    let stranger = Arrived::Event { stream: 0, number: 99, id: "evt_99".into(), position: 99, at: 9 * STEP };
    assert_found(&with(|logs| logs.arrived.push(stranger)), Guarantee::G3);
}

#[test]
fn one_request_makes_one_thing() {
    let again = |number, id: &str| Asked::Acknowledged { number, id: id.into(), position: 0, at: 3 * STEP };
    let two = with(|logs| {
        logs.asked.insert(3, again(1, "evt_other"));
    });
    assert!(two.check().violates(Guarantee::G3));
    let shared = with(|logs| logs.asked.push(again(2, "evt_1")));
    assert!(shared.check().violates(Guarantee::G3));
    let never_sent = with(|logs| logs.asked.push(again(50, "evt_50")));
    assert_found(&never_sent, Guarantee::G3);
}

#[test]
fn the_audit_log_has_one_entry_for_each_change() {
    let dropped = |number| {
        with(|logs| {
            logs.asked.retain(|entry| *entry != Asked::Audited { number });
        })
    };
    assert_found(&dropped(2), Guarantee::G4);
    assert_found(&with(|logs| logs.asked.push(Asked::Audited { number: 2 })), Guarantee::G4);
    assert_found(&with(|logs| logs.asked.push(Asked::Audited { number: 77 })), Guarantee::G4);
    // Whether it was made, its caller can not know.
    let unknown = |entries: usize| {
        with(|logs| {
            logs.asked.push(Asked::Change { number: 9 });
            logs.asked.extend(std::iter::repeat_n(Asked::Audited { number: 9 }, entries));
        })
    };
    assert_eq!(unknown(0).check().violations, []);
    assert_eq!(unknown(1).check().violations, []);
    assert_found(&unknown(2), Guarantee::G4);
}

#[test]
fn keys_memory_neighbours_and_restarts_are_judged() {
    let valid = Asked::Verified { key: "key_1".into(), began: 5_000, valid: true };
    assert_found(&with(|logs| logs.asked.push(valid)), Guarantee::G5);
    for (memory, files) in [(1_001, 1), (1, 101)] {
        assert_found(&with(|logs| logs.asked.push(Asked::Used { node: 0, memory, files })), Guarantee::G6);
    }
    let mut slow = Logs::new(&[Kind::Quick; 300], &[]);
    assert_eq!(slow.check().violations, []);
    for entry in &mut slow.arrived {
        if let Arrived::Delivery { number, at, .. } = entry
            && number.is_multiple_of(20)
        {
            *at += 1_500_000;
        }
    }
    assert_found(&slow, Guarantee::G7);
    let late = with(|logs| {
        let end = Asked::Ended { at: 0 };
        logs.asked.retain(|entry| std::mem::discriminant(entry) != std::mem::discriminant(&end));
        let (kind, number) = (Kind::Mail, 50);
        logs.asked.push(Asked::Sent { number, kind });
        let at = 4_000_000;
        logs.asked.push(Asked::Acknowledged { number, id: id(number, kind), position: 0, at });
        logs.asked.push(Asked::Killed { node: 0, at: at + 1, place: "any moment".into() });
        logs.asked.push(Asked::Ready { node: 0, at: at + START });
        logs.arrived.push(delivery(Place::Mail, number, kind, at + START + 2_000_001));
    });
    assert_found(&late, Guarantee::G8);
    let verdict = check(&late.asked, &late.arrived, &Bounds { first_send: None, ..bounds() });
    assert_eq!(verdict.violations, []);
    let others = Bounds { first_send: None, taken_over: Some(2_000_000), ..bounds() };
    assert!(check(&late.asked, &late.arrived, &others).violates(Guarantee::G8));
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    proptest::collection::vec(prop::sample::select(vec![Kind::Quick, Kind::Slow, Kind::Mail]), 1..60)
}

fn kills() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0_usize..60, 0..5)
}

/// Whether this is all that there is of it.
fn is_only(arrived: &[Arrived], index: usize) -> bool {
    let same = |entry: &Arrived| match (entry, &arrived[index]) {
        (
            Arrived::Delivery { place: one, number, .. },
            Arrived::Delivery { place: other, number: others, .. },
        ) => one == other && number == others,
        (one, other) => one == other,
    };
    arrived.iter().filter(|entry| same(entry)).count() == 1
}

proptest! {
    #[test]
    fn a_good_log_passes(kinds in kinds(), kills in kills()) {
        prop_assert_eq!(Logs::new(&kinds, &kills).check().violations, []);
    }

    #[test]
    fn whatever_is_missing_is_found(kinds in kinds(), kills in kills(), choice: prop::sample::Index) {
        let mut logs = Logs::new(&kinds, &kills);
        let matters = |index: &usize| {
            let counts = matches!(logs.arrived[*index], Arrived::Delivery { .. } | Arrived::Event { .. });
            counts && is_only(&logs.arrived, *index)
        };
        let all: Vec<usize> = (0..logs.arrived.len()).filter(matters).collect();
        prop_assume!(!all.is_empty());
        logs.arrived.remove(all[choice.index(all.len())]);
        prop_assert!(logs.check().violates(Guarantee::G1));
    }

    #[test]
    fn whatever_comes_again_is_found(kinds in kinds(), kills in kills(), choice: prop::sample::Index) {
        let mut logs = Logs::new(&kinds, &kills);
        let all: Vec<usize> = (0..logs.arrived.len())
            .filter(|index| matches!(logs.arrived[*index], Arrived::Delivery { .. } | Arrived::Event { .. }))
            .collect();
        let again = logs.arrived[all[choice.index(all.len())]].clone();
        logs.arrived.push(again);
        prop_assert!(logs.check().violates(Guarantee::G2));
    }

    #[test]
    fn whatever_nobody_sent_is_found(
        kinds in kinds(),
        kills in kills(),
        number in 1_000_u64..2_000,
        kind in prop::sample::select(vec![Kind::Quick, Kind::Slow, Kind::Mail]),
    ) {
        let mut logs = Logs::new(&kinds, &kills);
        logs.arrived.push(delivery(kind.places()[0], number, kind, STEP));
        prop_assert!(logs.check().violates(Guarantee::G3));
    }
}
