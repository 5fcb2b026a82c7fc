//! The server's own numbers: every interval, once in a cluster, while somebody watches.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::clock::{Clock, ManualClock, SystemClock};
use switchboard::db::{Db, Target};
use switchboard::event::ephemeral::Ephemeral;
use switchboard::event::log;
use switchboard::id::IdGenerator;
use switchboard::notification::dashboard::{Attempts, Dashboard, NodeNumbers, Parts};
use switchboard::secret::SystemRandom;
use tokio_util::sync::CancellationToken;

use crate::harness::{eventually, on_both, postgres, status};
use crate::settings::{change, set, try_set};

const INTERVAL: Duration = Duration::from_secs(30);

/// A node's dashboard, and what it has published.
struct Watched {
    dashboard: Arc<Dashboard>,
    published: Arc<Mutex<Vec<Value>>>,
    streams: Arc<AtomicU64>,
    attempts: Arc<AtomicU64>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Watched {
    fn at(db: &Db, node_id: i64, clock: &Arc<ManualClock>) -> Self {
        let (streams, attempts) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let published: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (open, made, sink) = (Arc::clone(&streams), Arc::clone(&attempts), Arc::clone(&published));
        let numbers = move || {
            let email = Attempts { succeeded: made.load(Ordering::SeqCst), ..Attempts::default() };
            NodeNumbers {
                streams: open.load(Ordering::SeqCst),
                connections: 1,
                attempts: BTreeMap::from([("email".into(), email)]),
            }
        };
        let dashboard = Dashboard::new(Parts {
            db: db.clone(),
            node_id,
            numbers: Box::new(numbers),
            is_watched: Box::new(|| true),
            publish: Box::new(move |event: Arc<Ephemeral>| {
                assert_eq!((&*event.fact.topic, event.collapse_key.as_str()), ("dashboard", "server"));
                assert_eq!(&*event.fact.event_type, "dashboard.update");
                let data: Value = serde_json::from_str(&event.fact.data).unwrap();
                sink.lock().unwrap().push(data["stats"].clone());
            }),
            ids: Arc::new(IdGenerator::new(clock.clone(), Arc::new(SystemRandom))),
            clock: clock.clone(),
        });
        dashboard.set_interval(INTERVAL);
        let stop = CancellationToken::new();
        let task = tokio::spawn(Arc::clone(&dashboard).run(stop.clone()));
        Self { dashboard, published, streams, attempts, stop, task }
    }

    fn count(&self) -> usize {
        self.published.lock().unwrap().len()
    }

    async fn wait_for(&self, count: usize) -> Value {
        eventually(&format!("{count} updates"), async || (self.count() >= count).then_some(())).await;
        assert_eq!(self.count(), count);
        self.published.lock().unwrap()[count - 1].clone()
    }

    /// Lets it look a few times, and ends it.
    async fn end(self) -> usize {
        // Each look begins with a look at the clock: two of them after this have seen all there is.
        for _ in 0..30 {
            crate::harness::breath().await;
        }
        self.stop.cancel();
        self.task.await.unwrap();
        self.published.lock().unwrap().len()
    }
}

async fn database(shared: bool, folder: &tempfile::TempDir) -> Db {
    let target = if shared {
        Target::Postgres(postgres::fresh_database().await)
    } else {
        Target::Sqlite(folder.path().join("test.db"))
    };
    let db = Db::open(&target).await.unwrap();
    db.migrate().await.unwrap();
    log::create(&db, 7).await.unwrap();
    db
}

async fn the_servers_own_numbers_are_published_every_interval(shared: bool) {
    let folder = tempfile::tempdir().unwrap();
    let db = database(shared, &folder).await;
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let at = Watched::at(&db, 1, &clock);
    at.streams.store(3, Ordering::SeqCst);
    let first = at.wait_for(1).await;
    assert_eq!(first["live"], json!({"streams": 3, "connections": 1, "users_online": 0}));
    assert_eq!(first["emails"]["pending"], 0);
    assert_eq!(first["webhook_deliveries"]["failed"], 0);
    assert_eq!(first["api_keys"], json!({"active": 0}));
    assert_eq!((&first["nodes"], &first["interval_seconds"]), (&json!(1), &json!(30)));

    at.attempts.store(40, Ordering::SeqCst);
    clock.advance(INTERVAL);
    assert_eq!(at.wait_for(2).await["attempts"]["email"]["succeeded"], 40);
    at.attempts.store(45, Ordering::SeqCst);
    clock.advance(INTERVAL);
    assert_eq!(at.wait_for(3).await["attempts"]["email"]["succeeded"], 5, "of the last interval");

    at.streams.store(0, Ordering::SeqCst);
    clock.advance(10 * INTERVAL);
    at.dashboard.set_interval(Duration::ZERO);
    assert_eq!(at.end().await, 3, "nobody watches, and nobody wants it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_published_on_sqlite() {
    the_servers_own_numbers_are_published_every_interval(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_published_on_postgres() {
    the_servers_own_numbers_are_published_every_interval(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_publishes_for_all_and_another_when_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let db = database(true, &folder).await;
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let nodes = [Watched::at(&db, 1, &clock), Watched::at(&db, 2, &clock)];
    for node in &nodes {
        node.streams.store(2, Ordering::SeqCst);
    }
    let all = || nodes.iter().map(Watched::count).sum::<usize>();
    for round in 1..=4 {
        eventually("the next update", async || (all() >= round).then_some(())).await;
        assert_eq!(all(), round, "once in each interval");
        clock.advance(INTERVAL);
    }
    eventually("the last update", async || (all() == 5).then_some(())).await;
    let last =
        nodes.iter().flat_map(|node| node.published.lock().unwrap().last().cloned()).collect::<Vec<_>>();
    assert!(last.iter().any(|stats| stats["nodes"] == 2 && stats["live"]["streams"] == 4), "{last:?}");

    let [one, other] = nodes;
    one.end().await;
    let before = other.count();
    for more in 1..=2 {
        clock.advance(INTERVAL);
        other.wait_for(before + more).await;
    }
    assert_eq!(other.end().await, before + 2);
}

on_both! {
    async fn an_interval_is_none_or_at_least_five_seconds(server: Server) {
        const KEY: &str = "notifications.dashboard_interval_seconds";
        for bad in [1, 4, 3_601, -1] {
            let refused = try_set(&server.client, change(&json!({KEY: bad}))).await.unwrap_err();
            status::expect_violations(&refused, &[&format!("values[{KEY}]")]);
        }
        for good in [0, 5, 3_600] {
            set(&server.client, json!({KEY: good})).await;
        }
    }
}
