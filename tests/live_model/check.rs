//! Holds what a subscriber saw against what was published.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{Address, Dice, Filter};

/// A durable event, as its publisher knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its place in the log.
    pub position: i64,
    /// Its id.
    pub id: String,
    /// Where it went.
    pub address: Address,
    /// When its publisher began to publish it, by the clock of the seed.
    pub began: u64,
}

/// An event, as a subscriber saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenEvent {
    /// Its place in the log.
    pub position: i64,
    /// Its id.
    pub id: String,
    /// Where it went.
    pub address: Address,
}

/// A message of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Its durable events.
    pub events: Vec<SeenEvent>,
    /// Its ephemeral events: the id of each, and where it went.
    pub ephemeral: Vec<(String, Address)>,
    /// Its cursor.
    pub cursor: i64,
    /// Whether it admits a gap.
    pub resync: bool,
    /// The change that came into force with it.
    pub updated: Option<i64>,
}

/// From where a stream was to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From what happened after it was opened; when that was asked for, the log had reached `reached`.
    Now {
        /// The greatest position that was known.
        reached: i64,
    },
    /// After this place.
    After(i64),
    /// From a place that this log does not have.
    Foreign,
}

/// A stream from its beginning to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// From where it was to begin.
    pub start: Start,
    /// Whether the server said that it went on from there.
    pub resumed: bool,
    /// When it was known to be open, by the clock of the seed.
    pub opened: u64,
    /// What it was about in the beginning.
    pub filter: Filter,
    /// What it was to be about from each change on, by its generation.
    pub updates: BTreeMap<i64, Filter>,
    /// What came.
    pub seen: Vec<Seen>,
}

impl Session {
    /// The place that it has reached.
    pub fn reached(&self) -> i64 {
        self.seen.last().map_or(0, |seen| seen.cursor)
    }

    /// How many durable events came.
    pub fn events(&self) -> usize {
        self.seen.iter().map(|seen| seen.events.len()).sum()
    }
}

/// Says what is wrong with a stream, given all that was published, in order.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(published: &[Published], session: &Session) -> Result<(), String> {
    let first = session.seen.first().ok_or("nothing came")?;
    let mut place = begin(published, session, first)?;
    let mut filter = &session.filter;
    let mut ephemeral = BTreeSet::new();
    for (number, seen) in session.seen.iter().enumerate() {
        let wrong = |what: &str| format!("message {number}: {what}\n{seen:?}\nwanted {filter:?}");
        if seen.resync && number > 0 {
            if !seen.events.is_empty() {
                return Err(wrong("a gap is admitted together with events"));
            }
            place = place.max(seen.cursor);
        }
        if seen.cursor < place {
            return Err(wrong("the cursor goes back"));
        }
        let due = published.iter().filter(|event| place < event.position && event.position <= seen.cursor);
        let due: Vec<&Published> = due.filter(|event| filter.wants(&event.address)).collect();
        let same = |(due, seen): (&&Published, &SeenEvent)| {
            due.position == seen.position && due.id == seen.id && due.address == seen.address
        };
        if due.len() != seen.events.len() || !due.iter().zip(&seen.events).all(same) {
            return Err(format!("{}\nafter {place} there is\n{due:?}", wrong("it has not what is due")));
        }
        place = seen.cursor;
        for (id, address) in &seen.ephemeral {
            if !filter.wants(address) || !ephemeral.insert(id) {
                return Err(wrong("an ephemeral event was not asked for, or comes again"));
            }
        }
        if let Some(generation) = seen.updated {
            // What the message has beside the notice is still about what was before.
            filter = session.updates.get(&generation).ok_or_else(|| wrong("an unknown change"))?;
        }
    }
    Ok(())
}

/// Where a stream has begun.
fn begin(published: &[Published], session: &Session, first: &Seen) -> Result<i64, String> {
    // Whoever is told that a stream is open gets everything that is published from then on.
    let passed = |event: &&Published| event.began > session.opened && event.position <= first.cursor;
    let from_the_end = || match published.iter().find(passed) {
        Some(event) => Err(format!("it begins after {event:?}, which was published when it was open")),
        None => Ok(first.cursor),
    };
    match session.start {
        Start::Now { .. } if session.resumed || first.resync => {
            Err(format!("a new stream can not resume: {first:?}"))
        }
        Start::Now { reached } if first.cursor < reached => {
            Err(format!("it begins at {} and is to begin after {reached}", first.cursor))
        }
        Start::Now { .. } => from_the_end(),
        Start::After(_) if first.resync == session.resumed => {
            Err(format!("it must resume or admit a gap: {first:?}"))
        }
        Start::After(_) if first.resync => from_the_end(),
        Start::After(place) => Ok(place),
        Start::Foreign if session.resumed || !first.resync => {
            Err(format!("a foreign cursor leads nowhere: {first:?}"))
        }
        Start::Foreign => from_the_end(),
    }
}

/// A stream that something was done to.
pub struct Faulty {
    /// What was done.
    pub fault: &'static str,
    /// The stream.
    pub session: Session,
}

/// Does to a stream what must not happen to one, each in one copy, where it has enough events for that.
pub fn faulty(published: &[Published], session: &Session, dice: &mut Dice) -> Vec<Faulty> {
    let mut made = Vec::new();
    let places: Vec<(usize, usize)> = session
        .seen
        .iter()
        .enumerate()
        .flat_map(|(message, seen)| (0..seen.events.len()).map(move |event| (message, event)))
        .collect();
    if places.is_empty() {
        return made;
    }
    let mut fault = |fault, change: &mut dyn FnMut(&mut Vec<Seen>)| {
        let mut session = session.clone();
        change(&mut session.seen);
        made.push(Faulty { fault, session });
    };
    let (message, event) = dice.pick(&places);
    fault("one event is missing", &mut |seen| {
        seen[message].events.remove(event);
    });
    if places.len() > 1 {
        let nth = dice.below(places.len() - 1);
        let (one, other) = (places[nth], places[nth + 1]);
        fault("two events have changed places", &mut |seen| {
            let first = seen[one.0].events[one.1].clone();
            let second = std::mem::replace(&mut seen[other.0].events[other.1], first);
            seen[one.0].events[one.1] = second;
        });
        let older = session.seen[one.0].events[one.1].clone();
        fault("an older event comes again", &mut |seen| {
            seen[other.0].events.push(older.clone());
        });
    }
    if message + 1 < session.seen.len() && session.seen[message].updated.is_none() {
        fault("a message with events is missing", &mut |seen| {
            seen.remove(message);
        });
    }
    let seen_of = |event: &Published| SeenEvent {
        position: event.position,
        id: event.id.clone(),
        address: event.address.clone(),
    };
    if let Start::After(place) = session.start
        && let Some(before) = published.iter().rev().find(|event| event.position <= place)
        && session.resumed
    {
        let before = seen_of(before);
        fault("an event from before the cursor comes", &mut |seen| seen[0].events.insert(0, before.clone()));
    }
    // In its place in the order, so that nothing but the filter is against it.
    let mut filter = &session.filter;
    let mut place = session.seen[0].cursor;
    for (message, seen) in session.seen.iter().enumerate() {
        let between = |event: &&Published| place < event.position && event.position <= seen.cursor;
        let unwanted = published.iter().filter(between).find(|event| !filter.wants(&event.address));
        if let Some(unwanted) = unwanted.map(seen_of) {
            fault("an event that was not asked for comes", &mut |seen| {
                let events = &mut seen[message].events;
                let at = events.partition_point(|event| event.position < unwanted.position);
                events.insert(at, unwanted.clone());
            });
            break;
        }
        place = seen.cursor;
        filter = seen.updated.and_then(|generation| session.updates.get(&generation)).unwrap_or(filter);
    }
    if let Some((message, twice)) =
        session.seen.iter().enumerate().find_map(|(at, seen)| Some((at, seen.ephemeral.first()?.clone())))
    {
        fault("an ephemeral event comes again", &mut |seen| seen[message].ephemeral.push(twice.clone()));
    }
    made
}
