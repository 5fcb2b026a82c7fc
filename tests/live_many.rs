//! Ten thousand streams on one server, all in one process, a hundredth of them not reading: nobody misses anything.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use switchboard::db::Target;
use switchboard_client::Client;
use switchboard_client::event::v1::{BatchPublishEventsRequest, PublishEventRequest};
use switchboard_client::notification::v1::{SubscribeRequest, SubscribeResponse};
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::harness::on_both;
use crate::harness::server::Server;
use crate::live::{events, subscribe};

/// One key opens all of them.
pub const UNLIMITED: [&str; 2] =
    ["security.rate_limit_per_key=0", "notifications.stream_opens_per_second=100000"];
/// As many as the server allows on a connection.
const PER_CONNECTION: usize = 1_000;
/// One in so many does not read.
const STALLED: usize = 100;
/// Events for everybody.
const EVENTS: usize = 6;
/// Calls before each of those, with events for those who do not read: more than the connection and the server's buffers take.
const FILLS: usize = 2;
const FILL: usize = 20;
const FILL_BYTES: usize = 1_024;
/// How many streams are opened at once.
const OPENING: usize = 64;
const LIMIT: Duration = Duration::from_secs(60);

fn event(topic: &str, number: usize, bytes: usize) -> PublishEventRequest {
    PublishEventRequest {
        event_type: "many.sent".into(),
        topic: topic.into(),
        data: format!(r#"{{"n":{number},"filler":"{}"}}"#, "x".repeat(bytes)),
        ..Default::default()
    }
}

async fn publish(client: &Client, requests: Vec<PublishEventRequest>) -> Vec<String> {
    let data = requests.iter().map(|request| request.data.clone()).collect();
    let batch = BatchPublishEventsRequest { requests };
    client.events().batch_publish_events(batch).await.unwrap();
    data
}

async fn connection(server: &Server) -> Client {
    // What is under way to who does not read is little, so that the rest has to wait in the server.
    let endpoint = Endpoint::from_shared(server.url()).unwrap().tcp_nodelay(true);
    let endpoint = endpoint.initial_stream_window_size(8 * 1_024).initial_connection_window_size(1 << 24);
    Client::with_channel(endpoint.connect().await.unwrap(), server.key.reveal()).unwrap()
}

on_both! {
    async fn none_of_many_streams_misses_anything_while_some_do_not_read(
        server: Server = |config| config.set.extend(UNLIMITED.map(String::from))
    ) {
        let count = match server.config.database {
            Target::Sqlite(_) => 10_000,
            Target::Postgres(_) => 2_000,
        };
        let mut connections = Vec::new();
        for _ in 0..count / PER_CONNECTION {
            connections.push(connection(&server).await);
        }
        let open = |number: usize| {
            let client = connections[number % connections.len()].clone();
            let topics = match number % STALLED {
                0 => vec!["many:all".to_owned(), "many:some".to_owned()],
                _ => vec!["many:all".to_owned()],
            };
            async move { subscribe(&client, SubscribeRequest { topics, ..Default::default() }).await.0 }
        };
        let streams: Vec<Streaming<SubscribeResponse>> =
            stream::iter(0..count).map(open).buffered(OPENING).collect().await;
        let mut reading = Vec::new();
        let mut stalled = Vec::new();
        for (number, mut stream) in streams.into_iter().enumerate() {
            match number % STALLED {
                0 => stalled.push(stream),
                _ => reading.push(tokio::spawn(async move { events(&mut stream, EVENTS).await })),
            }
        }

        let (mut for_all, mut for_some) = (Vec::new(), Vec::new());
        for number in 0..EVENTS {
            for fill in 0..FILLS {
                let fills = (0..FILL).map(|n| event("many:some", fill * FILL + n, FILL_BYTES)).collect();
                for_some.extend(publish(&server.client, fills).await);
            }
            let sent = publish(&server.client, vec![event("many:all", number, 0)]).await;
            for_some.extend(sent.clone());
            for_all.extend(sent);
        }
        for stream in reading {
            let seen = tokio::time::timeout(LIMIT, stream).await.expect("all events in time").unwrap();
            assert_eq!(seen, for_all);
        }
        // Those who did not read have it all before them yet.
        let late = stalled.into_iter().map(|mut stream| {
            tokio::spawn(async move { events(&mut stream, EVENTS * (1 + FILLS * FILL)).await })
        });
        for stream in late.collect::<Vec<_>>() {
            let seen = tokio::time::timeout(LIMIT, stream).await.expect("all events in time").unwrap();
            assert_eq!(seen, for_some);
        }
    }
}
