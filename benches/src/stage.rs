//! What a measurement stands on: a new server on the storage in question, and the sink.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use switchboard_client::Client;
use switchboard_client::webhook::v1::{CreateWebhookRequest, Webhook, WebhookRateLimit};

use crate::client::{self, WANTED};
use crate::database::{self, Database};
use crate::error::{Context, Error, Result};
use crate::folder::Folders;
use crate::options::{Backend, Options};
use crate::postgres::Cluster;
use crate::report::Figure;
use crate::server::Server;
use crate::sink::Sink;
use crate::smtp_sink;
use crate::usage::{Processes, Spent, Usage, resident};

/// How long server and storage may be busy with what was put into them.
const SETTLE_LIMIT: Duration = Duration::from_secs(10 * 60);
const SETTLE_LOOK: Duration = Duration::from_secs(2);
/// The part of a core that an idle server and an idle PostgreSQL take at most.
const IDLE: f64 = 0.1;

/// The parts that all measurements share.
pub struct Parts {
    /// The command line.
    pub options: Options,
    /// The receiver of webhooks.
    pub sink: Sink,
    /// Where databases can live.
    pub folders: Folders,
    /// PostgreSQL, if it is measured.
    pub cluster: Option<Cluster>,
    /// The server's program.
    pub program: PathBuf,
}

impl Parts {
    /// Checks that there is a server to measure, and starts what serves all measurements.
    pub async fn start(options: Options) -> Result<Self> {
        let program = match &options.server {
            Some(program) => program.clone(),
            None => {
                std::env::current_exe().context("the path of this program")?.with_file_name("switchboard")
            }
        };
        let program = absolute(&program)?;
        if options.wants_mail() {
            smtp_sink::installed()?;
        }
        if options.wants_sql() && options.backends().contains(&Backend::Sqlite) {
            database::shell_installed().await?;
        }
        let folders = Folders::find(options.backends()).await?;
        let sink = Sink::start()?;
        let cluster = match options.backends().contains(&Backend::Postgres) {
            true => Some(Cluster::start(&folders.create("postgres")?).await?),
            false => None,
        };
        Ok(Self { options, sink, folders, cluster, program })
    }

    /// A new server with a new database.
    pub async fn stage(&self, backend: Backend) -> Result<Stage<'_>> {
        let cluster = self.cluster.as_ref().filter(|_| backend == Backend::Postgres);
        let database = Database::create(backend, self.folders.create("server")?, cluster).await?;
        self.stage_on(database).await
    }

    /// A new server on a database that others may have used before.
    pub async fn stage_on<'a>(&'a self, database: Database<'a>) -> Result<Stage<'a>> {
        let server = Server::start(&self.program, &database).await?;
        Ok(Stage { backend: database.backend, sink: &self.sink, server, database })
    }

    /// Ends what was started.
    pub async fn stop(self) {
        if let Some(cluster) = self.cluster {
            cluster.stop().await;
        }
    }
}

/// A server to measure.
pub struct Stage<'a> {
    /// Its storage.
    pub backend: Backend,
    /// Where its webhooks go.
    pub sink: &'a Sink,
    /// The server; dropped before its database.
    pub server: Server,
    /// Its database.
    pub database: Database<'a>,
}

/// An endpoint for events of one type, with a limit that is never reached: what it costs to count belongs to the
/// measurement.
pub fn endpoint(url: String, event_type: &str) -> Webhook {
    Webhook {
        name: "Endpoint".to_owned(),
        url,
        event_types: vec![event_type.to_owned()],
        rate_limit: Some(limit(i32::MAX, 3_600)),
        ..Webhook::default()
    }
}

/// So many requests in so many seconds.
pub fn limit(requests: i32, seconds: i64) -> WebhookRateLimit {
    WebhookRateLimit { requests, period: Some(prost_types::Duration { seconds, nanos: 0 }) }
}

impl<'a> Stage<'a> {
    /// A client of the server.
    pub async fn client(&self) -> Result<Client> {
        client::client(client::connections(self.server.address(), 1).await?.remove(0))
    }

    /// Adds so many endpoints, all of them at the sink, for the events that are published to be delivered.
    pub async fn add_endpoints(&self, count: u32) -> Result<Vec<String>> {
        self.add((0..count).map(|number| endpoint(self.sink.url(number), WANTED))).await
    }

    /// Adds endpoints, and gives their ids.
    pub async fn add(&self, endpoints: impl IntoIterator<Item = Webhook>) -> Result<Vec<String>> {
        let mut webhooks = self.client().await?.webhooks();
        let mut ids = Vec::new();
        for webhook in endpoints {
            let request = CreateWebhookRequest { webhook: Some(webhook), ..CreateWebhookRequest::default() };
            let answer = webhooks.create_webhook(request).await.context("CreateWebhook")?;
            ids.push(answer.into_inner().webhook.unwrap_or_default().id);
        }
        Ok(ids)
    }

    /// Waits until server and storage have nothing left to do.
    pub async fn settled(&self) -> Result<()> {
        let end = tokio::time::Instant::now() + SETTLE_LIMIT;
        while tokio::time::Instant::now() < end {
            let before = Usage::now(&self.processes());
            tokio::time::sleep(SETTLE_LOOK).await;
            let spent = before.spent(&self.processes());
            if spent.server + spent.postgres.unwrap_or(0.0) <= IDLE * SETTLE_LOOK.as_secs_f64() {
                return Ok(());
            }
        }
        Err(format!("server and storage are still busy after {SETTLE_LIMIT:?}").into())
    }

    /// Waits until so many requests have arrived since they were last taken, and a moment more for those that should not
    /// come. Answers whether they came in time.
    pub async fn drained(&self, deliveries: u64, limit: Duration) -> bool {
        let end = tokio::time::Instant::now() + limit;
        while self.sink.arrived() < deliveries && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.sink.arrived() >= deliveries
    }

    /// The processes whose time is counted.
    pub fn processes(&self) -> Processes {
        let postmaster = self.database.postmaster();
        Processes { server: Some(self.server.pid()), postmaster, load: Vec::new() }
    }

    /// What was spent on so many pieces of work, and what the server holds now.
    pub fn costs(&self, spent: Spent, work: usize) -> Vec<Figure> {
        let each = |seconds: f64| seconds * 1_000_000.0 / work.max(1) as f64;
        let mut figures = vec![Figure::median("server CPU µs each", each(spent.server))];
        figures.extend(spent.postgres.map(|seconds| Figure::median("postgres CPU µs each", each(seconds))));
        figures.push(Figure::median("server RSS MiB", resident(self.server.pid())));
        figures.push(Figure::median("load cores", spent.bench_cores));
        figures.push(Figure::median("other cores", spent.other_cores));
        figures
    }

    /// Ends the server at once, and starts another at the same address. Gives when it was killed, and when the new one was
    /// started.
    pub async fn killed_and_started(self, program: &Path) -> Result<(Self, Instant, Instant)> {
        let Self { backend, sink, server, database } = self;
        let address = server.address().trim_start_matches("http://").to_owned();
        let killed = Instant::now();
        server.kill().await?;
        let started = Instant::now();
        let server = Server::start_at(program, &database, &address).await?;
        Ok((Self { backend, sink, server, database }, killed, started))
    }

    /// Ends the server and leaves its database.
    pub async fn halt(self) -> Database<'a> {
        self.server.stop().await;
        self.database
    }

    /// Ends the server and removes its database.
    pub async fn stop(self) -> Result<()> {
        self.halt().await.remove().await
    }
}

/// The server is started from another folder, so its path must hold there too.
fn absolute(program: &Path) -> Result<PathBuf> {
    program.canonicalize().map_err(|error| -> Error {
        format!("{}: {error}. `benches/run` builds the server", program.display()).into()
    })
}
