//! Live streams against a model: subscribers that drop, resume, change their filters and lag at random while eight publishers
//! write, and each gets exactly what it asked for and may see, in the order of the log, without a gap, or is told of one.
//!
//! Some subscribers are applications with a key; the others are users with tokens, which they exchange for others on open streams,
//! also for such that may see less, and which are revoked under them.
//!
//! Each seed has topics, types and subjects of its own, so that many run on one server at once. `LIVE_SEED=7` runs only that
//! one, which is how to look at one that failed; `LIVE_SEEDS=2000` runs so many. The plan of a seed is in [`plan`], what is
//! held against what in [`check`]. After each seed its record is spoiled in every way that the checker is there to find.

mod check;
pub mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use switchboard::clock::ManualClock;
use switchboard::db::Target;
use switchboard::event::cursor::Cursor;
use switchboard_client::Client;
use switchboard_client::event::v1::{BatchPublishEventsRequest, PublishEventRequest, PublishEventResponse};
use switchboard_client::notification::v1::closing::Reason;
use switchboard_client::notification::v1::{
    CreateSubscriberTokenRequest, RefreshSubscriptionRequest, RevokeSubscriberTokensRequest,
    SubscribeRequest, SubscribeResponse, UpdateSubscriptionRequest,
};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use self::check::{Holder, Published, Seen, SeenEvent, Session, Start, check, faulty};
use self::plan::{Act, Address, Call, Dice, Filter, From, Plan, Script, Step, Token};
use crate::harness::{SOON, on_both, status};
use crate::live_many::UNLIMITED;

/// How many seeds run where nobody says how many.
const SEEDS: u64 = 60;
/// How many of them at once.
const AT_ONCE: usize = 8;
/// So little is under way to a subscriber before it has read: who does not read is soon behind.
const WINDOW: u32 = 4 * 1024;
/// How long the text in an event is, in bytes, and how long in one seed of four: enough there for a subscriber that does not
/// read to be behind in the server too, which has 64 KiB before the stream has to wait.
const FILLER: usize = 300;
const LONG_FILLER: usize = 8 * 1024;

/// The seeds to run.
fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match (number("LIVE_SEED"), number("LIVE_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(SEEDS)).collect(),
    }
}

on_both! {
    async fn each_subscriber_gets_what_it_asked_for_in_order_and_without_a_gap(
        server: Server = |config| config.set.extend(UNLIMITED.map(String::from))
    ) {
        // Where several nodes can share a database, they do.
        let other = match server.config.database {
            Target::Postgres(_) => Some(server.another_node().await),
            Target::Sqlite(_) => None,
        };
        let nodes = [Some(&server), other.as_ref()].into_iter().flatten();
        let nodes = nodes.map(Server::url).collect();
        let ground = Arc::new(Ground { nodes, key: server.key.reveal().into(), clock: Arc::clone(&server.clock) });
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut running = JoinSet::new();
        for seed in seeds() {
            let (ground, room) = (Arc::clone(&ground), Arc::clone(&room));
            running.spawn(async move {
                let _place = room.acquire_owned().await.unwrap();
                run_seed(seed, &ground).await
            });
        }
        let mut total = Counts::default();
        while let Some(outcome) = running.join_next().await {
            total.add(outcome.unwrap());
        }
        total.judge(seeds().len());
    }
}

/// Where a seed runs.
struct Ground {
    /// The addresses of the nodes.
    nodes: Vec<String>,
    /// The key of applications, and of whoever makes tokens.
    key: String,
    /// The servers' clock, which stands still.
    clock: Arc<ManualClock>,
}

/// What happened, in numbers: a run in which nothing happens proves nothing.
#[derive(Debug, Default)]
struct Counts {
    sessions: usize,
    resumed: usize,
    resyncs: usize,
    updates: usize,
    events: usize,
    ephemeral: usize,
    /// Streams that went on with another token, and those that ended because it may not see what they were about.
    refreshed: usize,
    lost: usize,
    /// Revocations with an open stream, and wishes that were refused.
    revoked: usize,
    denied: usize,
    /// Faults that were made, and found.
    faults: BTreeMap<&'static str, usize>,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.resumed += other.resumed;
        self.resyncs += other.resyncs;
        self.updates += other.updates;
        self.events += other.events;
        self.ephemeral += other.ephemeral;
        self.refreshed += other.refreshed;
        self.lost += other.lost;
        self.revoked += other.revoked;
        self.denied += other.denied;
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }

    fn judge(&self, seeds: usize) {
        eprintln!("{seeds} seeds: {self:?}");
        if seeds < 20 {
            return;
        }
        let happened = [self.sessions, self.resumed, self.resyncs, self.updates, self.events, self.ephemeral];
        let of_users = [self.refreshed, self.lost, self.revoked, self.denied];
        assert!(happened.iter().chain(&of_users).all(|&count| count >= seeds / 4), "{self:?}");
        assert_eq!(self.faults.len(), 8, "{self:?}");
        assert!(self.faults.values().all(|&count| count >= seeds / 4), "{self:?}");
    }
}

/// What the publishers and the subscribers of a seed share.
struct Seed {
    plan: Plan,
    /// A clock that only says what was before what.
    clock: AtomicU64,
    /// How many events are published, and the greatest position among them.
    progress: watch::Sender<(usize, i64)>,
}

impl Seed {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    async fn publish(&self, client: &Client, call: Call) -> Vec<Published> {
        let began = self.tick();
        let filler = "x".repeat(if self.plan.seed.is_multiple_of(4) { LONG_FILLER } else { FILLER });
        let request = |address: &Address| PublishEventRequest {
            event_type: address.event_type.clone(),
            topic: address.topic.clone(),
            subject: address.subject.clone(),
            data: format!(r#"{{"filler":"{filler}"}}"#),
            ..Default::default()
        };
        let addresses = match call {
            Call::Durable(addresses) => addresses,
            Call::Ephemeral(address) => {
                let request = PublishEventRequest { ephemeral: true, ..request(&address) };
                let response = client.events().publish_event(request).await.unwrap().into_inner();
                assert_eq!(response.cursor, "", "an ephemeral event has no place in the log");
                return Vec::new();
            }
        };
        let mut requests: Vec<PublishEventRequest> = addresses.iter().map(request).collect();
        let responses = match requests.len() {
            1 => vec![client.events().publish_event(requests.remove(0)).await.unwrap().into_inner()],
            _ => {
                let batch = BatchPublishEventsRequest { requests };
                client.events().batch_publish_events(batch).await.unwrap().into_inner().responses
            }
        };
        let published = |(response, address): (PublishEventResponse, Address)| Published {
            position: position(&response.cursor),
            id: response.event_id,
            address,
            began,
        };
        let published: Vec<Published> = responses.into_iter().zip(addresses).map(published).collect();
        let reached = published.iter().map(|event| event.position).max().unwrap();
        self.progress.send_modify(|(count, place)| {
            *count += published.len();
            *place = reached.max(*place);
        });
        published
    }
}

fn position(cursor: &str) -> i64 {
    Cursor::decode(cursor).unwrap_or_else(|| panic!("not a cursor: {cursor:?}")).position
}

/// A connection that takes little at a time.
async fn connection(url: &str) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap().tcp_nodelay(true);
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(1 << 20);
    endpoint.connect().await.unwrap()
}

fn client(connection: &Channel, key: &str) -> Client {
    Client::with_channel(connection.clone(), key).unwrap()
}

/// Runs a seed and checks it.
async fn run_seed(seed: u64, ground: &Arc<Ground>) -> Counts {
    let plan = Plan::new(seed);
    let shared = Arc::new(Seed { plan, clock: AtomicU64::new(0), progress: watch::Sender::new((0, 0)) });
    let mut connections = Vec::new();
    for node in &ground.nodes {
        connections.push(connection(node).await);
    }
    let clients: Vec<Client> = connections.iter().map(|one| client(one, &ground.key)).collect();
    let mut subscribing = JoinSet::new();
    for number in 0..shared.plan.subscribers.len() {
        let subscriber =
            Subscriber::new(Arc::clone(&shared), Arc::clone(ground), connections.clone(), number);
        subscribing.spawn(subscriber.run());
    }
    let mut publishing = JoinSet::new();
    for (number, calls) in shared.plan.publishers.iter().cloned().enumerate() {
        let (shared, client) = (Arc::clone(&shared), clients[number % clients.len()].clone());
        publishing.spawn(async move {
            let mut published = Vec::new();
            for call in calls {
                published.extend(shared.publish(&client, call).await);
            }
            published
        });
    }
    let mut published: Vec<Published> = publishing.join_all().await.into_iter().flatten().collect();
    published.extend(shared.publish(&clients[0], Call::Durable(vec![shared.plan.last()])).await);
    published.sort_by_key(|event| event.position);
    let end = published.last().unwrap().position;

    let mut counts = Counts::default();
    let mut dice = Dice::new(!seed);
    for (sessions, of_users) in subscribing.join_all().await {
        counts.add(of_users);
        let reached = sessions.last().map_or(0, Session::reached);
        assert!(
            reached >= end,
            "seed {seed}: the last stream ends at {reached}, before {end}\n{}",
            shared.plan
        );
        for session in &sessions {
            if let Err(wrong) = check(&published, session) {
                let Session { start, updates, holders, .. } = session;
                panic!("seed {seed}: {wrong}\n{start:?}, {updates:?}\n{holders:?}\n{}", shared.plan);
            }
            for faulty in faulty(&published, session, &mut dice) {
                let found = check(&published, &faulty.session).is_err();
                assert!(
                    found,
                    "seed {seed}: {} and the checker is content\n{:?}",
                    faulty.fault, faulty.session
                );
                *counts.faults.entry(faulty.fault).or_default() += 1;
            }
            counts.sessions += 1;
            counts.resumed += usize::from(session.resumed);
            counts.resyncs += session.seen.iter().filter(|seen| seen.resync).count();
            counts.updates += session.seen.iter().filter(|seen| seen.updated.is_some()).count();
            counts.events += session.events();
            counts.ephemeral += session.seen.iter().map(|seen| seen.ephemeral.len()).sum::<usize>();
        }
    }
    counts
}

/// A subscriber, with what it has seen.
struct Subscriber {
    shared: Arc<Seed>,
    ground: Arc<Ground>,
    connections: Vec<Channel>,
    steps: Vec<Step>,
    dice: Dice,
    /// The user's token, and its text.
    token: Option<(Token, String)>,
    open: Option<Open>,
    /// Why the open stream is to end.
    ends: Option<Reason>,
    filter: Filter,
    /// The places where it was, last first of all in the end.
    places: Vec<String>,
    done: Vec<Session>,
    counts: Counts,
}

/// An open stream.
struct Open {
    stream: Streaming<SubscribeResponse>,
    /// The node that has it.
    client: Client,
    id: String,
    generation: i64,
    reading: bool,
    session: Session,
}

impl Subscriber {
    fn new(shared: Arc<Seed>, ground: Arc<Ground>, connections: Vec<Channel>, number: usize) -> Self {
        let plan = &shared.plan;
        let Script { token, steps } = plan.subscribers[number].clone();
        let token = token.map(|token| (token, String::new()));
        let dice = Dice::new(plan.seed ^ (number as u64 + 1) << 32);
        let (filter, places, done, counts) = Default::default();
        Self {
            shared,
            ground,
            connections,
            steps,
            dice,
            token,
            open: None,
            ends: None,
            filter,
            places,
            done,
            counts,
        }
    }

    async fn run(mut self) -> (Vec<Session>, Counts) {
        if let Some((token, _)) = self.token.take() {
            self.take(token).await;
        }
        for Step { at, act } in std::mem::take(&mut self.steps) {
            self.until(at).await;
            self.act(act).await;
        }
        // After the last event, to where the log ends then.
        self.until(self.shared.plan.events() + 1).await;
        let end = self.shared.progress.borrow().1;
        let reading_on = async {
            loop {
                match &mut self.open {
                    None => self.subscribe(self.filter.clone(), From::Last).await,
                    Some(open) if open.session.reached() >= end => return,
                    Some(open) => {
                        open.reading = true;
                        let message = open.stream.message().await;
                        self.saw(message);
                    }
                }
            }
        };
        let in_time = tokio::time::timeout(SOON, reading_on).await.is_ok();
        assert!(in_time, "the end of the log does not come\n{}", self.shared.plan);
        self.close();
        (self.done, self.counts)
    }

    /// A client of the application, at any node.
    fn application(&mut self) -> Client {
        client(&self.dice.pick(&self.connections), &self.ground.key)
    }

    /// This subscriber, at any node.
    fn own(&mut self) -> Client {
        let key = self.token.as_ref().map_or(&self.ground.key, |(_, text)| text);
        client(&self.dice.pick(&self.connections), key)
    }

    /// Has this token from now on.
    async fn take(&mut self, token: Token) {
        let Token { user_id, topics, event_types } = token.clone();
        let request = CreateSubscriberTokenRequest { user_id, topics, event_types, ..Default::default() };
        let made = self.application().notifications().create_subscriber_token(request).await.unwrap();
        self.token = Some((token, made.into_inner().token));
    }

    /// Whether what it asks for is more than its token has.
    fn asks_too_much(&self, filter: &Filter) -> bool {
        self.token.as_ref().is_some_and(|(token, _)| !token.covers(filter))
    }

    /// Asks for no more than it may see.
    fn ask_for_less(&mut self) {
        if self.asks_too_much(&self.filter) {
            self.filter = Filter::default();
        }
    }

    /// Goes on with another token, which may not be enough for what the open stream is about.
    async fn refresh(&mut self, token: Token) {
        self.take(token.clone()).await;
        let own = self.own();
        let Some(open) = &mut self.open else { return self.ask_for_less() };
        let request = RefreshSubscriptionRequest { subscription_id: open.id.clone() };
        let messages = open.session.seen.len();
        // A node that is asked by way of another one may be busy; the call can be repeated.
        while let Err(refused) = own.notifications().refresh_subscription(request.clone()).await {
            assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        }
        let answered = self.shared.tick();
        open.session.holders.push(Holder { token: Some(token), messages, answered });
        self.counts.refreshed += 1;
        if self.asks_too_much(&self.filter) {
            self.counts.lost += 1;
            self.until_it_ends(Reason::PermissionLost).await;
            self.ask_for_less();
        }
    }

    /// All tokens of the user end, and so does the stream; another token is made.
    async fn revoke(&mut self, token: Token) {
        let request = RevokeSubscriberTokensRequest { user_id: token.user_id.clone() };
        self.application().notifications().revoke_subscriber_tokens(request).await.unwrap();
        // What is made at the same instant has ended too.
        self.ground.clock.advance(Duration::from_micros(1));
        if self.open.is_some() {
            self.counts.revoked += 1;
            self.until_it_ends(Reason::KeyEnded).await;
        }
        self.take(token).await;
        self.ask_for_less();
    }

    async fn until_it_ends(&mut self, reason: Reason) {
        self.ends = Some(reason);
        let reading = async {
            while let Some(open) = &mut self.open {
                let message = open.stream.message().await;
                self.saw(message);
            }
        };
        let in_time = tokio::time::timeout(SOON, reading).await.is_ok();
        assert!(in_time && self.ends.is_none(), "it does not end with {reason:?}\n{}", self.shared.plan);
    }

    /// Reads, if it does, until so many events are published.
    async fn until(&mut self, count: usize) {
        let mut progress = self.shared.progress.subscribe();
        loop {
            let message = match self.open.as_mut().filter(|open| open.reading) {
                None => return drop(progress.wait_for(|(published, _)| *published >= count).await.unwrap()),
                Some(open) => tokio::select! {
                    reached = progress.wait_for(|(published, _)| *published >= count) => {
                        return drop(reached.unwrap());
                    }
                    message = open.stream.message() => message,
                },
            };
            self.saw(message);
        }
    }

    async fn act(&mut self, act: Act) {
        match (act, &mut self.open) {
            (Act::Subscribe(filter, from), _) => self.subscribe(filter, from).await,
            (Act::Drop, _) => self.close(),
            (Act::Lag, Some(open)) => open.reading = false,
            (Act::Read, Some(open)) => open.reading = true,
            (Act::Refresh(token), _) => self.refresh(token).await,
            (Act::Revoke(token), _) => self.revoke(token).await,
            (Act::Update(filter), Some(_)) => self.update(filter).await,
            (Act::Lag | Act::Read | Act::Update(_), None) => {}
        }
    }

    async fn update(&mut self, filter: Filter) {
        let denied = self.asks_too_much(&filter);
        let Some(open) = &mut self.open else { return };
        open.generation += 1;
        let request = UpdateSubscriptionRequest {
            subscription_id: open.id.clone(),
            generation: open.generation,
            event_types: filter.event_types.clone(),
            subjects: filter.subjects.clone(),
            topics: filter.topics.clone(),
        };
        let answer = open.client.notifications().update_subscription(request).await;
        if denied {
            status::expect(&answer.unwrap_err(), Code::PermissionDenied, "TOPIC_DENIED");
            self.counts.denied += 1;
            return;
        }
        assert_eq!(answer.unwrap().into_inner().generation, open.generation);
        open.session.updates.insert(open.generation, filter.clone());
        self.filter = filter;
    }

    async fn subscribe(&mut self, filter: Filter, from: From) {
        self.close();
        let cursor = match from {
            From::Now => String::new(),
            From::Last => self.places.last().cloned().unwrap_or_default(),
            From::Earlier(_) if self.places.is_empty() => String::new(),
            From::Earlier(number) => self.places[number % self.places.len()].clone(),
            From::Foreign => Cursor { epoch: 4_711, position: 1 }.encode(),
        };
        let start = match from {
            From::Foreign => Start::Foreign,
            _ if cursor.is_empty() => Start::Now { reached: self.shared.progress.borrow().1 },
            _ => Start::After(position(&cursor)),
        };
        let denied = self.asks_too_much(&filter);
        let client = self.own();
        let request = SubscribeRequest {
            event_types: filter.event_types.clone(),
            subjects: filter.subjects.clone(),
            topics: filter.topics.clone(),
            cursor,
            heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..Default::default()
        };
        let answer = client.notifications().subscribe(request).await;
        if denied {
            status::expect(&answer.unwrap_err(), Code::PermissionDenied, "TOPIC_DENIED");
            self.counts.denied += 1;
            return;
        }
        let mut stream = answer.unwrap().into_inner();
        let first = tokio::time::timeout(SOON, stream.message()).await;
        let first = first.expect("a first message in time").unwrap().expect("a first message");
        let opened = first.opened.clone().unwrap_or_else(|| panic!("no greeting: {first:?}"));
        let session = Session {
            start,
            resumed: opened.resumed,
            opened: self.shared.tick(),
            filter: filter.clone(),
            updates: BTreeMap::new(),
            holders: vec![Holder {
                token: self.token.clone().map(|(token, _)| token),
                messages: 0,
                answered: 0,
            }],
            seen: Vec::new(),
        };
        self.filter = filter;
        let id = opened.subscription_id;
        self.open = Some(Open { stream, client, id, generation: 0, reading: true, session });
        self.saw(Ok(Some(first)));
    }

    fn saw(&mut self, message: Result<Option<SubscribeResponse>, tonic::Status>) {
        let Some(open) = &mut self.open else { return };
        let message = match message {
            Ok(Some(message)) => message,
            // What it has lies before its last cursor: it comes back from there.
            Ok(None) => return self.close(),
            Err(error) => panic!("a stream failed: {error:?}"),
        };
        let mut seen = Seen {
            cursor: position(&message.cursor),
            resync: message.resync.is_some(),
            updated: message.updated.map(|updated| updated.generation),
            ..Seen::default()
        };
        for event in message.events {
            let (id, cursor) = (event.id, event.cursor);
            let address =
                Address { topic: event.topic, event_type: event.event_type, subject: event.subject };
            if !self.shared.plan.has(&address) {
                // Another seed's, on the topic that everybody has; or how full the user's own inbox is.
                let token = self.token.as_ref().map(|(token, _)| token);
                let counts = address.event_type == "notification.counts" && cursor.is_empty();
                let own = token.is_some_and(|token| address.topic == format!("user:{}", token.user_id));
                let everybody = token.is_some() && address.topic == "broadcast";
                assert!(everybody || counts && own, "{address:?}");
            } else if cursor.is_empty() {
                seen.ephemeral.push((id, address));
            } else {
                seen.events.push(SeenEvent { position: position(&cursor), id, address });
            }
        }
        let ends = message.closing.is_some();
        if let Some(closing) = message.closing {
            let expected = self.ends.take_if(|reason| *reason == closing.reason()).is_some();
            assert!(expected || closing.reconnect, "{closing:?}\n{}", self.shared.plan);
        }
        open.session.seen.push(seen);
        self.places.push(message.cursor);
        if ends {
            self.close();
        }
    }

    fn close(&mut self) {
        self.done.extend(self.open.take().map(|open| open.session));
    }
}
