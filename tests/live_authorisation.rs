//! Streams last no longer than what let them in: the scope, the networks and the time of the key, and the lists of the server.

use std::time::Duration;

use prost_types::Timestamp;
use serde_json::json;
use switchboard::clock::{Clock as _, Stopwatch};
use switchboard_client::Client;
use switchboard_client::apikey::v1::ApiKey;
use switchboard_client::notification::v1::{SubscribeRequest, SubscribeResponse, closing};
use switchboard_client::settings::v1::WatchSettingsRequest;
use tonic::{Code, Request, Status, Streaming};

use crate::api_keys_change::{make, new_key, update};
use crate::harness::server::{Backend, Server};
use crate::harness::{SOON, eventually, on_both, status};
use crate::live::next;
use crate::settings::set;
use crate::tokens::token;

const MAKER: [&str; 4] = ["tokens:write", "notifications:read", "inbox:read", "inbox:write"];
/// What a stream's end must not wait for, in seconds: a heartbeat that is far away.
const SILENCE: i64 = 50;
/// Behind a proxy on this machine.
const CLIENT: &str = "192.0.2.7";

fn long_silence() -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: SILENCE, nanos: 0 })
}

/// Opens a stream, by way of a proxy that was asked from an address, if there is one.
async fn try_stream(client: &Client, from: Option<&str>) -> Result<Streaming<SubscribeResponse>, Status> {
    let wish = SubscribeRequest { heartbeat_interval: long_silence(), ..Default::default() };
    let mut request = Request::new(wish);
    if let Some(from) = from {
        request.metadata_mut().insert("x-forwarded-for", from.parse().unwrap());
    }
    let mut stream = client.notifications().subscribe(request).await?.into_inner();
    assert!(next(&mut stream).await.opened.is_some());
    Ok(stream)
}

async fn stream(client: &Client, from: Option<&str>) -> Streaming<SubscribeResponse> {
    try_stream(client, from).await.unwrap()
}

/// The stream ends, for this reason and for good.
async fn expect_end(stream: &mut Streaming<SubscribeResponse>, reason: closing::Reason) {
    let closing = loop {
        if let Some(closing) = next(stream).await.closing {
            break closing;
        }
    };
    assert_eq!((closing.reason(), closing.reconnect), (reason, false));
    assert!(stream.message().await.unwrap().is_none(), "the stream is over");
}

/// The stream has what is published now, and nothing before it.
async fn expect_open(server: &Server, stream: &mut Streaming<SubscribeResponse>) {
    let published = server.publish("still.open", "{}").await;
    loop {
        let message = next(stream).await;
        assert!(message.closing.is_none(), "{message:?}");
        if message.events.iter().any(|event| event.id == published.event_id) {
            return;
        }
    }
}

async fn change_scopes(client: &Client, api_key: ApiKey, scopes: &[&str]) -> ApiKey {
    let scopes = scopes.iter().map(|&scope| scope.into()).collect();
    update(client, ApiKey { scopes, ..api_key }, &["scopes"]).await.unwrap()
}

on_both! {
    async fn a_stream_ends_when_the_scope_of_its_key_is_taken_back(server: Server) {
        let (api_key, key) = make(&server.client, new_key(&MAKER)).await.unwrap();
        let client = server.client_with(&key).await;
        let jo = server.client_with(&token(&client, "jo", &[]).await).await;
        let (mut of_key, mut of_user) = (stream(&client, None).await, stream(&jo, None).await);

        // It is still enough, in other words.
        let api_key = change_scopes(&server.client, api_key, &["tokens:write", "notifications:*"]).await;
        expect_open(&server, &mut of_key).await;
        let api_key = change_scopes(&server.client, api_key, &["tokens:write", "inbox:read"]).await;
        expect_end(&mut of_key, closing::Reason::PermissionLost).await;
        expect_end(&mut of_user, closing::Reason::PermissionLost).await;
        for client in [&client, &jo] {
            status::expect(&try_stream(client, None).await.unwrap_err(), Code::PermissionDenied, "SCOPE_MISSING");
        }
        change_scopes(&server.client, api_key, &MAKER).await;
        let (mut of_key, _of_user) = (stream(&client, None).await, stream(&jo, None).await);
        expect_open(&server, &mut of_key).await;
    }

    async fn a_stream_ends_when_its_key_or_the_server_no_longer_takes_its_address(server: Server) {
        set(&server.client, json!({"security.trusted_proxies": "127.0.0.1"})).await;
        let (api_key, key) = make(&server.client, new_key(&MAKER)).await.unwrap();
        let client = server.client_with(&key).await;
        let jo = server.client_with(&token(&client, "jo", &[]).await).await;
        let (mut here, mut behind) = (stream(&client, None).await, stream(&client, Some(CLIENT)).await);
        let mut user_behind = stream(&jo, Some(CLIENT)).await;

        let denied = ApiKey { denied_networks: vec!["192.0.2.0/24".into()], ..api_key };
        let api_key = update(&server.client, denied, &["denied_networks"]).await.unwrap();
        expect_end(&mut behind, closing::Reason::PermissionLost).await;
        status::expect(&try_stream(&client, Some(CLIENT)).await.unwrap_err(), Code::PermissionDenied, "IP_NOT_ALLOWED");
        expect_open(&server, &mut here).await;
        let allowed = ApiKey {
            allowed_networks: vec!["192.0.2.0/24".into()],
            denied_networks: Vec::new(),
            ..api_key
        };
        update(&server.client, allowed, &["allowed_networks", "denied_networks"]).await.unwrap();
        expect_end(&mut here, closing::Reason::PermissionLost).await;

        // A key's networks are the application's; the server's lists are for everybody.
        let (mut behind, mut others) = (stream(&client, Some(CLIENT)).await, stream(&server.client, None).await);
        set(&server.client, json!({"security.ip_deny": "192.0.2.0/24"})).await;
        expect_end(&mut behind, closing::Reason::PermissionLost).await;
        expect_end(&mut user_behind, closing::Reason::PermissionLost).await;
        expect_open(&server, &mut others).await;
    }

    async fn a_stream_ends_when_the_time_of_its_key_is_over(server: Server) {
        let (api_key, key) = make(&server.client, new_key(&MAKER)).await.unwrap();
        let client = server.client_with(&key).await;
        let mut stream = stream(&client, None).await;
        let end = server.clock.now() + Duration::from_secs(100);
        let expire_time = Some(Timestamp { seconds: end.seconds(), nanos: 0 });
        update(&server.client, ApiKey { expire_time, ..api_key }, &["expire_time"]).await.unwrap();
        server.advance(Duration::from_secs(98));
        expect_open(&server, &mut stream).await;
        server.advance(Duration::from_secs(2));
        expect_end(&mut stream, closing::Reason::KeyEnded).await;
    }

    async fn a_watch_of_settings_ends_when_the_scope_of_its_key_is_taken_back(server: Server) {
        let (api_key, key) = make(&server.client, new_key(&["settings:read", "events:read"])).await.unwrap();
        let client = server.client_with(&key).await;
        let request = WatchSettingsRequest { heartbeat_interval: long_silence(), ..Default::default() };
        let mut watch = client.settings().watch_settings(request).await.unwrap().into_inner();
        watch.message().await.unwrap().unwrap();
        change_scopes(&server.client, api_key, &["events:read"]).await;
        let ended = tokio::time::timeout(SOON, async {
            loop {
                if let Err(ended) = watch.message().await {
                    break ended;
                }
            }
        });
        status::expect(&ended.await.unwrap(), Code::PermissionDenied, "SCOPE_MISSING");
    }

    async fn an_address_has_so_many_streams_and_a_proxy_is_not_counted(server: Server) {
        set(&server.client, json!({
            "security.trusted_proxies": "127.0.0.1",
            "notifications.max_streams_per_address": 2,
        })).await;
        let first = stream(&server.client, Some(CLIENT)).await;
        let second = stream(&server.client, Some(CLIENT)).await;
        let refused = try_stream(&server.client, Some(CLIENT)).await.unwrap_err();
        let details = status::expect(&refused, Code::ResourceExhausted, "STREAM_LIMIT");
        assert_eq!(details.error_info().unwrap().metadata["setting"], "notifications.max_streams_per_address");
        assert!(details.retry_info().unwrap().retry_delay.is_some_and(|delay| !delay.is_zero()));
        let mut others = Vec::new();
        for from in [None, None, None, Some("2001:db8::1"), Some("2001:db8::2")] {
            others.push(stream(&server.client, from).await);
        }
        let refused = try_stream(&server.client, Some("2001:db8::3")).await.unwrap_err();
        status::expect(&refused, Code::ResourceExhausted, "STREAM_LIMIT");
        others.push(stream(&server.client, Some("2001:db8:0:1::1")).await);
        drop(first);
        let third = eventually("there is room again", async || try_stream(&server.client, Some(CLIENT)).await.ok()).await;
        set(&server.client, json!({"notifications.max_streams_per_address": 0})).await;
        others.push(stream(&server.client, Some(CLIENT)).await);
        drop((second, third, others));
    }
}

/// What one node takes back ends the streams of the others within a second, and not only with the next heartbeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_back_at_one_node_ends_streams_at_the_other() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let (api_key, key) = make(&one.client, new_key(&MAKER)).await.unwrap();
    let at_other = other.client_with(&key).await;
    let jo = other.client_with(&token(&at_other, "jo", &[]).await).await;
    let mut streams = [stream(&at_other, None).await, stream(&jo, None).await];
    let mut rest = stream(&other.client, None).await;
    let began = Stopwatch::start();
    let api_key = change_scopes(&one.client, api_key, &["tokens:write"]).await;
    for stream in &mut streams {
        expect_end(stream, closing::Reason::PermissionLost).await;
    }
    // A second, and what a busy machine takes.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    let api_key = change_scopes(&one.client, api_key, &MAKER).await;
    let mut stream = eventually("the scope is back", async || try_stream(&at_other, None).await.ok()).await;
    let began = Stopwatch::start();
    let elsewhere = ApiKey { allowed_networks: vec!["192.0.2.0/24".into()], ..api_key };
    update(&one.client, elsewhere, &["allowed_networks"]).await.unwrap();
    expect_end(&mut stream, closing::Reason::PermissionLost).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    expect_open(&one, &mut rest).await;
}
