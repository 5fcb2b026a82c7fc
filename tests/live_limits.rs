//! Live streams end honestly, and there are not too many.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use switchboard::notification::registry::Unread;
use switchboard_client::Client;
use switchboard_client::notification::v1::{Closing, SubscribeRequest, SubscribeResponse, closing};
use tonic::{Code, Status, Streaming};

use crate::harness::{SOON, eventually, on_both, status};
use crate::live::{events, next, subscribe};
use crate::settings::set;

async fn try_subscribe(client: &Client) -> Result<Streaming<SubscribeResponse>, Status> {
    Ok(client.notifications().subscribe(SubscribeRequest::default()).await?.into_inner())
}

/// The farewell of a stream, which is its last message.
async fn farewell(stream: &mut Streaming<SubscribeResponse>) -> Closing {
    let closing = loop {
        if let Some(closing) = next(stream).await.closing {
            break closing;
        }
    };
    assert_eq!(stream.message().await.unwrap(), None, "the stream is over");
    closing
}

fn micros(closing: &Closing) -> i64 {
    let after = closing.retry_after.as_ref().expect("a time to come back");
    after.seconds * 1_000_000 + i64::from(after.nanos / 1_000)
}

on_both! {
    async fn a_node_has_so_many_streams_and_no_more(server: Server) {
        set(&server.client, json!({"notifications.max_streams": 2})).await;
        let first = try_subscribe(&server.client).await.unwrap();
        let second = try_subscribe(&server.client).await.unwrap();
        let refused = try_subscribe(&server.client).await.unwrap_err();
        let details = status::expect(&refused, Code::ResourceExhausted, "STREAM_LIMIT");
        assert!(details.retry_info().unwrap().retry_delay.is_some_and(|delay| !delay.is_zero()));
        assert_eq!(details.error_info().unwrap().metadata["setting"], "notifications.max_streams");
        set(&server.client, json!({"notifications.max_streams": 3})).await;
        let third = try_subscribe(&server.client).await.unwrap();
        try_subscribe(&server.client).await.unwrap_err();
        drop((first, second));
        let again = eventually("there is room again", async || try_subscribe(&server.client).await.ok()).await;
        drop((third, again));
    }

    async fn streams_are_opened_at_a_limited_pace(server: Server) {
        set(&server.client, json!({"notifications.stream_opens_per_second": 1})).await;
        let opens = (0..40).map(|_| {
            let client = server.client.clone();
            tokio::spawn(async move { try_subscribe(&client).await })
        });
        let (mut opened, mut refused) = (Vec::new(), Vec::new());
        for open in opens.collect::<Vec<_>>() {
            match open.await.unwrap() {
                Ok(stream) => opened.push(stream),
                Err(error) => refused.push(error),
            }
        }
        assert!(!opened.is_empty() && !refused.is_empty(), "{} and {}", opened.len(), refused.len());
        for refused in &refused {
            let details = status::expect(refused, Code::ResourceExhausted, "STREAM_LIMIT");
            assert_eq!(details.error_info().unwrap().metadata["setting"], "notifications.stream_opens_per_second");
        }
        set(&server.client, json!({"notifications.stream_opens_per_second": 100_000})).await;
        eventually("the pace is another", async || try_subscribe(&server.client).await.ok()).await;
    }

    async fn a_stream_that_is_old_enough_is_asked_to_come_back(server: Server) {
        let (mut stream, first) = subscribe(&server.client, SubscribeRequest::default()).await;
        let age = first.opened.unwrap().max_age.unwrap().seconds;
        assert!((13 * 60..=17 * 60).contains(&age), "{age}");
        server.advance(Duration::from_secs(13 * 60));
        server.publish("a.b", r#"{"n":1}"#).await;
        assert_eq!(events(&mut stream, 1).await, [r#"{"n":1}"#]);
        let (mut young, _) = subscribe(&server.client, SubscribeRequest::default()).await;
        server.advance(Duration::from_secs(4 * 60));
        let last = farewell(&mut stream).await;
        assert_eq!((last.reason(), last.reconnect), (closing::Reason::MaxAge, true));
        assert!(last.retry_after.is_some());
        set(&server.client, json!({"notifications.max_stream_age_minutes": 1})).await;
        let last = farewell(&mut young).await;
        assert_eq!(last.reason(), closing::Reason::MaxAge, "the setting holds for open streams too");
    }

    async fn live_streams_can_be_switched_off(server: Server) {
        let (mut stream, _) = subscribe(&server.client, SubscribeRequest::default()).await;
        set(&server.client, json!({"notifications.live_enabled": false})).await;
        let last = farewell(&mut stream).await;
        assert_eq!((last.reason(), last.reconnect), (closing::Reason::Disabled, false));
        let refused = try_subscribe(&server.client).await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "LIVE_DISABLED");
        set(&server.client, json!({"notifications.live_enabled": true})).await;
        subscribe(&server.client, SubscribeRequest::default()).await;
    }

    async fn a_drain_sends_all_streams_away_and_none_at_the_same_time(server: Server) {
        const STREAMS: usize = 200;
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            streams.push(subscribe(&server.client, SubscribeRequest::default()).await.0);
        }
        let stop = tokio::spawn(server.stop());
        let mut times = BTreeSet::new();
        for stream in &mut streams {
            let last = farewell(stream).await;
            assert_eq!((last.reason(), last.reconnect), (closing::Reason::Drain, true));
            times.insert(micros(&last));
        }
        tokio::time::timeout(SOON, stop).await.unwrap().unwrap();
        assert!(times.len() > STREAMS * 9 / 10, "{} times", times.len());
        assert!(times.last().unwrap() - times.first().unwrap() > 1_000_000, "{times:?}");
    }

    async fn who_does_not_read_is_told_so_when_they_do(server: Server = |config| {
        config.unread = Unread { ends: Duration::from_millis(300), cut: Duration::from_secs(3_600) };
    }) {
        let (mut stuck, mut alive) = one_that_does_not_read(&server.client, &server.client_that_may(&["notifications:read"]).await).await;
        // A heartbeat is what the first one leaves unread; four seconds are more than it may.
        for _ in 0..4 {
            assert!(heartbeat(&mut alive).await.closing.is_none(), "others go on");
        }
        let last = farewell(&mut stuck).await;
        assert_eq!((last.reason(), last.reconnect), (closing::Reason::SlowSubscriber, true));
    }

    async fn who_never_reads_is_cut_off(server: Server = |config| {
        config.unread = Unread { ends: Duration::from_millis(300), cut: Duration::from_millis(300) };
        config.set = vec!["notifications.max_streams=2".into()];
    }) {
        let slow = server.client_that_may(&["notifications:read"]).await;
        let (mut stuck, alive) = one_that_does_not_read(&server.client, &slow).await;
        let next = eventually("the place is free", async || try_subscribe(&server.client).await.ok()).await;
        let ended = loop {
            match stuck.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it did not end well"),
                Err(error) => break error,
            }
        };
        assert_eq!(ended.code(), Code::Cancelled, "{ended:?}");
        drop((alive, next));
    }
}

/// A stream that has more to say than fits on its way, and another one that says when a second has passed.
async fn one_that_does_not_read(
    client: &Client,
    slow: &Client,
) -> (Streaming<SubscribeResponse>, Streaming<SubscribeResponse>) {
    let heartbeat_interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let request = SubscribeRequest { heartbeat_interval, ..Default::default() };
    let (stuck, _) = subscribe(slow, request.clone()).await;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(500_000));
    for _ in 0..20 {
        let event = crate::harness::server::event("a.b", &large);
        client.events().publish_event(event).await.unwrap();
    }
    let (alive, _) = subscribe(client, request).await;
    (stuck, alive)
}

async fn heartbeat(stream: &mut Streaming<SubscribeResponse>) -> SubscribeResponse {
    let message = next(stream).await;
    assert!(message.events.is_empty());
    message
}
