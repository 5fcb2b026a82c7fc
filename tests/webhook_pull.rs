//! Pulled endpoints: their receivers read what they want in order, acknowledge it, and lose nothing in between.

use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost_types::FieldMask;
use switchboard::db::{Db, execute};
use switchboard::event::cursor::Cursor;
use switchboard_client::Client;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::event::v1::{BatchPublishEventsRequest, Event};
use switchboard_client::webhook::v1::{
    AcknowledgeWebhookEventsRequest, CreateWebhookRequest, ListWebhookDeliveriesRequest,
    PullWebhookEventsRequest, PullWebhookEventsResponse, TestWebhookRequest, UpdateWebhookRequest, Webhook,
    WebhookDeliveryMode,
};
use tonic::{Code, Status};

use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::server::{Backend, Server, event};
use crate::harness::{SOON, eventually, on_both, status};

/// How many reads of one endpoint may wait.
const WAITING: usize = 10;
const LONG: Duration = Duration::from_secs(30);

async fn pulled_endpoint(server: &Server, event_types: &[&str]) -> String {
    let webhook = Webhook {
        name: "pulled".into(),
        event_types: event_types.iter().map(|&event_type| event_type.into()).collect(),
        delivery_mode: WebhookDeliveryMode::Pulled.into(),
        ..Default::default()
    };
    let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
    let created = server.client.webhooks().create_webhook(request).await.unwrap().into_inner();
    let webhook = created.webhook.unwrap();
    assert_eq!((webhook.delivery_mode(), webhook.url.as_str()), (WebhookDeliveryMode::Pulled, ""));
    webhook.id
}

async fn update(server: &Server, webhook: Webhook, path: &str) -> Result<Webhook, Status> {
    let update_mask = Some(FieldMask { paths: vec![path.into()] });
    let request = UpdateWebhookRequest { webhook: Some(webhook), update_mask };
    Ok(server.client.webhooks().update_webhook(request).await?.into_inner().webhook.unwrap())
}

async fn set_mode(server: &Server, id: &str, mode: WebhookDeliveryMode) -> Result<Webhook, Status> {
    let webhook = Webhook { id: id.into(), delivery_mode: mode.into(), ..Default::default() };
    update(server, webhook, "delivery_mode").await
}

async fn set_active(server: &Server, id: &str, active: bool) {
    update(server, Webhook { id: id.into(), active, ..Default::default() }, "active").await.unwrap();
}

fn read(id: &str) -> PullWebhookEventsRequest {
    PullWebhookEventsRequest { webhook_id: id.into(), ..Default::default() }
}

fn waiting(id: &str, wait: Duration) -> PullWebhookEventsRequest {
    PullWebhookEventsRequest { wait: Some(wait.try_into().unwrap()), ..read(id) }
}

async fn try_pull(
    client: &Client,
    request: PullWebhookEventsRequest,
) -> Result<PullWebhookEventsResponse, Status> {
    Ok(client.webhooks().pull_webhook_events(request).await?.into_inner())
}

async fn pull(server: &Server, request: PullWebhookEventsRequest) -> PullWebhookEventsResponse {
    try_pull(&server.client, request).await.unwrap()
}

async fn try_acknowledge(client: &Client, id: &str, cursor: &str) -> Result<(), Status> {
    let request = AcknowledgeWebhookEventsRequest { webhook_id: id.into(), cursor: cursor.into() };
    client.webhooks().acknowledge_webhook_events(request).await.map(drop)
}

async fn acknowledge(server: &Server, id: &str, cursor: &str) {
    try_acknowledge(&server.client, id, cursor).await.unwrap();
}

async fn publish_many(server: &Server, event_type: &str, count: usize) {
    for _ in 0..count / 500 {
        let batch = BatchPublishEventsRequest { requests: vec![event(event_type, "{}"); 500] };
        server.client.events().batch_publish_events(batch).await.unwrap();
    }
}

fn numbered(n: usize) -> String {
    format!(r#"{{"n":{n}}}"#)
}

fn data(answer: &PullWebhookEventsResponse) -> Vec<&str> {
    answer.events.iter().map(|event| event.data.as_str()).collect()
}

/// Reads that wait, all that may.
async fn fill(server: &Server, id: &str) -> Vec<tokio::task::JoinHandle<PullWebhookEventsResponse>> {
    let start = |_| {
        let (client, request) = (server.client.clone(), waiting(id, LONG));
        tokio::spawn(async move {
            loop {
                match try_pull(&client, request.clone()).await {
                    // The one that looks whether all places are taken has one itself, for a moment.
                    Err(status) if status.code() == Code::ResourceExhausted => crate::harness::breath().await,
                    answer => return answer.unwrap(),
                }
            }
        })
    };
    let reads = (0..WAITING).map(start).collect();
    refused(server, id).await;
    reads
}

/// Waits until one more read that waits is refused.
async fn refused(server: &Server, id: &str) -> Status {
    eventually("all places are taken", async || {
        // Long enough that it has not passed before it is known whether there is a place.
        try_pull(&server.client, waiting(id, Duration::from_millis(100))).await.err()
    })
    .await
}

/// Removes the oldest events from the log, and from the server's memory.
async fn expire(server: Server, condition: &'static str, start: i64) -> Server {
    let db = Db::open(&server.config.database).await.unwrap();
    let delete =
        format!("DELETE FROM events WHERE {condition}; UPDATE event_log_start SET position = {start}");
    db.transaction(move |conn| Box::pin(async move { execute(conn, &delete).await })).await.unwrap();
    drop(db);
    server.restart().await
}

on_both! {
    async fn events_are_read_in_order_until_they_are_acknowledged(server: Server) {
        server.publish("ticket.created", &numbered(0)).await;
        let id = pulled_endpoint(&server, &["ticket.*", "user.login"]).await;
        for (n, event_type) in ["ticket.created", "other", "user.login", "ticket.a.b", "user.logout"].into_iter().enumerate() {
            let mut request = event(event_type, &numbered(n + 1));
            (request.actor, request.subject) = ("jo".into(), format!("subject:{n}"));
            server.client.events().publish_event(request).await.unwrap();
        }
        let first = pull(&server, PullWebhookEventsRequest { page_size: 2, ..read(&id) }).await;
        assert_eq!(data(&first), [1, 3].map(numbered), "what was published before is not read");
        assert!(!first.gap);
        for event in &first.events {
            assert_eq!(Some(event), server.event(&event.id).await.event.as_ref(), "it is the same event everywhere");
        }
        assert_eq!(first.cursor, first.events[1].cursor);
        let again = pull(&server, read(&id)).await;
        assert_eq!(data(&again), [1, 3, 4].map(numbered), "nothing was acknowledged");
        let ahead = pull(&server, PullWebhookEventsRequest { cursor: first.cursor.clone(), ..read(&id) }).await;
        assert_eq!(data(&ahead), [numbered(4)]);

        acknowledge(&server, &id, &first.events[0].cursor).await;
        assert_eq!(data(&pull(&server, read(&id)).await), [3, 4].map(numbered));
        acknowledge(&server, &id, &again.cursor).await;
        acknowledge(&server, &id, &first.cursor).await;
        let rest = pull(&server, read(&id)).await;
        assert!(rest.events.is_empty(), "an older cursor changes nothing: {rest:?}");
        acknowledge(&server, &id, &rest.cursor).await;
        let from_before = PullWebhookEventsRequest { cursor: first.cursor, ..read(&id) };
        assert_eq!(data(&pull(&server, from_before).await), [numbered(4)], "a cursor reads what was acknowledged");

        let deliveries = ListWebhookDeliveriesRequest::default();
        let deliveries = server.client.webhooks().list_webhook_deliveries(deliveries).await.unwrap().into_inner();
        assert!(deliveries.deliveries.is_empty(), "nothing is sent");
        let server = server.restart().await;
        assert!(pull(&server, read(&id)).await.events.is_empty(), "the place is kept");
        server.publish("user.login", &numbered(9)).await;
        assert_eq!(data(&pull(&server, read(&id)).await), [numbered(9)]);
    }

    async fn a_read_waits_for_what_is_published(server: Server) {
        let id = pulled_endpoint(&server, &["a.*"]).await;
        let empty = pull(&server, waiting(&id, Duration::from_millis(50))).await;
        assert!(empty.events.is_empty() && !empty.cursor.is_empty(), "{empty:?}");
        let read = tokio::spawn({
            let (client, request) = (server.client.clone(), waiting(&id, LONG));
            async move { try_pull(&client, request).await.unwrap() }
        });
        server.publish("b", "{}").await;
        server.publish("a.b", &numbered(1)).await;
        let answer = tokio::time::timeout(SOON, read).await.expect("it ends with the event").unwrap();
        assert_eq!(data(&answer), [numbered(1)]);
    }

    async fn a_read_that_waits_sees_that_its_endpoint_changed(server: Server) {
        let id = pulled_endpoint(&server, &["a"]).await;
        let reads = fill(&server, &id).await;
        let webhook = Webhook { id: id.clone(), event_types: vec!["b".into()], ..Default::default() };
        update(&server, webhook, "event_types").await.unwrap();
        server.publish("a", &numbered(1)).await;
        server.publish("b", &numbered(2)).await;
        for answer in join_all(reads).await {
            assert_eq!(data(&answer.unwrap()), [numbered(2)]);
        }
        let last = tokio::spawn({
            let (client, request) = (server.client.clone(), waiting(&id, LONG));
            async move { try_pull(&client, request).await }
        });
        acknowledge(&server, &id, &pull(&server, read(&id)).await.cursor).await;
        set_active(&server, &id, false).await;
        server.publish("b", &numbered(3)).await;
        match tokio::time::timeout(SOON, last).await.unwrap().unwrap() {
            // It came before it was acknowledged.
            Ok(answer) => assert_eq!(data(&answer), [numbered(2)]),
            Err(refused) => drop(status::expect(&refused, Code::FailedPrecondition, "WEBHOOK_INACTIVE")),
        }
    }

    async fn reads_that_wait_are_bounded_and_end_with_their_callers(server: Server) {
        let (id, other) = (pulled_endpoint(&server, &["*"]).await, pulled_endpoint(&server, &["*"]).await);
        let reads = fill(&server, &id).await;
        let refused = refused(&server, &id).await;
        let details = status::expect(&refused, Code::ResourceExhausted, "PULLS_WAITING");
        assert!(details.retry_info().is_some_and(|info| info.retry_delay.is_some()));
        assert!(pull(&server, read(&id)).await.events.is_empty(), "who does not wait is not refused");
        pull(&server, waiting(&other, Duration::from_millis(1))).await;
        reads.iter().for_each(tokio::task::JoinHandle::abort);
        eventually("who is gone waits no longer", async || {
            try_pull(&server.client, waiting(&id, Duration::from_millis(1))).await.ok()
        })
        .await;
    }

    async fn a_drain_ends_reads_that_wait(server: Server) {
        let id = pulled_endpoint(&server, &["*"]).await;
        let reads = fill(&server, &id).await;
        tokio::time::timeout(SOON, server.stop()).await.expect("nobody waits for them");
        for answer in join_all(reads).await {
            let answer = answer.unwrap();
            assert!(answer.events.is_empty() && !answer.cursor.is_empty(), "{answer:?}");
        }
    }

    async fn what_can_not_be_read_is_refused(server: Server) {
        let receiver = Receiver::start().await;
        let (sent, _) = server.webhook_to(&receiver, &["x"]).await;
        let id = pulled_endpoint(&server, &["a"]).await;
        let published = server.publish("a", "{}").await;

        let refused = try_pull(&server.client, read(&sent.id)).await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "WEBHOOK_NOT_PULLED");
        let refused = try_acknowledge(&server.client, &sent.id, &published.cursor).await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "WEBHOOK_NOT_PULLED");
        status::expect(&try_pull(&server.client, read("wh_none")).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
        let test = TestWebhookRequest { webhook_id: id.clone(), event_type: "ticket.created".into() };
        let refused = server.client.webhooks().test_webhook(test).await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "WEBHOOK_PULLED");

        let all = PullWebhookEventsRequest { cursor: "none".into(), page_size: -1, ..waiting(&id, Duration::from_secs(31)) };
        let refused = try_pull(&server.client, all).await.unwrap_err();
        status::expect_violations(&refused, &["page_size", "wait", "cursor"]);
        let wait = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        let refused = try_pull(&server.client, PullWebhookEventsRequest { wait, ..read(&id) }).await.unwrap_err();
        status::expect_violations(&refused, &["wait"]);
        let Cursor { epoch, position } = Cursor::decode(&published.cursor).unwrap();
        for other in [(epoch + 1, position), (epoch, position + 1), (epoch, -1)] {
            let cursor = Cursor { epoch: other.0, position: other.1 }.encode();
            let request = PullWebhookEventsRequest { cursor: cursor.clone(), ..read(&id) };
            status::expect_violations(&try_pull(&server.client, request).await.unwrap_err(), &["cursor"]);
            let refused = try_acknowledge(&server.client, &id, &cursor).await.unwrap_err();
            status::expect_violations(&refused, &["cursor"]);
        }
        status::expect_violations(&try_acknowledge(&server.client, &id, "").await.unwrap_err(), &["cursor"]);
        assert_eq!(pull(&server, read(&id)).await.events.len(), 1, "nothing was acknowledged");

        for (scope, may) in [("webhooks:read", false), ("webhooks:write", false), ("webhooks:pull", true), ("webhooks:*", true)] {
            let client = server.client_that_may(&[scope]).await;
            assert_eq!(try_pull(&client, read(&id)).await.is_ok(), may, "{scope}");
            assert_eq!(try_acknowledge(&client, &id, &published.cursor).await.is_ok(), may, "{scope}");
        }

        set_active(&server, &id, false).await;
        let refused = try_pull(&server.client, read(&id)).await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "WEBHOOK_INACTIVE");
        server.publish("a", &numbered(2)).await;
        set_active(&server, &id, true).await;
        assert_eq!(data(&pull(&server, read(&id)).await), [numbered(2)], "an inactive endpoint keeps its place");
    }

    async fn an_endpoint_can_become_pulled_and_sent_to_again(server: Server) {
        let receiver = Receiver::start().await;
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        server.publish("a", &numbered(1)).await;
        receiver.wait_for(1, SOON).await;
        set_mode(&server, &webhook.id, WebhookDeliveryMode::Pulled).await.unwrap();
        server.publish("a", &numbered(2)).await;
        let answer = pull(&server, read(&webhook.id)).await;
        assert_eq!(data(&answer), [numbered(2)], "from the change on");
        set_mode(&server, &webhook.id, WebhookDeliveryMode::Unspecified).await.unwrap();
        server.publish("a", &numbered(3)).await;
        let arrived = receiver.wait_for(2, SOON).await;
        assert!(String::from_utf8_lossy(&arrived[1].body).contains(r#""n":3"#));
        set_mode(&server, &webhook.id, WebhookDeliveryMode::Pulled).await.unwrap();
        let answer = pull(&server, read(&webhook.id)).await;
        assert!(answer.events.is_empty(), "the place of an earlier time is not kept: {answer:?}");

        let id = pulled_endpoint(&server, &["*"]).await;
        let refused = set_mode(&server, &id, WebhookDeliveryMode::Concurrent).await.unwrap_err();
        status::expect_violations(&refused, &["webhook.url"]);
        let url = Webhook { id, url: "ftp://example.com/".into(), ..Default::default() };
        status::expect_violations(&update(&server, url, "url").await.unwrap_err(), &["webhook.url"]);
    }

    async fn what_waits_for_an_endpoint_that_becomes_pulled_is_cancelled(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Status(500));
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        let published = server.publish("a", "{}").await;
        let state = async |wanted: DeliveryState| {
            eventually("it gets there", async || {
                (server.event(&published.event_id).await.outcomes[0].state() == wanted).then_some(())
            })
            .await;
        };
        state(DeliveryState::Retrying).await;
        set_mode(&server, &webhook.id, WebhookDeliveryMode::Pulled).await.unwrap();
        server.advance(Duration::from_secs(66));
        state(DeliveryState::Cancelled).await;
        assert_eq!(receiver.received().len(), 1);
        let before = Cursor { position: 0, ..Cursor::decode(&published.cursor).unwrap() }.encode();
        let answer = pull(&server, PullWebhookEventsRequest { cursor: before, ..read(&webhook.id) }).await;
        assert_eq!(answer.events.len(), 1, "it can be read all the same");
    }

    async fn nothing_is_missed_while_endpoints_are_made(server: Server) {
        let publishing = tokio::spawn({
            let client = server.client.clone();
            async move {
                for n in 0..200 {
                    client.events().publish_event(event("a", &numbered(n))).await.unwrap();
                }
            }
        });
        let mut made = Vec::new();
        for _ in 0..10 {
            let id = pulled_endpoint(&server, &["*"]).await;
            // It is published after the endpoint was made.
            let marker = server.publish("b", "{}").await;
            made.push((id, Cursor::decode(&marker.cursor).unwrap().position));
        }
        publishing.await.unwrap();
        for (id, marker) in made {
            let answer = pull(&server, PullWebhookEventsRequest { page_size: 500, ..read(&id) }).await;
            let positions: Vec<_> =
                answer.events.iter().map(|event| Cursor::decode(&event.cursor).unwrap().position).collect();
            assert!(positions.first().is_some_and(|first| *first <= marker), "{marker} is after {positions:?}");
            assert!(positions.windows(2).all(|pair| pair[0] + 1 == pair[1]), "one is missing: {positions:?}");
            assert_eq!(positions.last(), Some(&210));
        }
    }

    async fn an_answer_is_small_enough_for_every_client(server: Server) {
        let id = pulled_endpoint(&server, &["*"]).await;
        let big = format!(r#"{{"a":"{}"}}"#, "x".repeat(1024 * 1024 - 8));
        for _ in 0..6 {
            server.publish("a", &big).await;
        }
        let mut counts = Vec::new();
        for _ in 0..2 {
            let answer = pull(&server, read(&id)).await;
            counts.push(answer.events.len());
            acknowledge(&server, &id, &answer.cursor).await;
        }
        assert_eq!(counts, [3, 3]);
        assert!(pull(&server, read(&id)).await.events.is_empty());
    }

    async fn rare_events_are_found_behind_many_others(server: Server) {
        let id = pulled_endpoint(&server, &["rare"]).await;
        publish_many(&server, "common", 21_000).await;
        server.publish("rare", &numbered(1)).await;
        let first = pull(&server, read(&id)).await;
        assert!(first.events.is_empty(), "a read looks at so many");
        let second = pull(&server, read(&id)).await;
        assert_eq!(data(&second), [numbered(1)], "and the next one goes on, acknowledged or not");
        assert_eq!(data(&pull(&server, read(&id)).await), [numbered(1)]);
        let from_cursor = pull(&server, PullWebhookEventsRequest { cursor: first.cursor, ..read(&id) }).await;
        assert_eq!(data(&from_cursor), [numbered(1)]);
    }

    async fn what_is_no_longer_kept_is_told(server: Server) {
        let id = pulled_endpoint(&server, &["*"]).await;
        for n in 1..=10 {
            server.publish("a", &numbered(n)).await;
        }
        let server = expire(server, "position <= 4", 4).await;
        let answer = pull(&server, read(&id)).await;
        assert!(answer.gap);
        assert_eq!(data(&answer), [5, 6, 7, 8, 9, 10].map(numbered));
        assert!(pull(&server, read(&id)).await.gap, "until it is acknowledged");
        acknowledge(&server, &id, &answer.events[0].cursor).await;
        assert!(!pull(&server, read(&id)).await.gap);

        let server = expire(server, "position = 7", 4).await;
        let answer = pull(&server, read(&id)).await;
        assert_eq!((data(&answer), answer.gap), (vec![&*numbered(6), &*numbered(8), &*numbered(9), &*numbered(10)], false));

        let server = expire(server, "position > 0", 10).await;
        let answer = pull(&server, waiting(&id, LONG)).await;
        assert!(answer.gap && answer.events.is_empty(), "it does not wait with bad news: {answer:?}");
        acknowledge(&server, &id, &answer.cursor).await;
        server.publish("a", &numbered(11)).await;
        let answer = pull(&server, read(&id)).await;
        assert_eq!((data(&answer), answer.gap), (vec![&*numbered(11)], false));
    }

    async fn whatever_a_receiver_does_it_gets_every_event_in_order(server: Server) {
        let mut server = server;
        let mut runner = TestRunner::default();
        for case in 0..10 {
            if case % 4 == 3 {
                server = server.restart().await;
            }
            let acts = proptest::collection::vec(act(), 1..40).new_tree(&mut runner).unwrap().current();
            play(&server, &acts).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_reads_and_acknowledges() {
    let server = Server::start(Backend::Postgres).await;
    let other = server.another_node().await;
    let id = pulled_endpoint(&server, &["*"]).await;
    let waits = tokio::spawn({
        let (client, request) = (other.client.clone(), waiting(&id, LONG));
        async move { try_pull(&client, request).await.unwrap() }
    });
    let published = server.publish("a", &numbered(1)).await;
    let answer = tokio::time::timeout(SOON, waits).await.unwrap().unwrap();
    assert_eq!(data(&answer), [numbered(1)]);
    acknowledge(&other, &id, &published.cursor).await;
    assert!(pull(&server, read(&id)).await.events.is_empty());
}

/// What a receiver or a publisher does.
#[derive(Debug, Clone)]
enum Act {
    /// Publishes events, each wanted or not.
    Publish(Vec<bool>),
    /// Reads after the place.
    Read(i32),
    /// Reads after one of the answers that the receiver has.
    ReadAfter(prop::sample::Index, i32),
    /// Acknowledges one of the answers that the receiver has.
    Acknowledge(prop::sample::Index),
    /// Dies, and knows nothing any more.
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => prop::collection::vec(any::<bool>(), 1..6).prop_map(Act::Publish),
        4 => (1..5_i32).prop_map(Act::Read),
        1 => (any::<prop::sample::Index>(), 1..5_i32).prop_map(|(which, size)| Act::ReadAfter(which, size)),
        3 => any::<prop::sample::Index>().prop_map(Act::Acknowledge),
        1 => Just(Act::Crash),
    ]
}

/// Plays the acts against a new endpoint, beside a model of it: the wanted events, and how many are acknowledged.
async fn play(server: &Server, acts: &[Act]) {
    let id = pulled_endpoint(server, &["wanted"]).await;
    let (mut published, mut acknowledged) = (Vec::<String>::new(), 0);
    // The answers that the receiver has: a cursor, and how many wanted events it covers.
    let mut answers: Vec<(String, usize)> = Vec::new();
    let expect = |answer: &PullWebhookEventsResponse, published: &[String], from: usize, size: i32| {
        let until = published.len().min(from + size as usize);
        let found: Vec<&Event> = answer.events.iter().collect();
        let found: Vec<_> = found.iter().map(|event| event.data.clone()).collect();
        assert_eq!(found, published[from..until], "{acts:?}");
        (answer.cursor.clone(), until)
    };
    for act in acts {
        match act {
            Act::Publish(events) => {
                for wanted in events {
                    let data = numbered(published.len());
                    server.publish(if *wanted { "wanted" } else { "other" }, &data).await;
                    if *wanted {
                        published.push(data);
                    }
                }
            }
            Act::Read(size) => {
                let answer = pull(server, PullWebhookEventsRequest { page_size: *size, ..read(&id) }).await;
                answers.push(expect(&answer, &published, acknowledged, *size));
            }
            Act::ReadAfter(which, size) if !answers.is_empty() => {
                let (cursor, covered) = which.get(&answers).clone();
                let request = PullWebhookEventsRequest { cursor, page_size: *size, ..read(&id) };
                let answer = pull(server, request).await;
                answers.push(expect(&answer, &published, covered, *size));
            }
            Act::Acknowledge(which) if !answers.is_empty() => {
                let (cursor, covered) = which.get(&answers);
                acknowledge(server, &id, cursor).await;
                acknowledged = acknowledged.max(*covered);
            }
            Act::Crash => answers.clear(),
            Act::ReadAfter(..) | Act::Acknowledge(_) => {}
        }
    }
    while acknowledged < published.len() {
        let answer = pull(server, PullWebhookEventsRequest { page_size: 3, ..read(&id) }).await;
        let (cursor, covered) = expect(&answer, &published, acknowledged, 3);
        acknowledge(server, &id, &cursor).await;
        acknowledged = covered;
    }
    assert!(pull(server, read(&id)).await.events.is_empty(), "{acts:?}");
}
