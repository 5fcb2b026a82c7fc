//! The disk of the embedded database is full, or fails: what can be done is done, what can not is refused with its reason,
//! and nothing is sent again and again because it can not be noted.

use std::time::{Duration, Instant};

use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::event::v1::GetEventRequest;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::command_line::switchboard;
use crate::harness::disk::Disk;
use crate::harness::load::{Load, Manner, arrivals, missing};
use crate::harness::program::{Program, Start, admin_key};
use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::server::event;
use crate::harness::{SOON, eventually, status};

const ROUNDS: usize = 2;
/// How soon the server does its work again once it can.
const HEALS: Duration = Duration::from_secs(10);
const MANNER: Manner = Manner { callers: 8, deadline: Duration::from_secs(30), bytes: 4_000 };

async fn health(server: &Program, service: &str) -> ServingStatus {
    let channel =
        tonic::transport::Endpoint::from_shared(server.url.clone()).unwrap().connect().await.unwrap();
    let request = HealthCheckRequest { service: service.into() };
    HealthClient::new(channel).check(request).await.unwrap().into_inner().status()
}

/// What of the server works while nothing can be written.
async fn reads_work(server: &Program, event_id: &str) {
    let request = GetEventRequest { event_id: event_id.into() };
    let known = server.client.events().get_event(request).await.unwrap().into_inner();
    assert_eq!(known.event.unwrap().id, event_id);
    assert!(!server.events().await.is_empty());
    assert_eq!(server.get("/healthz").await.0, http::StatusCode::OK, "it is alive");
    assert_eq!(health(server, "").await, ServingStatus::NotServing);
    assert_eq!(health(server, "switchboard.event.v1.EventService").await, ServingStatus::Serving);
    let (_, metrics) = server.get("/metrics").await;
    assert!(metrics.contains("switchboard_database_usable 0"), "{metrics}");
}

async fn until_delivered(server: &Program, event_id: &str) {
    eventually("it is noted as delivered", async || {
        let request = GetEventRequest { event_id: event_id.to_owned() };
        let event = server.client.events().get_event(request).await.unwrap().into_inner();
        event.outcomes.into_iter().find(|outcome| outcome.state() == DeliveryState::Succeeded)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_heals_by_itself() {
    let (disk, receiver, key) = (Disk::in_memory(64).await, Receiver::start().await, admin_key().await);
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (disk.path().join("data"), folder.path().join("log"));
    let start = Start { data: &data, log: &log, key: &key, database: None, arguments: &[] };
    let mut server = start.start().await;
    server.webhook_to(&receiver).await;
    let first = server.client.events().publish_event(event("a.b", "{}")).await.unwrap().into_inner().event_id;
    receiver.wait_for(1, SOON).await;
    let load = Load::start(&server.client, "full", MANNER);
    for round in 0..ROUNDS {
        load.goes_on_by(200).await;
        // Attempts are under way whose results come while there is no space.
        receiver.respond_with("/", Behaviour::Hang);
        eventually("attempts are under way", async || (receiver.in_flight("/") > 20).then_some(())).await;
        disk.fill();
        let before: usize = load.so_far().refused.values().sum();
        load.is_refused("STORAGE_FULL", before + 20).await;
        let why = server.is_ready(false).await;
        assert!(why.contains("no space left"), "{why}");
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(500_000));
        let refused = eventually("a large one is refused", async || {
            server.client.events().publish_event(event("a.b", &large)).await.err()
        })
        .await;
        let details = status::expect(&refused, Code::ResourceExhausted, "STORAGE_FULL");
        assert!(details.retry_info().unwrap().retry_delay.is_some_and(|delay| !delay.is_zero()));
        assert!(refused.message().contains("no space left"), "{refused:?}");
        reads_work(&server, &first).await;

        receiver.release("/");
        eventually("the attempts end", async || (receiver.in_flight("/") == 0).then_some(())).await;
        receiver.respond_with("/", Behaviour::Status(200));
        // Calls go on being refused, and results go on not being noted.
        let told: usize = load.so_far().refused.values().sum();
        load.is_refused("STORAGE_FULL", told + 100).await;
        let twice = arrivals(&receiver.received()).into_iter().filter(|(_, times)| *times > 1).count();
        assert_eq!(twice, 0, "nothing is sent again while its result can not be noted");

        let freed = Instant::now();
        disk.free();
        server.is_ready(true).await;
        load.goes_on_by(1).await;
        eprintln!("round {round}: healed in {:?}", freed.elapsed());
        assert!(freed.elapsed() < HEALS, "it took {:?}", freed.elapsed());
    }
    let told = load.end().await;
    let codes: Vec<_> = told.refused.keys().filter(|(code, _)| code != "ResourceExhausted").collect();
    assert!(codes.is_empty(), "no other refusal: {:?}", told.refused);
    for event_id in told.acknowledged.keys().take(20) {
        until_delivered(&server, event_id).await;
    }
    let events = server.events().await;
    assert!(missing(&told, events.iter().map(|(id, _)| id)).is_empty(), "nothing acknowledged is lost");
    eventually("all of it arrives", async || {
        let arrived = arrivals(&receiver.received());
        told.acknowledged.keys().all(|id| arrived.contains_key(id)).then_some(())
    })
    .await;
    // An attempt whose result was not noted is known to the process, and not made again.
    let arrived = arrivals(&receiver.received());
    assert!(arrived.values().all(|&times| times == 1), "nothing came twice");
    assert_eq!(arrived.len(), events.len(), "and nothing that was not published");

    // Nothing is damaged, and the log did not grow with every refusal.
    let backup = folder.path().join("backup").display().to_string();
    switchboard(&["backup", &backup, "--data", data.to_str().unwrap()]).await.expect_success();
    let lines = server.log().lines().count();
    assert!(lines < 400, "{lines} lines were logged:\n{}", server.log());
    assert!(server.runs());
    assert!(server.terminate().await.success());
    let server = start.start().await;
    assert_eq!(server.events().await.len(), events.len());
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_that_turned_read_only_refuses_writes_and_loses_nothing() {
    let (disk, key) = (Disk::in_a_file(64).await, admin_key().await);
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (disk.path().join("data"), folder.path().join("log"));
    let start = Start { data: &data, log: &log, key: &key, database: None, arguments: &[] };
    let mut server = start.start().await;
    let first = server.client.events().publish_event(event("a.b", "{}")).await.unwrap().into_inner().event_id;
    let load = Load::start(&server.client, "failed", MANNER);
    load.goes_on_by(100).await;
    // In the moment of the failure itself ext4 lets an fsync succeed whose data it then never writes.
    let before = load.so_far();
    disk.fail().await;
    load.is_refused("STORAGE_FAILED", 20).await;
    let why = server.is_ready(false).await;
    assert!(why.contains("fails or is read-only"), "{why}");
    let refused = server.client.events().publish_event(event("a.b", "{}")).await.unwrap_err();
    status::expect(&refused, Code::Unavailable, "STORAGE_FAILED");
    reads_work(&server, &first).await;
    let told = load.end().await;
    assert!(told.refused.keys().all(|(_, reason)| reason == "STORAGE_FAILED"), "{:?}", told.refused);
    assert!(server.runs());
    assert!(server.terminate().await.success());
    disk.repair().await;
    let server = start.start().await;
    let events = server.events().await;
    let lost = missing(&before, events.iter().map(|(id, _)| id));
    assert!(lost.is_empty(), "nothing that was acknowledged before is lost: {lost:?}");
    let backup = folder.path().join("backup").display().to_string();
    switchboard(&["backup", &backup, "--data", data.to_str().unwrap()]).await.expect_success();
    assert!(server.terminate().await.success());
}
