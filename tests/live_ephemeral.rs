//! Ephemeral events: for who is there, the newest for who is behind, and in no log.

use std::collections::BTreeMap;
use std::time::Duration;

use switchboard_client::event::v1::{BatchPublishEventsRequest, ListEventsRequest, PublishEventRequest};
use switchboard_client::notification::v1::{SubscribeRequest, SubscribeResponse};
use tonic::Streaming;

use crate::harness::{SOON, on_both, status};
use crate::live::{after, events, next, subscribe};
use crate::live_topics::{about, on};

fn ephemeral(topic: &str, collapse_key: &str, data: &str) -> PublishEventRequest {
    PublishEventRequest { ephemeral: true, collapse_key: collapse_key.into(), ..on(topic, data) }
}

fn snapshot(topics: &[&str]) -> SubscribeRequest {
    SubscribeRequest { snapshot: true, ..about(topics) }
}

fn numbered(n: usize) -> String {
    format!(r#"{{"n":{n}}}"#)
}

/// What a snapshot has, by topic and key.
async fn read_snapshot(stream: &mut Streaming<SubscribeResponse>) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    loop {
        let message = next(stream).await;
        for event in message.events {
            assert!(event.cursor.is_empty());
            assert!(found.insert((event.topic, event.collapse_key), event.data).is_none(), "each once");
        }
        if message.snapshot_end {
            return found;
        }
    }
}

on_both! {
    async fn ephemeral_events_reach_who_is_there_and_leave_no_trace(server: Server) {
        let (mut stream, first) = subscribe(&server.client, about(&["chat:9"])).await;
        let publish = async |request| server.client.events().publish_event(request).await.unwrap().into_inner();
        let answer = publish(ephemeral("chat:9", "", &numbered(1))).await;
        assert!(answer.cursor.is_empty() && answer.event_id.starts_with("evt_") && answer.create_time.is_some());
        publish(ephemeral("chat:8", "", &numbered(2))).await;
        publish(ephemeral("chat:9", "typing", &numbered(3))).await;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let message = next(&mut stream).await;
            assert_eq!(message.cursor, first.cursor, "they have no place in the log");
            seen.extend(message.events);
        }
        assert_eq!(seen[0].id, answer.event_id);
        assert_eq!((&*seen[1].data, &*seen[1].collapse_key, &*seen[1].topic), (&*numbered(3), "typing", "chat:9"));
        assert!(seen.iter().all(|event| event.cursor.is_empty()));
        let request = ListEventsRequest { topic: "chat:9".into(), ..Default::default() };
        assert!(server.client.events().list_events(request).await.unwrap().into_inner().events.is_empty());
        drop(stream);
        publish(ephemeral("chat:9", "", &numbered(4))).await;
        let (mut resumed, _) = subscribe(&server.client, SubscribeRequest { cursor: first.cursor, ..about(&["chat:9"]) }).await;
        publish(on("chat:9", &numbered(5))).await;
        assert_eq!(events(&mut resumed, 1).await, [numbered(5)], "who was not there has missed them");
    }

    async fn a_batch_mixes_both_kinds_and_is_checked_as_a_whole(server: Server) {
        let (mut stream, _) = subscribe(&server.client, SubscribeRequest::default()).await;
        let batch = async |requests| {
            server.client.events().batch_publish_events(BatchPublishEventsRequest { requests }).await
        };
        let bad = batch(vec![
            PublishEventRequest { collapse_key: "k".into(), ..on("a", "{}") },
            PublishEventRequest { request_id: "r".into(), ..ephemeral("a", "k", "{}") },
            ephemeral("a*", &"x".repeat(129), "[]"),
            PublishEventRequest { event_type: "No".into(), ..ephemeral("a", "", "{}") },
        ]);
        let fields = [
            "requests[0].collapse_key", "requests[1].request_id", "requests[2].data", "requests[2].topic",
            "requests[2].collapse_key", "requests[3].event_type",
        ];
        status::expect_violations(&bad.await.unwrap_err(), &fields);
        let requests = vec![
            ephemeral("a", "", &numbered(0)), on("a", &numbered(1)), ephemeral("a", "k", &numbered(2)), on("a", &numbered(3)),
        ];
        let responses = batch(requests).await.unwrap().into_inner().responses;
        let logged: Vec<_> = responses.iter().map(|response| !response.cursor.is_empty()).collect();
        assert_eq!(logged, [false, true, false, true]);
        let mut seen = events(&mut stream, 4).await;
        seen.sort();
        assert_eq!(seen, [0, 1, 2, 3].map(numbered));
    }

    async fn a_snapshot_has_the_newest_of_each_key(server: Server) {
        for (n, (topic, key)) in
            [("dash", "cpu"), ("dash", "mem"), ("dash", "cpu"), ("dash", ""), ("other", "cpu"), ("room:1", "x")]
                .into_iter()
                .enumerate()
        {
            server.client.events().publish_event(ephemeral(topic, key, &numbered(n))).await.unwrap();
        }
        let key = |topic: &str, key: &str| (topic.to_owned(), key.to_owned());
        let (mut dash, first) = subscribe(&server.client, snapshot(&["dash", "room:*"])).await;
        let expected = BTreeMap::from([
            (key("dash", "cpu"), numbered(2)), (key("dash", "mem"), numbered(1)), (key("room:1", "x"), numbered(5)),
        ]);
        assert_eq!(read_snapshot(&mut dash).await, expected);
        server.client.events().publish_event(ephemeral("dash", "cpu", &numbered(9))).await.unwrap();
        assert_eq!(events(&mut dash, 1).await, [numbered(9)], "and then what happens");

        let again = SubscribeRequest { snapshot: true, topics: vec!["dash".into()], ..after(&first.cursor) };
        let (mut again, _) = subscribe(&server.client, again).await;
        let expected = BTreeMap::from([(key("dash", "cpu"), numbered(9)), (key("dash", "mem"), numbered(1))]);
        assert_eq!(read_snapshot(&mut again).await, expected, "also when it is resumed");

        let (mut none, _) = subscribe(&server.client, snapshot(&["nothing"])).await;
        assert!(read_snapshot(&mut none).await.is_empty());
        let (mut without, _) = subscribe(&server.client, about(&["dash"])).await;
        server.client.events().publish_event(ephemeral("dash", "mem", &numbered(10))).await.unwrap();
        assert_eq!(events(&mut without, 1).await, [numbered(10)]);
    }

    async fn who_is_behind_gets_the_newest_only(server: Server) {
        let slow = server.client_that_may(&["notifications:read"]).await;
        let (mut parked, _) = subscribe(&slow, about(&["dash"])).await;
        const VALUES: usize = 200;
        for n in 0..VALUES {
            let data = format!("{{\"n\":{n},\"a\":\"{}\"}}", "x".repeat(100_000));
            server.client.events().publish_event(ephemeral("dash", "one", &data)).await.unwrap();
        }
        let (mut seen, last) = (Vec::new(), format!("{{\"n\":{},", VALUES - 1));
        while !seen.last().is_some_and(|data: &String| data.starts_with(&last)) {
            seen.extend(events(&mut parked, 1).await);
        }
        assert!(seen.len() < VALUES, "{} of them", seen.len());
        let rest = tokio::time::timeout(Duration::from_millis(100), parked.message()).await;
        assert!(rest.is_err(), "nothing comes after the newest");
        tokio::time::timeout(SOON, server.stop()).await.unwrap();
    }
}
