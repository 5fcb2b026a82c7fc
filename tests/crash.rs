//! The real binary under load, killed and terminated: what it acknowledged arrives, and what arrives twice is bounded
//! and recognisable.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use switchboard::config::Config;
use switchboard_client::Client;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::event::v1::GetEventRequest;
use switchboard_client::webhook::v1::{
    CreateWebhookRequest, ListWebhookDeliveriesRequest, Webhook, WebhookRateLimit,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::receiver::{Behaviour, Received, Receiver};
use crate::harness::server::{Backend, event};
use crate::harness::tools::{self, Watchdog};
use crate::harness::{SOON, eventually, postgres};

const BINARY: &str = env!("CARGO_BIN_EXE_switchboard");
const READY: &str = "switchboard is ready on ";
const EVENTS: usize = 2_000;
/// Calls at a time, and so the most that can be under way when the server is killed.
const CALLERS: usize = 32;
/// On PostgreSQL the deliveries of a dead node wait until its lease has ended.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long the receiver takes: longer than the callers, so that something always waits and something is under way.
const ANSWER: Duration = Duration::from_millis(200);

macro_rules! on_both_databases {
    ($(async fn $name:ident($backend:ident) $body:block)*) => {
        $(
            mod $name {
                use super::*;

                async fn run($backend: Backend) $body

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn sqlite() {
                    run(Backend::Sqlite).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn postgres() {
                    run(Backend::Postgres).await;
                }
            }
        )*
    };
}

/// What outlives a process: its folder, its database, its admin key.
pub struct Ground {
    folder: tempfile::TempDir,
    database: Option<String>,
    key: String,
    settings: Vec<&'static str>,
}

impl Ground {
    /// An empty one.
    pub async fn new(backend: Backend) -> Self {
        let database = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(postgres::fresh_database().await),
        };
        let key = tools::run(BINARY, ["key", "generate"], b"").await.expect_success();
        let (folder, settings) = (tempfile::tempdir().unwrap(), Vec::new());
        Self { folder, database, key: key.trim().to_owned(), settings }
    }

    /// The same, whose servers have these settings, each as `key=value`.
    pub fn with(self, settings: &[&'static str]) -> Self {
        Self { settings: settings.to_vec(), ..self }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Starts a server on it.
    pub async fn start(&self) -> Process {
        Process::start(self).await
    }
}

/// A running server that is a process of its own.
pub struct Process {
    child: Child,
    /// A client with the admin key.
    pub client: Client,
    url: String,
    // Ends the process with this one, however this one ends.
    _watchdog: Watchdog,
}

impl Process {
    /// Starts the binary; answers when it says that it is ready.
    async fn start(ground: &Ground) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(ground.log()).unwrap();
        let data = ground.folder.path().join("data");
        let mut child = Command::new(BINARY)
            .args(["serve", "--set", "security.rate_limit_per_key=0"])
            .args(["--listen", "127.0.0.1:0", "--allow-network", "127.0.0.0/8", "--data"])
            .arg(&data)
            .args(ground.settings.iter().flat_map(|&setting| ["--set", setting]))
            .env_clear()
            .env("SWITCHBOARD_ADMIN_KEY", &ground.key)
            .envs(ground.database.as_ref().map(|url| ("DATABASE_URL", url)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let watchdog = watch_over(&child, &data);
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let reading = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(url) = line.strip_prefix(READY) {
                    return Some(url.to_owned());
                }
            }
            None
        };
        let url = tokio::time::timeout(SOON, reading).await.ok().flatten();
        let url = url.unwrap_or_else(|| {
            panic!("the server did not become ready:\n{}", std::fs::read_to_string(ground.log()).unwrap())
        });
        let client = Client::connect(url.clone(), &ground.key).await.unwrap();
        Self { child, client, url, _watchdog: watchdog }
    }

    /// A client with another key or token.
    pub async fn client_with(&self, key: &str) -> Client {
        Client::connect(self.url.clone(), key).await.unwrap()
    }

    /// As `kill -9` does.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// As `kill` does, and systemd; answers when the process has drained and ended.
    pub async fn terminate(mut self) -> std::process::ExitStatus {
        let id = self.child.id().expect("the process runs").to_string();
        tools::run("sh", ["-c", r#"kill -TERM "$0""#, &id], b"").await.expect_success();
        let ended = tokio::time::timeout(RECOVERY, self.child.wait()).await;
        ended.expect("a drain ends").unwrap()
    }

    async fn webhook_to(&self, receiver: &Receiver) {
        let webhook = Webhook {
            name: "test".into(),
            url: receiver.url("/"),
            event_types: vec!["*".into()],
            // High enough never to hold anything back: what is tested is that its accounting survives too.
            rate_limit: Some(WebhookRateLimit {
                requests: 1_000_000_000,
                period: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
            }),
            ..Default::default()
        };
        let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
        self.client.webhooks().create_webhook(request).await.unwrap();
    }
}

/// Waits until nothing is on its way any more, and asserts that all of it has arrived.
async fn settles(client: &Client) {
    let waiting = async {
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        while any_is(client, &[DeliveryState::Pending, DeliveryState::Sending, DeliveryState::Retrying]).await
        {
            pause.tick().await;
        }
    };
    assert!(tokio::time::timeout(RECOVERY, waiting).await.is_ok(), "some are still on their way");
    let lost = [DeliveryState::Failed, DeliveryState::Cancelled, DeliveryState::Held, DeliveryState::Unknown];
    assert!(!any_is(client, &lost).await, "some did not succeed");
}

async fn any_is(client: &Client, states: &[DeliveryState]) -> bool {
    let request = ListWebhookDeliveriesRequest {
        states: states.iter().map(|&state| state.into()).collect(),
        page_size: 1,
        ..Default::default()
    };
    let answer = client.webhooks().list_webhook_deliveries(request).await.unwrap();
    !answer.into_inner().deliveries.is_empty()
}

fn watch_over(child: &Child, data: &Path) -> Watchdog {
    let id = child.id().expect("the process runs").to_string();
    // By its id, and only while that is still this program: its folder is among its arguments.
    let end = r#"grep -qa "$2" "/proc/$1/cmdline" && kill -9 "$1""#;
    Watchdog::new(end, [id.as_ref(), data.as_os_str()])
}

/// Everything that was acknowledged: the number in an event's payload, by the event's id.
type Acknowledged = watch::Sender<HashMap<String, usize>>;

/// The callers, and what they have achieved.
struct Load {
    next: Arc<AtomicUsize>,
    acknowledged: Arc<Acknowledged>,
}

impl Load {
    fn new() -> Self {
        Self { next: Arc::default(), acknowledged: Arc::new(watch::Sender::default()) }
    }

    fn count(&self) -> usize {
        self.acknowledged.borrow().len()
    }

    /// Starts the callers; each ends when enough is acknowledged, and at its first error.
    fn start(&self, client: &Client) -> Vec<JoinHandle<()>> {
        let caller = |_| {
            let (client, next, acknowledged) =
                (client.clone(), Arc::clone(&self.next), Arc::clone(&self.acknowledged));
            tokio::spawn(async move {
                while acknowledged.borrow().len() < EVENTS {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let request = event("load.event", &format!(r#"{{"n":{number}}}"#));
                    let Ok(answer) = client.events().publish_event(request).await else {
                        return;
                    };
                    let id = answer.into_inner().event_id;
                    acknowledged
                        .send_modify(|all| assert!(all.insert(id, number).is_none(), "an id came twice"));
                }
            })
        };
        (0..CALLERS).map(caller).collect()
    }

    /// Waits until so many are acknowledged.
    async fn reaches(&self, number: usize) {
        let mut acknowledged = self.acknowledged.subscribe();
        let reached = acknowledged.wait_for(|all| all.len() >= number);
        let within = tokio::time::timeout(RECOVERY, reached).await;
        let enough = within.is_ok();
        drop(within);
        assert!(enough, "only {} of {number} were acknowledged", self.count());
    }

    /// Waits until everything that was acknowledged has arrived.
    async fn arrives(&self, receiver: &Receiver) {
        loop {
            let received = receiver.received();
            let arrived: HashSet<_> = received.iter().map(id_of).collect();
            let missing =
                self.acknowledged.borrow().keys().filter(|id| !arrived.contains(id.as_str())).count();
            if missing == 0 {
                return;
            }
            // Each of them takes a request of its own.
            receiver.wait_for(received.len() + missing, RECOVERY).await;
        }
    }
}

fn id_of(request: &Received) -> &str {
    request.header("webhook-id").expect("every request has an id")
}

/// What arrived, by the event's id.
fn by_id(received: &[Received]) -> HashMap<&str, Vec<&Received>> {
    let mut all: HashMap<&str, Vec<&Received>> = HashMap::new();
    for request in received {
        all.entry(id_of(request)).or_default().push(request);
    }
    all
}

/// Asserts that a repeat can be recognised, and that each request carries what was acknowledged under its id.
fn assert_genuine(received: &[Received], acknowledged: &HashMap<String, usize>) {
    for (id, requests) in by_id(received) {
        for request in &requests {
            assert_eq!(request.body, requests[0].body, "a repeat of {id} has another body");
            assert_eq!(
                request.header("x-webhook-delivery"),
                requests[0].header("x-webhook-delivery"),
                "a repeat of {id} is another delivery"
            );
        }
        if let Some(number) = acknowledged.get(id) {
            assert_eq!(requests[0].json()["data"]["n"], *number, "{id} carries another event");
        }
    }
}

async fn join(callers: Vec<JoinHandle<()>>) {
    for caller in callers {
        caller.await.unwrap();
    }
}

on_both_databases! {
    async fn what_was_acknowledged_survives_kill_9(backend) {
        let (ground, receiver) = (Ground::new(backend).await, Receiver::start().await);
        receiver.respond_with("/", Behaviour::Delay(ANSWER));
        let mut server = ground.start().await;
        server.webhook_to(&receiver).await;
        let load = Load::new();
        let kills = [700, 1_400];
        for at in kills {
            let callers = load.start(&server.client);
            load.reaches(at).await;
            assert!(receiver.in_flight("/") > 0, "something is under way");
            server.kill().await;
            join(callers).await;
            assert!(load.count() < EVENTS, "the server was killed in the middle");
            server = ground.start().await;
        }
        join(load.start(&server.client)).await;
        load.reaches(EVENTS).await;
        load.arrives(&receiver).await;
        settles(&server.client).await;
        let received = receiver.received();

        let acknowledged = load.acknowledged.borrow().clone();
        assert_genuine(&received, &acknowledged);
        let arrived = by_id(&received);
        // A call that was cut off may have committed, or not: its caller can not know.
        let unknown: Vec<_> = arrived.keys().filter(|id| !acknowledged.contains_key(**id)).collect();
        assert!(unknown.len() <= CALLERS * kills.len(), "{} events that nobody published", unknown.len());
        for id in unknown {
            let request = GetEventRequest { event_id: (*id).to_owned() };
            server.client.events().get_event(request).await.expect("what arrives is in the log");
        }
        let repeats = received.len() - arrived.len();
        let in_hand = Config::local(PathBuf::new()).webhooks.lane;
        assert!(repeats <= in_hand * kills.len(), "{repeats} requests came again, and {in_hand} can be in hand");
        assert!(server.terminate().await.success());
    }

    async fn a_request_under_way_at_kill_9_is_made_again(backend) {
        let (ground, receiver) = (Ground::new(backend).await, Receiver::start().await);
        let server = ground.start().await;
        server.webhook_to(&receiver).await;
        // Who has answered three may have three under way.
        for number in 0..3 {
            server.client.events().publish_event(event("a.b", "{}")).await.unwrap();
            receiver.wait_for(number + 1, SOON).await;
        }
        settles(&server.client).await;
        receiver.respond_with("/", Behaviour::Hang);
        let mut published = Vec::new();
        for number in 0..3 {
            let request = event("a.b", &format!(r#"{{"n":{number}}}"#));
            published.push(server.client.events().publish_event(request).await.unwrap().into_inner().event_id);
        }
        receiver.wait_for_in_flight("/", 3, SOON).await;
        server.kill().await;
        receiver.wait_for_in_flight("/", 0, SOON).await;

        receiver.respond_with("/", Behaviour::Status(200));
        let server = ground.start().await;
        let received = receiver.wait_for(9, RECOVERY).await;
        assert_genuine(&received, &HashMap::new());
        let mut ids: Vec<_> = received[6..].iter().map(|request| id_of(request).to_owned()).collect();
        ids.sort();
        published.sort();
        assert_eq!(ids, published, "each comes once more");
        for event_id in published {
            let outcome = eventually("it is recorded", async || {
                let request = GetEventRequest { event_id: event_id.clone() };
                let answer = server.client.events().get_event(request).await.unwrap().into_inner();
                answer.outcomes.into_iter().find(|outcome| outcome.state() == DeliveryState::Succeeded)
            })
            .await;
            assert_eq!(outcome.attempts, 1, "an attempt whose end nobody saw is not counted");
        }
        assert!(server.terminate().await.success());
        assert_eq!(receiver.received().len(), 9);
    }

    async fn a_terminated_server_loses_and_repeats_nothing(backend) {
        let (ground, receiver) = (Ground::new(backend).await, Receiver::start().await);
        receiver.respond_with("/", Behaviour::Delay(ANSWER));
        let server = ground.start().await;
        server.webhook_to(&receiver).await;
        let load = Load::new();
        let callers = load.start(&server.client);
        load.reaches(700).await;
        let status = server.terminate().await;
        assert_eq!(status.code(), Some(0), "a drain is not a failure");
        join(callers).await;
        assert!(load.count() < EVENTS, "the server was terminated in the middle");
        assert_eq!(receiver.in_flight("/"), 0, "no request is cut off");
        let before = receiver.received().len();

        let server = ground.start().await;
        load.arrives(&receiver).await;
        settles(&server.client).await;
        assert!(server.terminate().await.success());
        let received = receiver.received();
        let acknowledged = load.acknowledged.borrow().clone();
        assert_genuine(&received, &acknowledged);
        let arrived = by_id(&received).len();
        assert_eq!(received.len(), arrived, "nothing comes twice");
        assert_eq!(arrived, acknowledged.len(), "what was published was acknowledged ({before} before the end)");
    }
}
