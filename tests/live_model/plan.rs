//! What happens in one seed: what is published, and what each subscriber does meanwhile.
//!
//! Everything here follows from the seed. What does not is when the server does what it does, so that the same seed may go
//! another way the next time; the steps are tied to how much has been published, which keeps that within bounds.

use std::fmt;

/// Chance that can be had again (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The dice of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// Whether it happens, once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// Where an event goes and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub topic: String,
    pub event_type: String,
    pub subject: String,
}

/// What a subscriber asks for, and what an event must be for it: an empty list asks for nothing in particular.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    pub topics: Vec<String>,
    pub event_types: Vec<String>,
    pub subjects: Vec<String>,
}

/// What a user's token has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub user_id: String,
    pub topics: Vec<String>,
    pub event_types: Vec<String>,
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

/// Whether one of the patterns matches, or there is none.
fn any(patterns: &[String], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name))
}

impl Filter {
    /// Whether somebody who asks for this gets events like this: with a key, or with a token. Written down from the contract, not
    /// from the server.
    pub fn wants(&self, address: &Address, token: Option<&Token>) -> bool {
        let own = token.is_some_and(|token| token.own_topic() == address.topic);
        (own || any(&self.topics, &address.topic))
            && any(&self.event_types, &address.event_type)
            && (self.subjects.is_empty() || self.subjects.contains(&address.subject))
            && token.is_none_or(|token| token.shows(address))
    }
}

impl Token {
    /// The user's own topic.
    pub fn own_topic(&self) -> String {
        format!("user:{}", self.user_id)
    }

    /// Whether its user may see such an event. From the contract, as the next.
    fn shows(&self, address: &Address) -> bool {
        let theirs = address.topic == self.own_topic() || address.topic == BROADCAST;
        let notification = address.event_type.starts_with("notification.");
        (theirs || self.topics.iter().any(|granted| matches(granted, &address.topic)))
            && (any(&self.event_types, &address.event_type) || theirs && notification)
    }

    /// Whether its user may ask for this.
    pub fn covers(&self, filter: &Filter) -> bool {
        filter.topics.iter().all(|asked| self.covers_topic(asked))
    }

    fn covers_topic(&self, asked: &str) -> bool {
        // All that begins with `a:b:` begins with `a:`, and nothing that is asked for has a star elsewhere.
        let granted = |granted: &String| match granted.strip_suffix('*') {
            Some(beginning) => asked.starts_with(beginning),
            None => granted == asked,
        };
        asked == self.own_topic() || asked == BROADCAST || self.topics.iter().any(granted)
    }
}

/// From where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// From what happens next.
    Now,
    /// From where this subscriber was last.
    Last,
    /// From one of the places where this subscriber was before: the number picks one.
    Earlier(usize),
    /// From a place of another database.
    Foreign,
}

/// What a subscriber does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Opens a stream, in the place of the one that it has.
    Subscribe(Filter, From),
    /// Goes away.
    Drop,
    /// Leaves the stream open and does not read.
    Lag,
    /// Reads on.
    Read,
    /// Changes what the open stream is about.
    Update(Filter),
    /// Goes on with another token of the same user.
    Refresh(Token),
    /// Has all tokens of the user ended, and goes on with this one.
    Revoke(Token),
}

/// A subscriber: an application with a key, or a user with a token; and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The user's first token.
    pub token: Option<Token>,
    /// What it does.
    pub steps: Vec<Step>,
}

/// What a subscriber does once so many events have been published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// So many.
    pub at: usize,
    /// What.
    pub act: Act,
}

/// What a publisher publishes at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Events of the log: one, or several in one transaction.
    Durable(Vec<Address>),
    /// An event for those who are there.
    Ephemeral(Address),
}

/// Everything in one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What each publisher publishes, call by call.
    pub publishers: Vec<Vec<Call>>,
    /// What each subscriber does.
    pub subscribers: Vec<Script>,
}

const PUBLISHERS: usize = 8;
const APPLICATIONS: usize = 2;
const USERS: usize = 2;
const STEPS: usize = 7;
const BROADCAST: &str = "broadcast";

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let names = Names(seed);
        let calls = |dice: &mut Dice| {
            let mut calls = Vec::new();
            for _ in 0..2 + dice.below(3) {
                let size = if dice.once_in(4) { 2 + dice.below(4) } else { 1 };
                calls.push(Call::Durable((0..size).map(|_| names.address(dice)).collect()));
                if dice.once_in(3) {
                    calls.push(Call::Ephemeral(names.address(dice)));
                }
            }
            calls
        };
        let publishers = (0..PUBLISHERS).map(|_| calls(&mut dice)).collect();
        let mut plan = Self { seed, publishers, subscribers: Vec::new() };
        let events = plan.events();
        let applications = (0..APPLICATIONS).map(|_| application(&mut dice, names, events));
        plan.subscribers = applications.collect();
        plan.subscribers.extend((0..USERS).map(|number| user(&mut dice, names, events, number)));
        plan
    }

    /// How many events the publishers put into the log.
    pub fn events(&self) -> usize {
        let durable = |call: &Call| if let Call::Durable(addresses) = call { addresses.len() } else { 0 };
        self.publishers.iter().flatten().map(durable).sum()
    }

    /// The event after all others, which everybody wants.
    pub fn last(&self) -> Address {
        Names(self.seed).last()
    }

    /// Whether it is about an event of this seed: everybody's topic has those of others.
    pub fn has(&self, address: &Address) -> bool {
        address.subject.starts_with(&format!("s{}:", self.seed))
    }
}

fn times(dice: &mut Dice, events: usize) -> Vec<usize> {
    let mut at: Vec<usize> = (0..STEPS).map(|_| dice.below(events)).collect();
    at.sort_unstable();
    at
}

fn from(dice: &mut Dice) -> From {
    match dice.below(8) {
        0 => From::Now,
        1 => From::Foreign,
        2 | 3 => From::Earlier(dice.below(1_000)),
        _ => From::Last,
    }
}

fn application(dice: &mut Dice, names: Names, events: usize) -> Script {
    let mut steps = vec![Step { at: 0, act: Act::Subscribe(names.filter(dice), From::Now) }];
    for at in times(dice, events) {
        let act = match dice.below(10) {
            0 | 1 => Act::Drop,
            2 => Act::Lag,
            3 => Act::Read,
            4..=6 => Act::Update(names.filter(dice)),
            _ => Act::Subscribe(names.filter(dice), from(dice)),
        };
        steps.push(Step { at, act });
    }
    Script { token: None, steps }
}

fn user(dice: &mut Dice, names: Names, events: usize, number: usize) -> Script {
    let first = names.token(dice, number);
    let mut token = first.clone();
    let act = Act::Subscribe(names.filter_of_user(dice, &token), From::Now);
    let mut steps = vec![Step { at: 0, act }];
    for at in times(dice, events) {
        let act = match dice.below(12) {
            0 => Act::Drop,
            1 => Act::Lag,
            2 => Act::Read,
            3 | 4 => Act::Update(names.filter_of_user(dice, &token)),
            5..=7 => {
                token = names.token(dice, number);
                Act::Refresh(token.clone())
            }
            8 => {
                token = names.token(dice, number);
                Act::Revoke(token.clone())
            }
            _ => Act::Subscribe(names.filter_of_user(dice, &token), from(dice)),
        };
        steps.push(Step { at, act });
    }
    Script { token: Some(first), steps }
}

/// Names that belong to one seed, so that many share a server.
#[derive(Debug, Clone, Copy)]
struct Names(u64);

impl Names {
    fn last(self) -> Address {
        let Self(seed) = self;
        Address {
            topic: format!("s{seed}:last"),
            event_type: format!("s{seed}.last"),
            subject: format!("s{seed}:last"),
        }
    }

    fn address(self, dice: &mut Dice) -> Address {
        let Self(seed) = self;
        let topic = match dice.below(6) {
            0 => format!("user:{}", self.user_id(dice.below(USERS))),
            1 => BROADCAST.to_owned(),
            _ => format!("s{seed}:{}", dice.pick(&["a", "a:x", "b", "c:y"])),
        };
        // Not `notification` itself, which would go to inboxes.
        let event_type = if dice.once_in(4) {
            format!("notification.s{seed}")
        } else {
            format!("s{seed}.{}", dice.pick(&["a", "a.x", "b"]))
        };
        Address { topic, event_type, subject: format!("s{seed}:{}", dice.pick(&["1", "2", "3"])) }
    }

    fn user_id(self, number: usize) -> String {
        format!("s{}-{number}", self.0)
    }

    fn token(self, dice: &mut Dice, number: usize) -> Token {
        let Self(seed) = self;
        let last = self.last();
        let topics = ["a", "a:x", "a:*", "b", "c:*", "c:y", "*"];
        let mut granted: Vec<String> =
            (0..2 + dice.below(3)).map(|_| format!("s{seed}:{}", dice.pick(&topics))).collect();
        granted.push(last.topic);
        let mut event_types = Vec::new();
        if dice.once_in(2) {
            let types = ["a", "a.*", "a.x", "b"];
            event_types = (0..=dice.below(2)).map(|_| format!("s{seed}.{}", dice.pick(&types))).collect();
            event_types.push(last.event_type);
        }
        Token { user_id: self.user_id(number), topics: granted, event_types }
    }

    /// What a user asks for: mostly what they may see.
    fn filter_of_user(self, dice: &mut Dice, token: &Token) -> Filter {
        let Self(seed) = self;
        let mut filter = self.filter(dice);
        let names = ["a", "a:x", "a:*", "b", "c:*", "c:y", "*"];
        let mut topics: Vec<String> = names.iter().map(|name| format!("s{seed}:{name}")).collect();
        topics.extend([token.own_topic(), BROADCAST.to_owned()]);
        let too_much = dice.once_in(4);
        topics.retain(|topic| too_much || token.covers_topic(topic));
        filter.topics.clear();
        if !dice.once_in(3) {
            filter.topics = (0..=dice.below(2)).map(|_| dice.pick(&topics)).collect();
            filter.topics.push(self.last().topic);
        }
        if !filter.event_types.is_empty() && dice.once_in(2) {
            filter.event_types.push("notification.*".into());
        }
        filter
    }

    fn filter(self, dice: &mut Dice) -> Filter {
        let Self(seed) = self;
        let list = |dice: &mut Dice, names: &[&str], separator: char| -> Vec<String> {
            if dice.once_in(3) {
                return Vec::new();
            }
            (0..=dice.below(2)).map(|_| format!("s{seed}{separator}{}", dice.pick(names))).collect()
        };
        let mut filter = Filter {
            topics: list(dice, &["a", "a:x", "a:*", "b", "c:*", "c:y", "*"], ':'),
            event_types: list(dice, &["a", "a.*", "a.x", "b", "*"], '.'),
            subjects: list(dice, &["1", "2", "3"], ':'),
        };
        if filter == Filter::default() {
            // Of this seed, whatever it is.
            filter.topics.push(format!("s{seed}:*"));
        }
        let last = self.last();
        for (list, last) in [
            (&mut filter.topics, last.topic),
            (&mut filter.event_types, last.event_type),
            (&mut filter.subjects, last.subject),
        ] {
            if !list.is_empty() {
                list.push(last);
            }
        }
        filter
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} events", self.seed, self.events())?;
        for (number, Script { token, steps }) in self.subscribers.iter().enumerate() {
            writeln!(f, "  subscriber {number}: {token:?}")?;
            for Step { at, act } in steps {
                writeln!(f, "  subscriber {number} at {at}: {act:?}")?;
            }
        }
        Ok(())
    }
}
