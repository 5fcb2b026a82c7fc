//! Live streams and topics: who gets what, changed without a drop, and without a gap from however far behind.

use std::time::Duration;

use switchboard_client::Client;
use switchboard_client::apikey::v1::RotateApiKeyRequest;
use switchboard_client::event::v1::{BatchPublishEventsRequest, EraseEventsRequest, PublishEventRequest};
use switchboard_client::notification::v1::{
    RefreshSubscriptionRequest, SubscribeRequest, UpdateSubscriptionRequest, closing, resync,
};
use tonic::{Code, Status};

use crate::api_keys_change::{make, new_key};
use crate::harness::{eventually, on_both, status};
use crate::live::{after, events, next, subscribe};
use crate::settings::set;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub fn on(topic: &str, data: &str) -> PublishEventRequest {
    PublishEventRequest {
        topic: topic.into(),
        data: data.into(),
        event_type: "a.b".into(),
        ..Default::default()
    }
}

pub fn about(topics: &[&str]) -> SubscribeRequest {
    SubscribeRequest { topics: topics.iter().map(|&topic| topic.into()).collect(), ..Default::default() }
}

fn numbered(n: usize) -> String {
    format!(r#"{{"n":{n}}}"#)
}

async fn publish(client: &Client, request: PublishEventRequest) {
    client.events().publish_event(request).await.unwrap();
}

/// Publishes `count` events of another topic.
async fn publish_others(client: &Client, count: usize, data: &str) {
    let mut left = count;
    while left > 0 {
        let part = left.min(500);
        let requests = (0..part).map(|_| on("other:1", data)).collect();
        client.events().batch_publish_events(BatchPublishEventsRequest { requests }).await.unwrap();
        left -= part;
    }
}

async fn update(client: &Client, id: &str, generation: i64, topics: &[&str]) -> Result<i64, Status> {
    let request = UpdateSubscriptionRequest {
        subscription_id: id.into(),
        generation,
        topics: topics.iter().map(|&topic| topic.into()).collect(),
        ..Default::default()
    };
    Ok(client.notifications().update_subscription(request).await?.into_inner().generation)
}

async fn refresh(client: &Client, id: &str) -> Result<(), Status> {
    let request = RefreshSubscriptionRequest { subscription_id: id.into() };
    client.notifications().refresh_subscription(request).await.map(drop)
}

on_both! {
    async fn a_stream_shows_the_topics_that_it_asked_for(server: Server) {
        let (mut one, _) = subscribe(&server.client, about(&["chat:9"])).await;
        let (mut two, _) = subscribe(&server.client, about(&["chat:9", "user:jo"])).await;
        let (mut chats, _) = subscribe(&server.client, about(&["chat:*", "broadcast"])).await;
        let (mut all, _) = subscribe(&server.client, SubscribeRequest::default()).await;
        let topics = ["chat:9", "chat:8", "user:jo", "", "broadcast", "chat", "chat:9"];
        for (n, topic) in topics.into_iter().enumerate() {
            publish(&server.client, on(topic, &numbered(n))).await;
        }
        assert_eq!(events(&mut one, 2).await, [0, 6].map(numbered));
        assert_eq!(events(&mut two, 3).await, [0, 2, 6].map(numbered));
        assert_eq!(events(&mut chats, 4).await, [0, 1, 4, 6].map(numbered));
        assert_eq!(events(&mut all, 7).await, [0, 1, 2, 3, 4, 5, 6].map(numbered));
        let bad = server.client.notifications().subscribe(about(&["ok", "chat*", ""])).await.unwrap_err();
        status::expect_violations(&bad, &["topics[1]", "topics[2]"]);
        let many = vec!["a"; 101];
        let bad = server.client.notifications().subscribe(about(&many)).await.unwrap_err();
        status::expect_violations(&bad, &["topics"]);
    }

    async fn a_heartbeat_passes_over_what_others_are_told(server: Server) {
        let heartbeat_interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let request = SubscribeRequest { heartbeat_interval, ..about(&["user:jo"]) };
        let (mut stream, _) = subscribe(&server.client, request).await;
        publish_others(&server.client, 1_000, "{}").await;
        let last = server.publish("a.b", "{}").await.cursor;
        eventually("the cursor is at the end", async || {
            let message = next(&mut stream).await;
            assert!(message.events.is_empty());
            (message.cursor == last).then_some(())
        })
        .await;
    }

    async fn few_events_among_many_are_found_from_far_behind(server: Server) {
        let (_, first) = subscribe(&server.client, SubscribeRequest::default()).await;
        for n in 0..4 {
            publish(&server.client, on("user:jo", &numbered(2 * n))).await;
            publish_others(&server.client, 800, "{}").await;
            publish(&server.client, on("chat:9", &numbered(2 * n + 1))).await;
        }
        // Nothing of it is in memory then.
        let server = server.restart().await;
        for (topics, expected) in [
            (&["user:jo", "chat:9"][..], &[0, 1, 2, 3, 4, 5, 6, 7][..]),
            (&["user:jo"], &[0, 2, 4, 6]),
            (&["chat:*"], &[1, 3, 5, 7]),
        ] {
            let request = SubscribeRequest { cursor: first.cursor.clone(), ..about(topics) };
            let (mut stream, opened) = subscribe(&server.client, request).await;
            assert!(opened.opened.unwrap().resumed);
            let expected: Vec<_> = expected.iter().map(|&n| numbered(n)).collect();
            assert_eq!(events(&mut stream, expected.len()).await, expected);
        }
    }

    async fn a_stream_changes_what_it_is_about_without_a_drop(server: Server) {
        let (mut stream, first) = subscribe(&server.client, about(&["chat:1"])).await;
        let id = first.opened.unwrap().subscription_id;
        publish(&server.client, on("chat:1", &numbered(1))).await;
        publish(&server.client, on("chat:2", &numbered(2))).await;
        assert_eq!(events(&mut stream, 1).await, [numbered(1)]);
        assert_eq!(update(&server.client, &id, 5, &["chat:2"]).await.unwrap(), 5);
        assert_eq!(update(&server.client, &id, 4, &["chat:3"]).await.unwrap(), 5, "a later one overtook it");
        assert_eq!(update(&server.client, &id, 5, &["chat:3"]).await.unwrap(), 5, "a repeat changes nothing");
        let updated = next(&mut stream).await;
        assert_eq!(updated.updated.unwrap().generation, 5);
        for (n, topic) in [(3, "chat:1"), (4, "chat:3"), (5, "chat:2")] {
            publish(&server.client, on(topic, &numbered(n))).await;
        }
        assert_eq!(events(&mut stream, 1).await, [numbered(5)]);

        // Whoever comes back asks for what they want then, from where they were.
        drop(stream);
        let request = SubscribeRequest { cursor: updated.cursor, ..about(&["chat:1", "chat:3"]) };
        let (mut stream, _) = subscribe(&server.client, request).await;
        assert_eq!(events(&mut stream, 2).await, [3, 4].map(numbered));

        let bad = update(&server.client, &id, 0, &["chat*"]).await.unwrap_err();
        status::expect_violations(&bad, &["generation", "topics[0]"]);
        let first = eventually("the first stream is gone", async || update(&server.client, &id, 9, &[]).await.err());
        status::expect(&first.await, Code::NotFound, "NOT_FOUND");
        for gone in [id.as_str(), "sub_1", "sub_", ""] {
            let refused = update(&server.client, gone, 9, &[]).await.unwrap_err();
            status::expect(&refused, Code::NotFound, "NOT_FOUND");
            let refused = refresh(&server.client, gone).await.unwrap_err();
            status::expect(&refused, Code::NotFound, "NOT_FOUND");
        }
    }

    async fn a_stream_belongs_to_its_key_and_to_the_one_that_replaces_it(server: Server) {
        let (api_key, key) = make(&server.client, new_key(&["notifications:read"])).await.unwrap();
        let reader = server.client_with(&key).await;
        let heartbeat_interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let request = SubscribeRequest { heartbeat_interval, ..about(&["chat:1"]) };
        let (mut stream, first) = subscribe(&reader, request).await;
        let id = first.opened.unwrap().subscription_id;
        let refused = update(&server.client, &id, 1, &["chat:2"]).await.unwrap_err();
        status::expect(&refused, Code::NotFound, "NOT_FOUND");
        status::expect(&refresh(&server.client, &id).await.unwrap_err(), Code::NotFound, "NOT_FOUND");

        let rotate = RotateApiKeyRequest { api_key_id: api_key.id, ..Default::default() };
        let rotated = server.client.api_keys().rotate_api_key(rotate).await.unwrap().into_inner();
        let successor = server.client_with(&rotated.key).await;
        refresh(&successor, &id).await.unwrap();
        assert_eq!(update(&successor, &id, 1, &["chat:2"]).await.unwrap(), 1);
        status::expect(&refresh(&reader, &id).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
        // The old key ends, and the stream does not.
        let revoke = switchboard_client::apikey::v1::RevokeApiKeyRequest { api_key_id: rotated.replaced.unwrap().id };
        server.client.api_keys().revoke_api_key(revoke).await.unwrap();
        let mut heartbeats = 0;
        while heartbeats < 2 {
            let message = next(&mut stream).await;
            assert!(message.closing.is_none(), "{message:?}");
            heartbeats += usize::from(message.updated.is_none());
        }
        publish(&server.client, on("chat:2", &numbered(1))).await;
        assert_eq!(events(&mut stream, 1).await, [numbered(1)]);
    }

    async fn a_slow_reader_holds_nobody_up_and_misses_nothing(server: Server) {
        let slow = server.client_that_may(&["notifications:read"]).await;
        let (mut parked, _) = subscribe(&slow, SubscribeRequest::default()).await;
        let (mut other, _) = subscribe(&server.client, about(&["chat:1"])).await;
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(50_000));
        for n in 0..40 {
            publish_others(&server.client, 5, &large).await;
            publish(&server.client, on("chat:1", &numbered(n))).await;
            assert_eq!(events(&mut other, 1).await, [numbered(n)]);
        }
        let expected: Vec<_> = (0..40).flat_map(|n| std::iter::repeat_n(large.clone(), 5).chain([numbered(n)])).collect();
        assert!(events(&mut parked, 240).await == expected, "all of it, in order");
    }

    async fn a_slow_reader_is_told_of_what_the_log_no_longer_has(server: Server) {
        set(&server.client, serde_json::json!({
            "retention.events_days": 1, "notifications.max_stream_age_minutes": 1_440,
        })).await;
        let slow = server.client_that_may(&["notifications:read"]).await;
        let (mut parked, _) = subscribe(&slow, SubscribeRequest::default()).await;
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(500_000));
        let mut first = String::new();
        for n in 0..20 {
            let published = server.client.events().publish_event(on("a", &large)).await.unwrap().into_inner();
            if n == 0 {
                first = published.event_id;
            }
        }
        server.advance(3 * DAY);
        eventually("the log begins later", async || {
            server.advance(DAY);
            (!crate::retention::is_kept(&server, &first).await).then_some(())
        })
        .await;
        // So that it is not in memory either.
        let erase = EraseEventsRequest { subject: "nobody".into(), validate_only: false };
        server.client.events().erase_events(erase).await.unwrap();
        let last = publish_and_tell(&server.client).await;
        let mut seen = 0;
        let resync = loop {
            let message = next(&mut parked).await;
            seen += message.events.len();
            if let Some(resync) = message.resync {
                break resync;
            }
            assert!(message.closing.is_none(), "{seen} events, then {:?}", message.closing);
        };
        assert_eq!(resync.reason(), resync::Reason::Lag);
        assert!(seen < 20, "{seen}");
        let ended = next(&mut parked).await;
        assert_eq!(ended.closing.unwrap().reason(), closing::Reason::MaxAge);
        let (_, resumed) = subscribe(&server.client, after(&ended.cursor)).await;
        assert!(resumed.resync.is_none() && resumed.cursor == last);
    }
}

async fn publish_and_tell(client: &Client) -> String {
    client.events().publish_event(on("a", "{}")).await.unwrap().into_inner().cursor
}
