//! Live streams against a model: subscribers that drop, resume, change their filters and lag at random while eight publishers
//! write, and each gets exactly what it asked for, in the order of the log, without a gap, or is told of one.
//!
//! Each seed has topics, types and subjects of its own, so that many run on one server at once. `LIVE_SEED=7` runs only that
//! one, which is how to look at one that failed; `LIVE_SEEDS=2000` runs so many. The plan of a seed is in [`plan`], what is
//! held against what in [`check`]. After each seed its record is spoiled in every way that the checker is there to find.

mod check;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use switchboard::db::Target;
use switchboard::event::cursor::Cursor;
use switchboard_client::Client;
use switchboard_client::event::v1::{BatchPublishEventsRequest, PublishEventRequest, PublishEventResponse};
use switchboard_client::notification::v1::{SubscribeRequest, SubscribeResponse, UpdateSubscriptionRequest};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tonic::Streaming;
use tonic::transport::Endpoint;

use self::check::{Published, Seen, SeenEvent, Session, Start, check, faulty};
use self::plan::{Act, Address, Call, Dice, Filter, From, Plan, Step};
use crate::harness::{SOON, on_both};
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
        let nodes: Arc<[String]> = nodes.map(Server::url).collect();
        let key: Arc<str> = server.key.reveal().into();
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut running = JoinSet::new();
        for seed in seeds() {
            let (nodes, key, room) = (Arc::clone(&nodes), Arc::clone(&key), Arc::clone(&room));
            running.spawn(async move {
                let _place = room.acquire_owned().await.unwrap();
                run_seed(seed, &nodes, &key).await
            });
        }
        let mut total = Counts::default();
        while let Some(outcome) = running.join_next().await {
            total.add(outcome.unwrap());
        }
        total.judge(seeds().len());
    }
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
        assert!(happened.iter().all(|&count| count >= seeds / 4), "{self:?}");
        assert_eq!(self.faults.len(), 7, "{self:?}");
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

/// A client that takes little at a time.
async fn client(url: &str, key: &str) -> Client {
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap().tcp_nodelay(true);
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(1 << 20);
    Client::with_channel(endpoint.connect().await.unwrap(), key).unwrap()
}

/// Runs a seed and checks it.
async fn run_seed(seed: u64, nodes: &[String], key: &str) -> Counts {
    let plan = Plan::new(seed);
    let shared = Arc::new(Seed { plan, clock: AtomicU64::new(0), progress: watch::Sender::new((0, 0)) });
    let mut clients = Vec::new();
    for node in nodes {
        clients.push(client(node, key).await);
    }
    let mut subscribing = JoinSet::new();
    for number in 0..shared.plan.subscribers.len() {
        let subscriber = Subscriber::new(Arc::clone(&shared), clients.clone(), number);
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
    for sessions in subscribing.join_all().await {
        let reached = sessions.last().map_or(0, Session::reached);
        assert!(
            reached >= end,
            "seed {seed}: the last stream ends at {reached}, before {end}\n{}",
            shared.plan
        );
        for session in &sessions {
            if let Err(wrong) = check(&published, session) {
                panic!("seed {seed}: {wrong}\n{:?}, {:?}\n{}", session.start, session.updates, shared.plan);
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
    clients: Vec<Client>,
    steps: Vec<Step>,
    dice: Dice,
    open: Option<Open>,
    filter: Filter,
    /// The places where it was, last first of all in the end.
    places: Vec<String>,
    done: Vec<Session>,
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
    fn new(shared: Arc<Seed>, clients: Vec<Client>, number: usize) -> Self {
        let plan = &shared.plan;
        let steps = plan.subscribers[number].clone();
        let dice = Dice::new(plan.seed ^ (number as u64 + 1) << 32);
        let (filter, places, done) = Default::default();
        Self { steps, clients, dice, open: None, filter, places, done, shared }
    }

    async fn run(mut self) -> Vec<Session> {
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
        self.done
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
            (Act::Update(filter), Some(open)) => {
                open.generation += 1;
                let request = UpdateSubscriptionRequest {
                    subscription_id: open.id.clone(),
                    generation: open.generation,
                    event_types: filter.event_types.clone(),
                    subjects: filter.subjects.clone(),
                    topics: filter.topics.clone(),
                };
                let answer = open.client.notifications().update_subscription(request).await;
                assert_eq!(answer.unwrap().into_inner().generation, open.generation);
                open.session.updates.insert(open.generation, filter.clone());
                self.filter = filter;
            }
            (Act::Lag | Act::Read | Act::Update(_), None) => {}
        }
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
        let client = self.dice.pick(&self.clients);
        let request = SubscribeRequest {
            event_types: filter.event_types.clone(),
            subjects: filter.subjects.clone(),
            topics: filter.topics.clone(),
            cursor,
            heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..Default::default()
        };
        let mut stream = client.notifications().subscribe(request).await.unwrap().into_inner();
        let first = tokio::time::timeout(SOON, stream.message()).await;
        let first = first.expect("a first message in time").unwrap().expect("a first message");
        let opened = first.opened.clone().unwrap_or_else(|| panic!("no greeting: {first:?}"));
        let session = Session {
            start,
            resumed: opened.resumed,
            opened: self.shared.tick(),
            filter: filter.clone(),
            updates: BTreeMap::new(),
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
            if cursor.is_empty() {
                seen.ephemeral.push((id, address));
            } else {
                seen.events.push(SeenEvent { position: position(&cursor), id, address });
            }
        }
        let ends = message.closing.is_some();
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
