//! What a measurement stands on: a new server on the storage in question, and the sink.

use std::path::{Path, PathBuf};
use std::time::Duration;

use switchboard_client::webhook::v1::{CreateWebhookRequest, Webhook, WebhookRateLimit};

use crate::client::{self, WANTED};
use crate::error::{Context, Error, Result};
use crate::folder::Folders;
use crate::options::{Backend, Options};
use crate::postgres::Cluster;
use crate::report::Figure;
use crate::server::Server;
use crate::sink::Sink;
use crate::smtp_sink;
use crate::usage::{Processes, Spent, resident};

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
        let folder = self.folders.create("server")?;
        let (cluster, database) = match (backend, &self.cluster) {
            (Backend::Postgres, Some(cluster)) => (Some(cluster), Some(cluster.create(DATABASE).await?)),
            _ => (None, None),
        };
        let server = Server::start(&self.program, &folder, database.as_deref()).await?;
        Ok(Stage { backend, sink: &self.sink, server, cluster })
    }

    /// Ends what was started.
    pub async fn stop(self) {
        if let Some(cluster) = self.cluster {
            cluster.stop().await;
        }
    }
}

/// The database that each server in turn finds empty.
const DATABASE: &str = "switchboard";

/// A server to measure.
pub struct Stage<'a> {
    /// Its storage.
    pub backend: Backend,
    /// Where its webhooks go.
    pub sink: &'a Sink,
    /// The server.
    pub server: Server,
    cluster: Option<&'a Cluster>,
}

impl Stage<'_> {
    /// Adds so many endpoints, all of them at the sink.
    pub async fn add_endpoints(&self, count: u32) -> Result<()> {
        let channel = client::connections(self.server.address(), 1).await?.remove(0);
        let mut webhooks = client::client(channel)?.webhooks();
        for number in 0..count {
            let webhook = Webhook {
                name: format!("Endpoint {number}"),
                url: self.sink.url(number),
                event_types: vec![WANTED.to_owned()],
                // A limit that is never reached: what it costs to count belongs to the measurement.
                rate_limit: Some(WebhookRateLimit {
                    requests: i32::MAX,
                    period: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
                }),
                ..Webhook::default()
            };
            let request = CreateWebhookRequest { webhook: Some(webhook), ..CreateWebhookRequest::default() };
            webhooks.create_webhook(request).await.context("CreateWebhook")?;
        }
        Ok(())
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
        let postmaster = self.cluster.map(Cluster::postmaster);
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

    /// Ends the server and removes its database.
    pub async fn stop(self) -> Result<()> {
        self.server.stop().await;
        match self.cluster {
            Some(cluster) => cluster.remove(DATABASE).await,
            None => Ok(()),
        }
    }
}

/// The server is started from another folder, so its path must hold there too.
fn absolute(program: &Path) -> Result<PathBuf> {
    program.canonicalize().map_err(|error| -> Error {
        format!("{}: {error}. `benches/run` builds the server", program.display()).into()
    })
}
