//! Two nodes on one PostgreSQL: what is published at one reaches who listens at the other, and a node that is killed
//! costs its subscribers nothing that was promised.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use switchboard::clock::{Clock, SharedClock, SystemClock};
use switchboard::config::Config;
use switchboard::db::hint::{Hint, Hints};
use switchboard::db::{Db, Target};
use switchboard::delivery::Node;
use switchboard::error::{Error, Kind};
use switchboard::event::Fact;
use switchboard::event::ephemeral::Ephemeral;
use switchboard::notification::cluster::mailbox::{Carry, Mailbox};
use switchboard::notification::cluster::relay::Relay;
use switchboard::secret::SystemRandom;
use switchboard_client::Client;
use switchboard_client::event::v1::PublishEventRequest;
use switchboard_client::notification::v1::{
    RefreshSubscriptionRequest, SubscribeRequest, SubscribeResponse, UpdateSubscriptionRequest,
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::crash::Ground;
use crate::harness::server::{Backend, Server, event};
use crate::harness::{SOON, eventually, postgres, status};
use crate::live::{after, events, subscribe};

fn numbered(n: usize) -> String {
    format!(r#"{{"n":{n}}}"#)
}

fn without_hints(config: &mut Config) {
    config.hints = false;
}

/// Durable events of both nodes reach subscribers of both in one order.
async fn durable_events_cross(one: &Server, other: &Server) {
    let (mut at_one, _) = subscribe(&one.client, SubscribeRequest::default()).await;
    let (mut at_other, _) = subscribe(&other.client, SubscribeRequest::default()).await;
    let publish = |client: Client| async move {
        for n in 0..40 {
            client.events().publish_event(event("a.b", &numbered(n))).await.unwrap();
        }
    };
    tokio::join!(publish(one.client.clone()), publish(other.client.clone()));
    let (one_saw, other_saw) = tokio::join!(events(&mut at_one, 80), events(&mut at_other, 80));
    assert_eq!(one_saw, other_saw);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_alone_is_enough() {
    let one = Server::start_with(Backend::Postgres, without_hints).await;
    let other = one.another_node().await;
    durable_events_cross(&one, &other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_at_one_node_reaches_the_other() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    durable_events_cross(&one, &other).await;
}

/// A node hears the hints of others and not its own, also after its connection was cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_are_heard_by_the_others_and_come_back_after_a_cut() {
    let url = postgres::fresh_database().await;
    let db = Db::open(&Target::Postgres(url.clone())).await.unwrap();
    let stop = CancellationToken::new();
    let start = || {
        let hints = Arc::new(Hints::new(&db, true));
        let (running, stop) = (Arc::clone(&hints), stop.clone());
        (hints, tokio::spawn(async move { running.run(stop).await }))
    };
    let ((one, one_task), (other, other_task)) = (start(), start());
    let (mut own, mut heard) = (one.heard(Hint::Log), other.heard(Hint::Log));
    let mut elsewhere = other.heard(Hint::Mailbox);
    let hears = async |heard: &mut tokio::sync::watch::Receiver<()>| {
        tokio::time::timeout(SOON, heard.changed()).await.expect("a hint in time").unwrap();
    };
    // What comes with the beginning of their sessions.
    hears(&mut own).await;
    hears(&mut heard).await;
    hears(&mut elsewhere).await;
    for _ in 0..3 {
        one.give(Hint::Log);
        hears(&mut heard).await;
    }
    let mut mailbox = one.heard(Hint::Mailbox);
    other.give(Hint::Mailbox);
    hears(&mut mailbox).await;
    assert!(!own.has_changed().unwrap() && !elsewhere.has_changed().unwrap(), "its own are nothing new");

    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE application_name = 'switchboard' AND datname = current_database() AND pid <> pg_backend_pid()";
    postgres::query(&url, cut).await;
    // A session that begins anew counts as a hint: some may have been missed.
    hears(&mut own).await;
    hears(&mut heard).await;
    eventually("a hint is heard again", async || {
        one.give(Hint::Log);
        tokio::time::timeout(Duration::from_millis(100), heard.changed()).await.is_ok().then_some(())
    })
    .await;
    stop.cancel();
    one_task.await.unwrap();
    other_task.await.unwrap();
}

/// A node is killed while it carries events: its subscriber goes on at the other one without a gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_of_a_node_that_is_killed_goes_on_at_the_other_without_a_gap() {
    const EVENTS: usize = 400;
    let ground = Ground::new(Backend::Postgres).await;
    let (one, other) = (ground.start().await, ground.start().await);
    let (mut stream, first) = subscribe(&one.client, SubscribeRequest::default()).await;
    let publisher = {
        let client = other.client.clone();
        tokio::spawn(async move {
            for n in 0..EVENTS {
                client.events().publish_event(event("a.b", &numbered(n))).await.unwrap();
            }
        })
    };
    let (mut cursor, mut seen) = (first.cursor, Vec::new());
    while seen.len() < EVENTS / 4 {
        let frame = crate::live::next(&mut stream).await;
        seen.extend(frame.events.into_iter().map(|event| event.data));
        cursor = frame.cursor;
    }
    one.kill().await;
    // What was on its way counts: it was received with its cursor.
    while let Ok(Some(frame)) = stream.message().await {
        seen.extend(frame.events.into_iter().map(|event| event.data));
        cursor = frame.cursor;
    }
    let (mut stream, opened) = subscribe(&other.client, after(&cursor)).await;
    assert!(opened.opened.unwrap().resumed && opened.resync.is_none());
    let left = EVENTS - seen.len();
    seen.extend(events(&mut stream, left).await);
    assert_eq!(seen, (0..EVENTS).map(numbered).collect::<Vec<_>>());
    publisher.await.unwrap();
}

/// A relay of a node, and what came to it from the others.
struct Carried {
    relay: Arc<Relay>,
    came: Arc<Mutex<Vec<(String, String)>>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Carried {
    /// A node that begins with what there is.
    async fn start(db: &Db, node_id: i64, with_hints: bool) -> Self {
        let stop = CancellationToken::new();
        let hints = Arc::new(Hints::new(db, with_hints));
        let (running, until) = (Arc::clone(&hints), stop.clone());
        tokio::spawn(async move { running.run(until).await });
        let relay = Relay::new(db.clone(), node_id, Arc::clone(&hints));
        let (newest, position) = relay.newest().await.unwrap();
        let named = |event: Arc<Ephemeral>| (event.collapse_key.clone(), event.fact.data.clone());
        let came = Arc::new(Mutex::new(newest.into_iter().map(named).collect::<Vec<_>>()));
        let sink = Arc::clone(&came);
        let deliver = move |event: Arc<Ephemeral>| sink.lock().unwrap().push(named(event));
        tokio::spawn(Arc::clone(&relay).read(position, deliver, stop.clone()));
        tokio::spawn(Arc::clone(&relay).write(stop.clone()));
        Self { relay, came, _stop: stop.drop_guard() }
    }

    fn publish(&self, key: &str, data: &str) {
        let fact = Fact {
            id: "evt_1".into(),
            event_type: "chat.typing".into(),
            data: data.into(),
            actor: String::new(),
            subject: "s".into(),
            topic: "chat:9".into(),
            created_at: SystemClock.now(),
        };
        self.relay.forward(&Ephemeral::new(Arc::new(fact), key));
    }

    fn came(&self) -> Vec<(String, String)> {
        self.came.lock().unwrap().clone()
    }

    async fn wait_for(&self, expected: &[(&str, &str)]) {
        let expected: Vec<_> =
            expected.iter().map(|(key, data)| ((*key).to_owned(), (*data).to_owned())).collect();
        eventually(&format!("{expected:?}"), async || (self.came() == expected).then_some(())).await;
    }
}

async fn ephemeral_events_cross(with_hints: bool) {
    let url = postgres::fresh_database().await;
    let db = Db::open(&Target::Postgres(url.clone())).await.unwrap();
    db.migrate().await.unwrap();
    let (one, other) = (Carried::start(&db, 1, with_hints).await, Carried::start(&db, 2, with_hints).await);
    one.publish("", "1");
    other.wait_for(&[("", "1")]).await;
    one.publish("a", "2");
    other.wait_for(&[("", "1"), ("a", "2")]).await;
    other.publish("b", "3");
    one.wait_for(&[("b", "3")]).await;

    // Many at once, from both: each gets all of the other's, in their order, and none of its own.
    for n in 0..2_000 {
        one.publish("", &format!("one {n}"));
        other.publish("", &format!("other {n}"));
    }
    for (at, from, before) in [(&one, "other", 1), (&other, "one", 2)] {
        eventually("all of them", async || (at.came().len() == before + 2_000).then_some(())).await;
        let expected: Vec<_> = (0..2_000).map(|n| (String::new(), format!("{from} {n}"))).collect();
        assert_eq!(at.came()[before..], expected);
    }

    // Of what is old only the newest of each key stays, and a node that starts has it.
    one.publish("a", "4");
    eventually("it came", async || other.came().contains(&("a".into(), "4".into())).then_some(())).await;
    postgres::query(&url, "UPDATE live_ephemeral SET written_at = written_at - interval '2 minutes'").await;
    one.publish("", "5");
    eventually("it came", async || other.came().contains(&(String::new(), "5".into())).then_some(())).await;
    one.relay.tidy().await.unwrap();
    let kept = postgres::query(&url, "SELECT collapse_key, data FROM live_ephemeral ORDER BY seq").await;
    assert_eq!(kept, "b|3\na|4\n|5");
    let third = Carried::start(&db, 3, with_hints).await;
    third.wait_for(&[("b", "3"), ("a", "4")]).await;

    // As after a crash of the database.
    postgres::query(&url, "TRUNCATE live_ephemeral").await;
    one.publish("a", "6");
    third.wait_for(&[("b", "3"), ("a", "4"), ("a", "6")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ephemeral_events_reach_the_other_nodes_by_looking_alone() {
    ephemeral_events_cross(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ephemeral_events_reach_the_other_nodes_by_hints() {
    ephemeral_events_cross(true).await;
}

/// What is asked of another node is carried out there, or the caller is told why not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_about_a_stream_of_another_node_is_answered_by_that_node() {
    let db = Db::open(&Target::Postgres(postgres::fresh_database().await)).await.unwrap();
    db.migrate().await.unwrap();
    let clock: SharedClock = Arc::new(SystemClock);
    let mailbox = |node_id| Mailbox {
        db: db.clone(),
        node_id,
        hints: Arc::new(Hints::new(&db, false)),
        random: Arc::new(SystemRandom),
    };
    let owner = Node::among_others(2, Duration::from_secs(600));
    owner.renew(&db, &clock).await.unwrap();
    let stop = CancellationToken::new();
    let carry: Carry = Arc::new(|request: Value| {
        async move {
            match request["id"].as_i64() {
                Some(0) => Err(Error::not_found("subscription", "sub_0")),
                id => Ok(json!({ "carried": id })),
            }
        }
        .boxed()
    });
    let running = tokio::spawn(mailbox(2).run(carry, stop.clone()));
    let caller = mailbox(1);
    assert_eq!(caller.ask(2, &json!({ "id": 7 })).await.unwrap(), Some(json!({ "carried": 7 })));
    let gone = caller.ask(2, &json!({ "id": 0 })).await.unwrap_err();
    assert_eq!((gone.kind(), gone.reason()), (Kind::NotFound, "NOT_FOUND"));
    let (calls, caller_of_all) = (1..=50, &caller);
    let answers =
        calls.map(|n| async move { caller_of_all.ask(2, &json!({ "id": n })).await.unwrap().unwrap() });
    for (n, answer) in futures_util::future::join_all(answers).await.into_iter().enumerate() {
        assert_eq!(answer["carried"], n as i64 + 1, "each gets its own answer");
    }
    assert_eq!(caller.ask(3, &json!({})).await.unwrap(), None, "that node does not live");

    stop.cancel();
    running.await.unwrap();
    let late = caller.ask(2, &json!({ "id": 7 })).await.unwrap_err();
    assert_eq!(late.kind(), Kind::Unavailable);
    assert!(late.retry_delay().is_some());
}

/// A stream of one node is changed, and given another key, by calls to the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_changed_and_refreshed_through_the_other_node() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let request = SubscribeRequest { topics: vec!["a".into()], ..Default::default() };
    let (mut stream, first) = subscribe(&one.client, request).await;
    let subscription_id = first.opened.unwrap().subscription_id;
    let change = |generation, topic: &str| UpdateSubscriptionRequest {
        subscription_id: subscription_id.clone(),
        generation,
        topics: vec![topic.into()],
        ..Default::default()
    };
    let changed =
        other.client.notifications().update_subscription(change(3, "b")).await.unwrap().into_inner();
    assert_eq!(changed.generation, 3);
    let overtaken =
        other.client.notifications().update_subscription(change(2, "c")).await.unwrap().into_inner();
    assert_eq!(overtaken.generation, 3);
    loop {
        if let Some(updated) = crate::live::next(&mut stream).await.updated {
            assert_eq!(updated.generation, 3);
            break;
        }
    }
    for topic in ["a", "b"] {
        let request =
            PublishEventRequest { topic: topic.into(), ..event("a.b", &format!(r#"{{"to":"{topic}"}}"#)) };
        other.client.events().publish_event(request).await.unwrap();
    }
    assert_eq!(events(&mut stream, 1).await, [r#"{"to":"b"}"#]);

    let refresh = RefreshSubscriptionRequest { subscription_id: subscription_id.clone() };
    other.client.notifications().refresh_subscription(refresh.clone()).await.unwrap();
    let stranger = other.client_that_may(&["notifications:read"]).await;
    let refused = stranger.notifications().refresh_subscription(refresh.clone()).await.unwrap_err();
    status::expect(&refused, Code::NotFound, "NOT_FOUND");
    drop(stream);
    eventually("the stream is gone", async || {
        let answer = other.client.notifications().refresh_subscription(refresh.clone()).await;
        answer.err().filter(|gone| gone.code() == Code::NotFound)
    })
    .await;
}

/// Ephemeral events reach the subscribers of both nodes, and come first to who asks for a snapshot, also at a new node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ephemeral_events_reach_the_subscribers_of_other_nodes_and_the_snapshots_of_new_ones() {
    let one = Server::start_with(Backend::Postgres, without_hints).await;
    let other = one.another_node().await;
    let (mut at_one, _) = subscribe(&one.client, SubscribeRequest::default()).await;
    let (mut at_other, _) = subscribe(&other.client, SubscribeRequest::default()).await;
    let typing = |data: &str| PublishEventRequest {
        topic: "chat:9".into(),
        ephemeral: true,
        collapse_key: "jo".into(),
        ..event("chat.typing", data)
    };
    for n in 0..3 {
        one.client.events().publish_event(typing(&numbered(n))).await.unwrap();
        assert_eq!(events_of(&mut at_one, "chat.typing").await, numbered(n));
        assert_eq!(events_of(&mut at_other, "chat.typing").await, numbered(n));
    }
    let third = one.another_node().await;
    let request = SubscribeRequest { topics: vec!["chat:*".into()], snapshot: true, ..Default::default() };
    let (mut stream, _) = subscribe(&third.client, request).await;
    assert_eq!(events_of(&mut stream, "chat.typing").await, numbered(2));
}

/// The payload of the next event of a type: the server's own numbers may come in between.
async fn events_of(stream: &mut tonic::Streaming<SubscribeResponse>, event_type: &str) -> String {
    loop {
        let frame = crate::live::next(stream).await;
        if let Some(event) = frame.events.into_iter().find(|event| event.event_type == event_type) {
            return event.data;
        }
    }
}

/// The server's own numbers come by themselves, and the last of them to who joins with a snapshot, beside what an
/// application publishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_is_updated_live_and_its_last_values_come_on_join() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let server = Server::start(backend).await;
        let watch =
            SubscribeRequest { topics: vec!["dashboard".into()], snapshot: true, ..Default::default() };
        let (mut stream, _) = subscribe(&server.client, watch.clone()).await;
        let stats = events_of(&mut stream, "dashboard.update").await;
        assert!(stats.starts_with(r#"{"stats":{"#) && stats.contains(r#""streams":1"#), "{stats}");
        let own = PublishEventRequest {
            topic: "dashboard".into(),
            ephemeral: true,
            collapse_key: "shop".into(),
            ..event("dashboard.update", r#"{"stats":{"orders":7}}"#)
        };
        server.client.events().publish_event(own).await.unwrap();
        assert_eq!(events_of(&mut stream, "dashboard.update").await, r#"{"stats":{"orders":7}}"#);
        let (mut joined, first) = subscribe(&server.client, watch).await;
        let mut keys: Vec<_> = first.events.into_iter().map(|event| event.collapse_key).collect();
        let mut ended = first.snapshot_end;
        while !ended {
            let frame = crate::live::next(&mut joined).await;
            keys.extend(frame.events.into_iter().map(|event| event.collapse_key));
            ended = frame.snapshot_end;
        }
        keys.sort();
        assert_eq!(keys, ["server", "shop"]);
        server.advance(Duration::from_secs(30));
        let stats = events_of(&mut stream, "dashboard.update").await;
        assert!(stats.contains(r#""streams":2"#), "{stats}");
    }
}
