//! Live streams: filters, heartbeats, resuming without a gap, and honest farewells.

use std::time::Duration;

use switchboard_client::Client;
use switchboard_client::apikey::v1::RevokeApiKeyRequest;
use switchboard_client::notification::v1::{SubscribeRequest, SubscribeResponse, closing, resync};
use tonic::{Code, Streaming};

use crate::harness::server::{Backend, Server, event};
use crate::harness::{SOON, on_both, status};

pub async fn subscribe(
    client: &Client,
    request: SubscribeRequest,
) -> (Streaming<SubscribeResponse>, SubscribeResponse) {
    let mut stream = client.notifications().subscribe(request).await.unwrap().into_inner();
    let first = next(&mut stream).await;
    assert!(first.opened.is_some(), "{first:?}");
    (stream, first)
}

pub async fn next(stream: &mut Streaming<SubscribeResponse>) -> SubscribeResponse {
    tokio::time::timeout(SOON, stream.message())
        .await
        .expect("a message in time")
        .unwrap()
        .expect("not the end")
}

/// The payloads of the next `count` events.
pub async fn events(stream: &mut Streaming<SubscribeResponse>, count: usize) -> Vec<String> {
    let mut data = Vec::new();
    while data.len() < count {
        data.extend(next(stream).await.events.into_iter().map(|event| event.data));
    }
    data
}

pub fn after(cursor: &str) -> SubscribeRequest {
    SubscribeRequest { cursor: cursor.into(), ..Default::default() }
}

fn numbered(n: usize) -> String {
    format!(r#"{{"n":{n}}}"#)
}

on_both! {
    async fn a_subscriber_sees_what_it_asked_for_in_order(server: Server) {
        let by_type = SubscribeRequest { event_types: vec!["ticket.*".into(), "user.login".into()], ..Default::default() };
        let by_subject = SubscribeRequest { subjects: vec!["farm:7".into()], ..Default::default() };
        let (mut tickets, _) = subscribe(&server.client, by_type).await;
        let (mut farm, _) = subscribe(&server.client, by_subject).await;
        let (mut all, _) = subscribe(&server.client, SubscribeRequest::default()).await;
        for (n, (event_type, subject)) in
            [("ticket.created", ""), ("inventory.low_stock", "farm:7"), ("user.login", ""), ("ticket.comment", "farm:7")]
                .into_iter()
                .enumerate()
        {
            let mut request = event(event_type, &numbered(n));
            request.subject = subject.into();
            server.client.events().publish_event(request).await.unwrap();
        }
        assert_eq!(events(&mut tickets, 3).await, [0, 2, 3].map(numbered));
        assert_eq!(events(&mut farm, 2).await, [1, 3].map(numbered));
        assert_eq!(events(&mut all, 4).await, [0, 1, 2, 3].map(numbered));
    }

    async fn a_stream_resumes_after_its_cursor_also_across_a_restart(server: Server) {
        let (mut stream, first) = subscribe(&server.client, SubscribeRequest::default()).await;
        assert!(!first.opened.unwrap().resumed);
        for n in 0..10 {
            server.publish("a.b", &numbered(n)).await;
        }
        let mut cursor = String::new();
        let mut seen = 0;
        while seen < 4 {
            let frame = next(&mut stream).await;
            seen += frame.events.len();
            cursor = frame.cursor;
        }
        drop(stream);
        let server = server.restart().await;
        server.publish("a.b", &numbered(10)).await;
        let (mut stream, first) = subscribe(&server.client, after(&cursor)).await;
        assert!(first.opened.unwrap().resumed && first.resync.is_none());
        let expected: Vec<String> = (seen..=10).map(numbered).collect();
        assert_eq!(events(&mut stream, expected.len()).await, expected);

        let (mut from_start, _) = subscribe(&server.client, after(&first_cursor(&server).await)).await;
        assert_eq!(events(&mut from_start, 10).await, (1..=10).map(numbered).collect::<Vec<_>>());
    }

    async fn an_idle_stream_has_a_heartbeat_with_a_cursor(server: Server) {
        let interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let filter = SubscribeRequest { event_types: vec!["never".into()], heartbeat_interval: interval, ..Default::default() };
        let (mut stream, first) = subscribe(&server.client, filter).await;
        let published = server.publish("a.b", "{}").await;
        let heartbeat = next(&mut stream).await;
        assert!(heartbeat.events.is_empty() && heartbeat.closing.is_none());
        assert_ne!(first.cursor, heartbeat.cursor);
        assert_eq!(heartbeat.cursor, published.cursor, "what was passed over need not be read again");
    }

    async fn a_cursor_that_can_not_be_resumed_is_said_to_be_so(server: Server) {
        let published = server.publish("a.b", "{}").await;
        let other = Server::start(Backend::Sqlite).await;
        for n in 0..3 {
            other.publish("a.b", &numbered(n)).await;
        }
        let foreign = other.publish("a.b", "{}").await.cursor;
        let (mut stream, first) = subscribe(&server.client, after(&foreign)).await;
        assert_eq!(first.resync.unwrap().reason(), resync::Reason::CursorUnknown);
        assert_eq!(first.cursor, published.cursor, "it goes on from the end of the log");
        server.publish("a.b", &numbered(7)).await;
        assert_eq!(events(&mut stream, 1).await, [numbered(7)]);

        let garbage = server.client.notifications().subscribe(after("garbage")).await.unwrap_err();
        status::expect_violations(&garbage, &["cursor"]);
        let bad = SubscribeRequest {
            event_types: vec!["*".into(), "a*".into()],
            heartbeat_interval: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
            ..Default::default()
        };
        let bad = server.client.notifications().subscribe(bad).await.unwrap_err();
        status::expect_violations(&bad, &["event_types[1]", "heartbeat_interval"]);
    }

    async fn a_filtered_subscriber_that_is_far_behind_catches_up_at_once(server: Server) {
        let (_, first) = subscribe(&server.client, SubscribeRequest::default()).await;
        for _ in 0..4 {
            let requests = (0..500).map(|n| event("not.wanted", &numbered(n))).collect();
            let batch = switchboard_client::event::v1::BatchPublishEventsRequest { requests };
            server.client.events().batch_publish_events(batch).await.unwrap();
        }
        server.publish("a.b", &numbered(7)).await;
        let request = SubscribeRequest {
            event_types: vec!["a.b".into()],
            heartbeat_interval: Some(prost_types::Duration { seconds: 50, nanos: 0 }),
            ..after(&first.cursor)
        };
        let (mut stream, _) = subscribe(&server.client, request).await;
        assert_eq!(events(&mut stream, 1).await, [numbered(7)], "long before a heartbeat");
    }

    async fn a_key_that_ends_ends_its_streams(server: Server) {
        let create = switchboard_client::apikey::v1::CreateApiKeyRequest {
            name: "reader".into(),
            scopes: vec!["notifications:read".into()],
            ..Default::default()
        };
        let created = server.client.api_keys().create_api_key(create).await.unwrap().into_inner();
        let reader = server.client_with(&created.key).await;
        let heartbeat_interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let request = SubscribeRequest { heartbeat_interval, ..Default::default() };
        let (mut stream, _) = subscribe(&reader, request.clone()).await;
        let api_key_id = created.api_key.unwrap().id;
        server.client.api_keys().revoke_api_key(RevokeApiKeyRequest { api_key_id }).await.unwrap();
        let closing = loop {
            if let Some(closing) = next(&mut stream).await.closing {
                break closing;
            }
        };
        assert_eq!(closing.reason(), closing::Reason::KeyEnded);
        assert!(!closing.reconnect);
        assert!(stream.message().await.unwrap().is_none(), "the stream is over");
        let refused = reader.notifications().subscribe(request).await.unwrap_err();
        status::expect(&refused, Code::Unauthenticated, "KEY_INVALID");
    }

    async fn subscribers_that_drop_and_resume_see_every_event_once_and_in_order(server: Server) {
        const EVENTS: usize = 600;
        let (_, first) = subscribe(&server.client, SubscribeRequest::default()).await;
        let publishers = (0..8).map(|publisher| {
            let client = server.client.clone();
            tokio::spawn(async move {
                for n in 0..EVENTS / 8 {
                    let data = numbered(publisher * 1_000 + n);
                    client.events().publish_event(event("a.b", &data)).await.unwrap();
                }
            })
        });
        let publishers: Vec<_> = publishers.collect();
        let readers = (1..=3).map(|pace| {
            let (client, mut cursor) = (server.client.clone(), first.cursor.clone());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while seen.len() < EVENTS {
                    let (mut stream, opened) = subscribe(&client, after(&cursor)).await;
                    assert!(opened.resync.is_none());
                    // Each reader drops its stream after some frames, at its own pace.
                    for _ in 0..pace * 3 {
                        let frame = next(&mut stream).await;
                        seen.extend(frame.events.into_iter().map(|event| event.cursor));
                        cursor = frame.cursor;
                        if seen.len() >= EVENTS {
                            break;
                        }
                    }
                }
                seen
            })
        });
        let mut seen = Vec::new();
        for reader in readers.collect::<Vec<_>>() {
            seen.push(tokio::time::timeout(Duration::from_secs(60), reader).await.unwrap().unwrap());
        }
        for publisher in publishers {
            publisher.await.unwrap();
        }
        assert_eq!(seen[0].iter().collect::<std::collections::HashSet<_>>().len(), EVENTS);
        assert!(seen[1] == seen[0] && seen[2] == seen[0], "all see the same order");
    }
}

/// The cursor of the oldest event.
async fn first_cursor(server: &Server) -> String {
    let request = switchboard_client::event::v1::ListEventsRequest { page_size: 500, ..Default::default() };
    let events = server.client.events().list_events(request).await.unwrap().into_inner().events;
    events.last().unwrap().cursor.clone()
}

/// An event that one node published reaches the subscribers of another, in the one order of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_one_log() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let (mut at_one, _) = subscribe(&one.client, SubscribeRequest::default()).await;
    let (mut at_other, _) = subscribe(&other.client, SubscribeRequest::default()).await;
    let publish = |client: Client| async move {
        for n in 0..100 {
            client.events().publish_event(event("a.b", &numbered(n))).await.unwrap();
        }
    };
    tokio::join!(publish(one.client.clone()), publish(other.client.clone()));
    let (one_saw, other_saw) = tokio::join!(events(&mut at_one, 200), events(&mut at_other, 200));
    assert_eq!(one_saw, other_saw);
}
