//! A run: the load goes on, and the servers are killed under it, again and again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use diesel::prelude::*;
use switchboard_client::Client;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::ListEmailsRequest;
use switchboard_client::webhook::v1::{CreateWebhookRequest, ListWebhookDeliveriesRequest, Webhook};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::check::{Bounds, Verdict, check};
use super::journal::{Arrived, Asked, Journal, Place, RunClock};
use super::load::Load;
use super::process::{Ground, Process};
use super::receivers::{self, Book, Listening};
use crate::harness::server::Backend;
use crate::live_model::plan::Dice;

/// Where servers are killed, and about how often a server passes there in a second for each call in a second, in percent.
const PLACES: [(&str, usize); 6] = [
    ("accept.uncommitted", 45),
    ("accept.committed", 60),
    ("attempt.begin", 100),
    ("attempt.end", 100),
    ("group.middle", 60),
    ("group.uncommitted", 60),
];
/// Where a rotation of the keys is killed, and with which arguments it goes there.
const ROTATIONS: [(&str, bool); 4] = [
    ("rotation.written", true),
    ("rotation.wrapping", true),
    ("rotation.wrapped", true),
    ("rotation.resealed", false),
];
/// One kill in so many is followed by that of a rotation.
const ROTATION: usize = 8;
const STREAMS: usize = 2;
/// The shortest life of a server that is not killed at a failpoint.
const SHORTEST: Duration = Duration::from_millis(250);
/// On PostgreSQL one kill in so many is followed by a time without any, long enough for the others to take over.
const REST: usize = 10;
const REST_TIME: Duration = Duration::from_millis(22_500);
/// The time between one look and the next.
const PAUSE: Duration = Duration::from_millis(50);

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// On which database.
    pub backend: Backend,
    /// What chance follows from.
    pub seed: u64,
    /// How many kills.
    pub kills: usize,
    /// How many calls in a second.
    pub rate: u32,
    /// A bug that every server has, as `name=bug:2`.
    pub bug: &'static str,
    /// The failpoint of every life; chosen by chance if there is none.
    pub failpoint: Option<&'static str>,
    /// How much longer than [`SHORTEST`] the life of a server is at the most.
    pub life: Duration,
    /// How long the load goes on after the last kill.
    pub last: Duration,
    /// How long what was acknowledged may be on its way after the last call.
    pub settle: Duration,
    /// How many times the promised times may pass, where the machine has other work too.
    pub patience: u64,
}

/// What is promised in numbers.
pub fn bounds(backend: Backend, patience: u64) -> Bounds {
    let alone = backend == Backend::Sqlite;
    Bounds {
        // As many as are attempted at a time: the concurrency of a lane.
        in_flight: |place| if place == Place::Mail { 128 } else { 64 },
        settled: 3_000_000 * patience,
        first_send: alone.then_some(2_000_000 * patience),
        // A lease, and the time until somebody looks for those that have ended.
        taken_over: (!alone).then_some(20_000_000 + 1_500_000 * patience),
        revoked: if alone { 0 } else { 2_000_000 },
        memory: 512 * 1024,
        files: 1_024,
        neighbour: 1_000_000 * patience,
    }
}

/// Runs and checks. Where something is wrong that nobody built in, the logs stay, and the servers' last words are told.
pub async fn run(plan: &Plan) -> Verdict {
    let mut run = Run::new(plan).await;
    run.go().await;
    let (asked, arrived) = (run.asked.end(), run.arrived.end());
    let verdict = check(&asked, &arrived, &bounds(plan.backend, plan.patience));
    if !verdict.violations.is_empty() && plan.bug.is_empty() {
        eprintln!("the servers logged last:\n{}\n", run.ground.log());
        eprintln!("the logs of the run stay in {}", run.ground.keep().display());
    }
    verdict
}

struct Run {
    plan: Plan,
    dice: Dice,
    ground: Ground,
    clock: RunClock,
    asked: Arc<Journal<Asked>>,
    arrived: Arc<Journal<Arrived>>,
    book: Arc<Book>,
    endpoints: Listening,
    _mail_server: Listening,
    kills: usize,
    /// Which server has the load, and is killed next.
    victim: usize,
}

/// A server that runs, and where it is to be killed, if not anywhere.
struct Node {
    process: Process,
    failpoint: Option<String>,
}

impl Run {
    async fn new(plan: &Plan) -> Self {
        let clock = RunClock::start();
        // The mail server must be known before the servers are, and the log before the mail server.
        let ground = Ground::new(plan.backend, plan.bug).await;
        let arrived = Journal::create(ground.file("arrived"));
        let book = Book::new(Arc::clone(&arrived), clock);
        let mail_server = receivers::mail_server(Arc::clone(&book)).await;
        Self {
            plan: plan.clone(),
            dice: Dice::new(plan.seed),
            asked: Journal::create(ground.file("asked")),
            ground: ground.with_mail_server(mail_server.port),
            clock,
            arrived,
            endpoints: receivers::endpoints(Arc::clone(&book)).await,
            book,
            _mail_server: mail_server,
            kills: 0,
            victim: 0,
        }
    }

    async fn go(&mut self) {
        let mut nodes = self.first_nodes().await;
        self.make_webhooks(&nodes[0].process.client).await;
        let (server, watched) = watch::channel(nodes[0].process.client.clone());
        let streams = self.subscribe(&watched).await;
        let load = Load::new(Arc::clone(&self.asked), self.clock, watched, STREAMS);
        let mut calling = load.start(self.plan.rate);
        while self.kills < self.plan.kills {
            let rests = self.kill_one(&mut nodes, &server).await;
            if self.plan.failpoint.is_none() && self.kills % ROTATION == 2 && self.kills + 1 < self.plan.kills
            {
                self.kill_a_rotation().await;
            }
            if rests {
                until(REST_TIME, || false).await;
            }
        }
        until(self.plan.last, || false).await;
        load.end();
        while let Some(ended) = calling.join_next().await {
            ended.unwrap();
        }
        let expected = load.expected();
        let settled = until(self.plan.settle, || self.book.has(&expected)).await;
        self.asked.add(Asked::Ended { at: self.clock.now() });
        if settled {
            self.count_unfinished(&nodes[0].process.client).await;
        }
        drop(streams);
        for node in nodes {
            assert!(
                node.process.terminate().await.success(),
                "a drain is not a failure\n{}",
                self.ground.log()
            );
        }
        self.look_at_what_is_left().await;
    }

    /// Starts the first servers; the very first one of several kills is in the middle of the migrations.
    async fn first_nodes(&mut self) -> Vec<Node> {
        if self.plan.failpoint.is_none() && self.plan.kills > 1 {
            let failpoint = format!("migration.middle=kill:{}", 1 + self.dice.below(5));
            assert!(self.ground.start(&failpoint).await.is_none(), "it has migrations to run");
            self.killed_beside("migration.middle");
        }
        let count = if self.plan.backend == Backend::Postgres { 2 } else { 1 };
        let mut nodes = Vec::new();
        for number in 0..count {
            // Without a failpoint, so that there is time to make the webhooks and to open the streams.
            nodes.push(self.start(number, None).await);
        }
        nodes
    }

    /// Starts a server; once more if it comes to its failpoint before it is ready.
    async fn start(&mut self, node: usize, mut failpoint: Option<String>) -> Node {
        loop {
            self.asked.add(Asked::Started { node, at: self.clock.now() });
            if let Some(process) = self.ground.start(failpoint.as_deref().unwrap_or_default()).await {
                self.asked.add(Asked::Ready { node, at: self.clock.now() });
                return Node { process, failpoint };
            }
            let place = failpoint.take().expect("a server ends by itself at a failpoint only");
            self.killed(node, &place);
        }
    }

    /// Half of the kills are at failpoints. Only who gets the load next is given one: it would come there unseen otherwise.
    fn next_failpoint(&mut self, restarted: usize, nodes: usize) -> Option<String> {
        if let Some(failpoint) = self.plan.failpoint {
            return (!failpoint.is_empty()).then(|| failpoint.to_owned());
        }
        let (place, percent) = self.dice.pick(&PLACES);
        let passes = 1 + self.dice.below(self.plan.rate as usize * percent / 200);
        let is_wanted = self.dice.once_in(2) || nodes > 1;
        (is_wanted && self.victim == restarted).then(|| format!("{place}=kill:{passes}"))
    }

    fn killed(&mut self, node: usize, failpoint: &str) {
        self.kills += 1;
        let place = failpoint.split('=').next().unwrap_or_default().to_owned();
        self.asked.add(Asked::Killed { node, at: self.clock.now(), place });
    }

    fn killed_beside(&mut self, place: &str) {
        self.kills += 1;
        self.asked.add(Asked::KilledBeside { place: place.into() });
    }

    /// Kills the server that has the load, and starts it again; the next one to be killed gets the load.
    /// Answers whether there is to be a rest now.
    async fn kill_one(&mut self, nodes: &mut [Node], server: &watch::Sender<Client>) -> bool {
        let victim = self.victim;
        let node = &mut nodes[victim];
        let life =
            SHORTEST + Duration::from_millis(self.dice.below(self.plan.life.as_millis() as usize) as u64);
        // Whoever is to come to a place is given the time for it.
        let life = if node.failpoint.is_some() { SHORTEST + self.plan.life } else { life };
        let used = node.process.ends(life).await;
        let place = node.failpoint.take().filter(|_| used.is_none());
        assert!(used.is_some() || place.is_some(), "a server ended by itself\n{}", self.ground.log());
        self.killed(victim, place.as_deref().unwrap_or("any moment"));
        if let Some((memory, files)) = used {
            self.asked.add(Asked::Used { node: victim, memory, files });
        }
        self.victim = self.dice.below(nodes.len());
        if let Some((_, other)) = nodes.iter().enumerate().find(|(number, _)| *number != victim) {
            server.send_replace(other.process.client.clone());
        }
        let rests = nodes.len() > 1 && self.kills.is_multiple_of(REST);
        // Whoever is to live on comes to no failpoint.
        let lives_on = rests || self.kills >= self.plan.kills;
        let failpoint = self.next_failpoint(victim, nodes.len()).filter(|_| !lives_on);
        nodes[victim] = self.start(victim, failpoint).await;
        server.send_replace(nodes[self.victim].process.client.clone());
        rests
    }

    /// Begins to give the database other keys, and dies in the middle of it.
    async fn kill_a_rotation(&mut self) {
        let (place, is_of_master) = self.dice.pick(&ROTATIONS);
        let file = self.ground.file(&format!("master.{}", self.kills));
        let file = file.to_str().expect("a readable path");
        let mut arguments = vec!["secrets", "rotate"];
        arguments.extend(if is_of_master { ["--new-master-key", file] } else { ["--batch", "1"] });
        let output = self.ground.run(&arguments, &format!("{place}=kill:1")).await;
        // One that was cut off before may have left nothing to do.
        if !output.success() {
            assert_eq!(output.code, None, "it dies at {place}: {output:?}");
            self.killed_beside(place);
        }
    }

    async fn make_webhooks(&self, client: &Client) {
        for (path, event_types) in [("quick", "torture.*"), ("slow", "torture.slow")] {
            let webhook = Webhook {
                name: path.into(),
                url: format!("http://127.0.0.1:{}/{path}", self.endpoints.port),
                event_types: vec![event_types.into()],
                ..Default::default()
            };
            let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
            client.webhooks().create_webhook(request).await.unwrap();
        }
    }

    /// Opens the streams; they end when the answer is dropped.
    async fn subscribe(&self, server: &watch::Receiver<Client>) -> JoinSet<()> {
        let mut streams = JoinSet::new();
        for number in 0..STREAMS {
            let (ready, is_ready) = tokio::sync::oneshot::channel();
            streams.spawn(receivers::subscribe(Arc::clone(&self.book), number, server.clone(), ready));
            is_ready.await.expect("the stream opens");
        }
        streams
    }

    /// Notes what has come to no end although all of it has arrived.
    async fn count_unfinished(&self, client: &Client) {
        for what in ["deliveries", "mails"] {
            let ending = async {
                let mut pause = tokio::time::interval(PAUSE);
                while unfinished(client, what).await > 0 {
                    pause.tick().await;
                }
            };
            if tokio::time::timeout(self.plan.settle, ending).await.is_err() {
                let count = unfinished(client, what).await;
                self.asked.add(Asked::Unfinished { what: what.into(), count });
            }
        }
    }

    /// The database must be whole, the audit log too, and the secrets must open.
    async fn look_at_what_is_left(&self) {
        if let Some(file) = self.ground.sqlite() {
            assert_eq!(integrity(&file), ["ok"], "the database is whole");
        }
        let said = self.ground.run(&["audit", "verify"], "").await.expect_success();
        assert!(said.contains("the audit log is well"), "{said}");
        self.ground.run(&["secrets", "status", "--check"], "").await.expect_success();
        let entries = self.ground.run(&["audit", "export"], "").await.expect_success();
        for line in entries.lines() {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            let number = entry["reason"].as_str().and_then(|reason| reason.strip_prefix("torture "));
            if let Some(number) = number {
                self.asked.add(Asked::Audited { number: number.parse().unwrap() });
            }
        }
    }
}

/// Waits until it is so, but not longer than this; answers whether it is.
async fn until(within: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let asking = async {
        let mut pause = tokio::time::interval(PAUSE);
        while !is_so() {
            pause.tick().await;
        }
    };
    tokio::time::timeout(within, asking).await.is_ok()
}

/// How many deliveries or mails, up to a page of them, are in no final state.
async fn unfinished(client: &Client, what: &str) -> usize {
    let states = [
        DeliveryState::Scheduled,
        DeliveryState::Pending,
        DeliveryState::Sending,
        DeliveryState::Retrying,
        DeliveryState::Held,
    ];
    let states = states.map(i32::from).to_vec();
    if what == "mails" {
        let request = ListEmailsRequest { states, page_size: 100, ..Default::default() };
        client.emails().list_emails(request).await.unwrap().into_inner().emails.len()
    } else {
        let request = ListWebhookDeliveriesRequest { states, page_size: 100, ..Default::default() };
        client.webhooks().list_webhook_deliveries(request).await.unwrap().into_inner().deliveries.len()
    }
}

/// What SQLite says of a database.
fn integrity(file: &Path) -> Vec<String> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Text)]
        integrity_check: String,
    }
    let mut conn = SqliteConnection::establish(file.to_str().expect("a readable path")).unwrap();
    let rows: Vec<Row> = diesel::sql_query("PRAGMA integrity_check").load(&mut conn).unwrap();
    rows.into_iter().map(|row| row.integrity_check).collect()
}
