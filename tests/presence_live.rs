//! Presence over the wire: users with tokens, whose streams make them be online.

use std::time::Duration;

use serde_json::json;
use switchboard_client::Client;
use switchboard_client::notification::v1::{
    CreateSubscriberTokenRequest, ListPresenceRequest, SubscribeRequest, SubscribeResponse,
};
use tonic::{Code, Streaming};

use crate::harness::server::{Backend, Server};
use crate::harness::{eventually, on_both, status};
use crate::live::{next, subscribe};
use crate::settings::set;

async fn user(server: &Server, user_id: &str, scopes: &[&str]) -> Client {
    let request = CreateSubscriberTokenRequest {
        user_id: user_id.into(),
        username: format!("{user_id}'s name"),
        scopes: scopes.iter().map(|&scope| scope.into()).collect(),
        ..Default::default()
    };
    let token =
        server.client.notifications().create_subscriber_token(request).await.unwrap().into_inner().token;
    server.client_with(&token).await
}

fn presence() -> SubscribeRequest {
    SubscribeRequest { topics: vec!["presence".into()], ..Default::default() }
}

/// The next change: its type and the user.
async fn change(stream: &mut Streaming<SubscribeResponse>) -> (String, String) {
    loop {
        if let Some(event) = next(stream).await.events.into_iter().next() {
            let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
            return (event.event_type, data["user_id"].as_str().unwrap().to_owned());
        }
    }
}

async fn online(client: &Client) -> Vec<String> {
    let answer =
        client.notifications().list_presence(ListPresenceRequest::default()).await.unwrap().into_inner();
    answer.users.into_iter().map(|user| user.user_id).collect()
}

on_both! {
    async fn a_stream_of_a_user_makes_them_be_online(server: Server) {
        let (mut watch, _) = subscribe(&server.client, presence()).await;
        let jo = user(&server, "jo", &[]).await;
        let (phone, _) = subscribe(&jo, SubscribeRequest::default()).await;
        assert_eq!(change(&mut watch).await, ("user.online".into(), "jo".into()));
        let (laptop, _) = subscribe(&jo, SubscribeRequest::default()).await;
        let al = user(&server, "al", &[]).await;
        let (hidden, _) = subscribe(&al, SubscribeRequest { invisible: true, ..Default::default() }).await;
        assert_eq!(online(&server.client).await, ["jo"]);
        // Compared while nobody comes or goes: the two are read one after the other.
        let answer = server.client.notifications().list_presence(ListPresenceRequest::default()).await.unwrap().into_inner();
        assert_eq!(answer.online, 1);
        drop((phone, laptop));
        eventually("jo goes once the linger has ended", async || {
            server.advance(Duration::from_secs(1));
            online(&server.client).await.is_empty().then_some(())
        })
        .await;
        assert_eq!(change(&mut watch).await, ("user.offline".into(), "jo".into()), "once, and al not at all");
        drop(hidden);
    }

    async fn the_setting_says_how_long_a_user_lingers(server: Server) {
        set(&server.client, json!({"notifications.presence_linger_seconds": 0})).await;
        let (mut watch, _) = subscribe(&server.client, presence()).await;
        let jo = user(&server, "jo", &[]).await;
        let (stream, _) = subscribe(&jo, SubscribeRequest::default()).await;
        assert_eq!(change(&mut watch).await.0, "user.online");
        drop(stream);
        assert_eq!(change(&mut watch).await.0, "user.offline", "with a clock that stands still");
    }

    async fn users_ask_who_is_online_only_with_the_scope(server: Server) {
        let without = user(&server, "jo", &["notifications:read"]).await;
        let refused = without.notifications().list_presence(ListPresenceRequest::default()).await.unwrap_err();
        status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");
        let with = user(&server, "jo", &["presence:read"]).await;
        assert!(online(&with).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_two_nodes_is_online_once() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let (mut watch, _) = subscribe(&other.client, presence()).await;
    let (at_one, at_other) = (user(&one, "jo", &[]).await, user(&other, "jo", &[]).await);
    let (phone, _) = subscribe(&at_one, SubscribeRequest::default()).await;
    assert_eq!(change(&mut watch).await, ("user.online".into(), "jo".into()));
    let (laptop, _) = subscribe(&at_other, SubscribeRequest::default()).await;
    drop((phone, laptop));
    eventually("jo goes", async || {
        one.advance(Duration::from_secs(1));
        online(&one.client).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(change(&mut watch).await, ("user.offline".into(), "jo".into()));
}
