//! Holds what a subscriber saw against what was published.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{Address, Dice, Filter, Token};

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

/// Whose stream it is from some time on: of whom a key has, or of a user with this token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The user's token.
    pub token: Option<Token>,
    /// How many messages had come when it was asked for: it is not so in any of these.
    pub messages: usize,
    /// When it was answered, by the clock of the seed: it is so for everything that was published later.
    pub answered: u64,
}

impl Holder {
    fn wants(&self, filter: &Filter, address: &Address) -> bool {
        filter.wants(address, self.token.as_ref())
    }
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
    /// Who had it, one after the other.
    pub holders: Vec<Holder>,
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

    /// Whether everybody who had it wants such an event.
    fn always_wants(&self, filter: &Filter, address: &Address) -> bool {
        self.holders.iter().all(|holder| holder.wants(filter, address))
    }

    /// Whether nobody who had it wants such an event.
    fn never_wants(&self, filter: &Filter, address: &Address) -> bool {
        !self.holders.iter().any(|holder| holder.wants(filter, address))
    }
}

/// Which of its holders a stream may have at a place: nothing in it says when it goes over from one to the next.
struct Possible<'a> {
    session: &'a Session,
    holders: Vec<bool>,
}

impl<'a> Possible<'a> {
    fn new(session: &'a Session) -> Self {
        let holders = (0..session.holders.len()).map(|number| number == 0).collect();
        Self { session, holders }
    }

    /// It may go over to those who were asked for before this message came.
    fn go_on(&mut self, message: usize) {
        let first = self.holders.iter().position(|&possible| possible).unwrap_or(self.holders.len());
        for (possible, holder) in self.holders.iter_mut().zip(&self.session.holders).skip(first) {
            *possible |= holder.messages <= message;
        }
    }

    /// What was published at this time is not for those who had been replaced before.
    fn not_before(&mut self, began: u64) {
        let replaced = |holder: &Holder| holder.answered < began;
        let last = self.session.holders.iter().rposition(replaced).unwrap_or_default();
        self.holders[..last].fill(false);
    }

    /// An event came, or did not.
    fn retain(&mut self, filter: &Filter, address: &Address, comes: bool) -> bool {
        for (possible, holder) in self.holders.iter_mut().zip(&self.session.holders) {
            *possible &= holder.wants(filter, address) == comes;
        }
        self.holders.contains(&true)
    }

    fn may_want(&self, filter: &Filter, address: &Address) -> bool {
        let mut holders = self.holders.iter().zip(&self.session.holders);
        holders.any(|(&possible, holder)| possible && holder.wants(filter, address))
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
    let mut possible = Possible::new(session);
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
        let mut left = seen.events.iter().peekable();
        for event in due {
            possible.go_on(number);
            possible.not_before(event.began);
            let same = |seen: &&SeenEvent| {
                seen.position == event.position && seen.id == event.id && seen.address == event.address
            };
            let comes = left.next_if(same).is_some();
            if !possible.retain(filter, &event.address, comes) {
                return Err(format!("{}\nafter {place}: {event:?}", wrong("it has not what is due")));
            }
        }
        if left.next().is_some() {
            return Err(wrong("it has what is not due"));
        }
        place = seen.cursor;
        possible.go_on(number);
        for (id, address) in &seen.ephemeral {
            if !possible.may_want(filter, address) || !ephemeral.insert(id) {
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

/// What each message of a stream is about.
fn filters(session: &Session) -> Vec<&Filter> {
    let mut filter = &session.filter;
    let of = |seen: &Seen| {
        let of_this = filter;
        filter = seen.updated.and_then(|generation| session.updates.get(&generation)).unwrap_or(filter);
        of_this
    };
    session.seen.iter().map(of).collect()
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
    // Of what only some of the holders see nobody can say that it must come.
    let filters = filters(session);
    let certain = |&(message, event): &(usize, usize)| {
        session.always_wants(filters[message], &session.seen[message].events[event].address)
    };
    let certain: Vec<(usize, usize)> = places.iter().copied().filter(certain).collect();
    if !certain.is_empty() {
        let (message, event) = dice.pick(&certain);
        fault("one event is missing", &mut |seen| {
            seen[message].events.remove(event);
        });
        if message + 1 < session.seen.len() && session.seen[message].updated.is_none() {
            fault("a message with events is missing", &mut |seen| {
                seen.remove(message);
            });
        }
    }
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
    let reasons = [
        ("an event that was not asked for comes", false),
        ("an event that the token does not have comes", true),
    ];
    for (what, asked) in reasons {
        let mut place = session.seen[0].cursor;
        for (message, seen) in session.seen.iter().enumerate() {
            let filter = filters[message];
            let between = |event: &&Published| place < event.position && event.position <= seen.cursor;
            let unwanted = published.iter().filter(between).find(|event| {
                session.never_wants(filter, &event.address) && filter.wants(&event.address, None) == asked
            });
            if let Some(unwanted) = unwanted.map(seen_of) {
                fault(what, &mut |seen| {
                    let events = &mut seen[message].events;
                    let at = events.partition_point(|event| event.position < unwanted.position);
                    events.insert(at, unwanted.clone());
                });
                break;
            }
            place = seen.cursor;
        }
    }
    if let Some((message, twice)) =
        session.seen.iter().enumerate().find_map(|(at, seen)| Some((at, seen.ephemeral.first()?.clone())))
    {
        fault("an ephemeral event comes again", &mut |seen| seen[message].ephemeral.push(twice.clone()));
    }
    made
}
