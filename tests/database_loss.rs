//! PostgreSQL goes away under load, in each of the ways in which it can, and comes back: what was acknowledged is there, who
//! could not be served was told so in time, and the work goes on by itself.
//!
//! `SWITCHBOARD_DATABASE_LOSS=long` makes the outages long and many.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::harness::eventually;
use crate::harness::load::{Load, Manner, arrivals, missing};
use crate::harness::postgres::{self, Cluster, Durability};
use crate::harness::program::{Start, admin_key};
use crate::harness::receiver::Receiver;

/// How soon the server works again once the database does.
const HEALS: Duration = Duration::from_secs(10);
/// How long a call may take while there is no database: until its loss is noticed, and a busy machine.
const TOLD: Duration = Duration::from_secs(12);
/// Callers are more patient than that, so that it is the server that ends their calls.
const MANNER: Manner = Manner { callers: 16, deadline: Duration::from_secs(60), bytes: 100 };
/// The server's own connections: its pool, the one that looks after the database, and the one for hints.
const CONNECTIONS: usize = 16 + 2;

#[derive(Debug, Clone, Copy)]
enum Loss {
    /// It is stopped: connections are ended, and new ones refused.
    Stopped,
    /// It is killed.
    Killed,
    /// It hangs: connections stay, and nobody answers.
    Hangs,
}

/// What is done, and for how long it lasts.
fn plan() -> Vec<(Loss, Duration)> {
    match std::env::var("SWITCHBOARD_DATABASE_LOSS").as_deref() {
        Ok("long") => {
            let losses = [Loss::Stopped, Loss::Killed, Loss::Hangs];
            losses.into_iter().cycle().take(10).map(|loss| (loss, Duration::from_secs(30))).collect()
        }
        _ => vec![
            (Loss::Stopped, Duration::from_secs(3)),
            (Loss::Killed, Duration::from_secs(3)),
            // Longer than it takes to be noticed.
            (Loss::Hangs, Duration::from_secs(9)),
        ],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_the_loss_of_the_database() {
    let (cluster, receiver, key) =
        (Cluster::start(Durability::Durable).await, Receiver::start().await, admin_key().await);
    let url = cluster.create_database("loss").await;
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let start = Start { data: &data, log: &log, key: &key, database: Some(&url), arguments: &[] };
    let mut server = start.start().await;
    server.webhook_to(&receiver).await;
    let load = Load::start(&server.client, "loss", MANNER);
    for (loss, lasts) in plan() {
        load.goes_on_by(200).await;
        load.reset_slowest();
        match loss {
            Loss::Stopped => cluster.stop().await,
            Loss::Killed => cluster.kill().await,
            Loss::Hangs => cluster.freeze().await,
        }
        let lost = Instant::now();
        let why = server.is_ready(false).await;
        assert!(why.contains("can not be reached"), "{why}");
        let noticed = lost.elapsed();
        let before: usize = load.so_far().refused.values().sum();
        load.is_refused("UNAVAILABLE", before + 20).await;
        outage(lost, lasts).await;
        let slowest = load.reset_slowest();
        assert!(slowest < TOLD, "{loss:?}: a call took {slowest:?}");
        match loss {
            Loss::Stopped | Loss::Killed => cluster.start_again().await,
            Loss::Hangs => cluster.thaw().await,
        }
        let back = Instant::now();
        load.goes_on_by(1).await;
        let works = back.elapsed();
        server.is_ready(true).await;
        let ready = back.elapsed();
        eprintln!(
            "{loss:?}: noticed after {noticed:?}, slowest call {slowest:?}, works after {works:?}, ready after {ready:?}"
        );
        assert!(works < HEALS && ready < HEALS, "{loss:?}: works after {works:?}, ready after {ready:?}");
    }
    load.goes_on_by(200).await;
    let told = load.end().await;
    eprintln!("{} acknowledged, refused: {:?}", told.acknowledged.len(), told.refused);
    let reasons: Vec<_> = told.refused.keys().filter(|(code, _)| code != "Unavailable").collect();
    assert!(reasons.is_empty(), "they were told that it can not be done now: {:?}", told.refused);

    let events = server.events().await;
    let lost = missing(&told, events.iter().map(|(id, _)| id));
    assert!(lost.is_empty(), "{} of {} are lost", lost.len(), told.acknowledged.len());
    // A call whose commit broke off was repeated under its request id, and learned what had become of it.
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    events.iter().for_each(|(_, data)| *numbers.entry(data).or_default() += 1);
    let twice: Vec<_> = numbers.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "published twice: {twice:?}");
    eventually("all of them arrive", async || {
        let arrived = arrivals(&receiver.received());
        events.iter().all(|(id, _)| arrived.contains_key(id)).then_some(())
    })
    .await;
    eventually("all of them are noted", async || {
        let open = "SELECT count(*) FROM webhook_deliveries WHERE status <> 'success'";
        (postgres::query(&url, open).await == "0").then_some(())
    })
    .await;
    let arrived = arrivals(&receiver.received());
    assert_eq!(arrived.len(), events.len(), "nothing arrived that was not published");
    let repeats: usize = arrived.values().map(|times| times - 1).sum();
    eprintln!("{repeats} of {} came again", arrived.len());
    assert_eq!(repeats, 0, "one node notes its results when the database is back");

    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'switchboard'";
    let connections: usize = postgres::query(&url, count).await.parse().unwrap();
    assert!(connections <= CONNECTIONS, "{connections} connections");
    assert!(server.runs());
    assert!(server.terminate().await.success(), "{}", cluster.log_tail());
}

/// The outage lasts that long, which is what is tested.
async fn outage(since: Instant, lasts: Duration) {
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    while since.elapsed() < lasts {
        looks.tick().await;
    }
}
