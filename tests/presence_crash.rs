//! Presence when the process is killed: who does not come back in time goes, once; who does never went.

use std::collections::BTreeMap;
use std::time::Duration;

use switchboard_client::Client;
use switchboard_client::event::v1::ListEventsRequest;
use switchboard_client::notification::v1::{
    CreateSubscriberTokenRequest, SubscribeRequest, SubscribeResponse,
};
use tonic::Streaming;

use crate::crash::{Ground, Process};
use crate::harness::breath;
use crate::harness::server::Backend;
use crate::live::subscribe;

const LINGER: &str = "notifications.presence_linger_seconds=4";
/// The lease of a node, the linger, and what a busy machine takes.
const LONG: Duration = Duration::from_secs(60);

async fn token(process: &Process, user_id: &str) -> String {
    let request = CreateSubscriberTokenRequest { user_id: user_id.into(), ..Default::default() };
    process.client.notifications().create_subscriber_token(request).await.unwrap().into_inner().token
}

async fn come(process: &Process, token: &str) -> Streaming<SubscribeResponse> {
    subscribe(&process.client_with(token).await, SubscribeRequest::default()).await.0
}

/// What was told of each user, in order.
async fn told(client: &Client) -> BTreeMap<String, Vec<String>> {
    let request = ListEventsRequest { topic: "presence".into(), page_size: 500, ..Default::default() };
    let newest_first = client.events().list_events(request).await.unwrap().into_inner().events;
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in newest_first.into_iter().rev() {
        told.entry(event.subject).or_default().push(event.event_type);
    }
    told
}

async fn wait_for(client: &Client, expected: &[(&str, &[&str])]) {
    let expected: BTreeMap<String, Vec<String>> = expected
        .iter()
        .map(|(user_id, told)| ((*user_id).to_owned(), told.iter().map(|&kind| kind.to_owned()).collect()))
        .collect();
    let waiting = async {
        loop {
            let now = told(client).await;
            let known = |(user_id, told): (&String, &Vec<String>)| {
                expected.get(user_id).is_some_and(|expected| expected.starts_with(told))
            };
            assert!(now.iter().all(known), "{now:?} and not {expected:?}");
            if now == expected {
                return;
            }
            breath().await;
        }
    };
    let in_time = tokio::time::timeout(LONG, waiting).await.is_ok();
    assert!(in_time, "{:?} and not {expected:?}", told(client).await);
}

const HERE: &[&str] = &["user.online"];
const GONE: &[&str] = &["user.online", "user.offline"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_users_of_a_node_that_is_killed_go_once_unless_they_are_at_another_one_in_time() {
    let ground = Ground::new(Backend::Postgres).await.with(&[LINGER]);
    let (one, other) = (ground.start().await, ground.start().await);
    let (jo, sam, kim) = (token(&one, "jo").await, token(&one, "sam").await, token(&one, "kim").await);
    let lost = (come(&one, &jo).await, come(&one, &sam).await, come(&one, &kim).await);
    // At both nodes.
    let kim_there = come(&other, &kim).await;
    wait_for(&other.client, &[("jo", HERE), ("sam", HERE), ("kim", HERE)]).await;
    one.kill().await;
    drop(lost);
    let sam_there = come(&other, &sam).await;
    wait_for(&other.client, &[("jo", GONE), ("sam", HERE), ("kim", HERE)]).await;
    drop((sam_there, kim_there));
    wait_for(&other.client, &[("jo", GONE), ("sam", GONE), ("kim", GONE)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_users_of_the_only_process_go_once_unless_they_are_back_in_time_after_its_next_start() {
    let ground = Ground::new(Backend::Sqlite).await.with(&[LINGER]);
    let one = ground.start().await;
    let (jo, sam) = (token(&one, "jo").await, token(&one, "sam").await);
    let lost = (come(&one, &jo).await, come(&one, &sam).await);
    wait_for(&one.client, &[("jo", HERE), ("sam", HERE)]).await;
    one.kill().await;
    drop(lost);
    let next = ground.start().await;
    let sam_again = come(&next, &sam).await;
    wait_for(&next.client, &[("jo", GONE), ("sam", HERE)]).await;
    drop(sam_again);
    wait_for(&next.client, &[("jo", GONE), ("sam", GONE)]).await;
}
