//! The composition root: opens, wires, serves, drains.  The only place that knows every part.

mod cluster;
mod files;
mod follow;
mod inbox;
mod keys;
mod live;
mod mail;
mod master;
mod retention;
mod security;
mod tokens;
mod webhooks;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::apikey::Verifier;
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::rpc::server;
use crate::rpc::tls::Tls;
use crate::secret::{SecretText, SharedRandom, SystemRandom};
use crate::webhook::guard::{Lookup, SystemLookup};

pub use files::{Lock as DatabaseLock, prepare as take_database};
pub use master::{NewMaster, Swapped, master_key_opens, rotate_master, warn_of_readers};
pub use wire::{Ground, Wired};

/// How long what is left in hand may take to be given back, in a drain.
const GIVE_BACK: Duration = Duration::from_secs(10);

/// What the server gets from the machine, so that tests can give it something else.
#[derive(Clone)]
pub struct Machine {
    /// The time.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// The addresses of names.
    pub lookup: Arc<dyn Lookup>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            lookup: Arc::new(SystemLookup::default()),
        }
    }
}

/// A running server.
pub struct App {
    address: SocketAddr,
    scheme: &'static str,
    new_admin_key: Option<SecretText>,
    wired: Wired,
    port: tokio::task::JoinHandle<()>,
    stops: Stops,
    /// Held as long as the process uses the embedded database.
    _lock: Option<files::Lock>,
}

/// What ends the parts, in the order of a drain.
#[derive(Clone, Default)]
pub(crate) struct Stops {
    /// No new requests; live streams say good-bye.
    pub port: CancellationToken,
    /// No new attempts.
    pub delivery: CancellationToken,
    /// Nothing more to write.
    pub writer: CancellationToken,
    /// Nothing more to ask the database.
    pub database: CancellationToken,
    /// Attempts, pollers and followers.
    pub tasks: TaskTracker,
    /// The writer's loops.
    pub writers: TaskTracker,
    /// What watches the database and this node's lease to the end.
    pub watchers: TaskTracker,
}

impl App {
    /// Starts everything; answers when the port is open.
    ///
    /// # Errors
    /// When the database, the master key or the port can not be used.
    pub async fn start(config: Config) -> Result<Self> {
        Self::start_on(config, Machine::default()).await
    }

    /// Starts everything with another clock or randomness.
    pub async fn start_on(config: Config, machine: Machine) -> Result<Self> {
        // Before anything else, because it is what an operator is most likely to have to put right.
        let tls = match config.tls.clone() {
            None => None,
            Some(files) => {
                warn_of_readers(&files.key);
                Some(Arc::new(Tls::load(files, config.port.handshakes)?))
            }
        };
        let lock = files::prepare(&config)?;
        let listener = server::listen(config.listen).map_err(|error| {
            Error::unavailable(format!("the address {} can not be listened on", config.listen), error)
        })?;
        let address = listener.local_addr().map_err(Error::internal)?;
        let stops = Stops::default();
        let ground = Ground::open(&config, machine).await?;
        let wired = Wired::new(ground, &config, &stops).await?;
        let new_admin_key = wired.api_keys.create_first(config.admin_key.clone()).await?;
        let router = wired.router(&config, &stops).await?;
        let metrics = Arc::clone(&wired.metrics);
        if let Some(tls) = &tls {
            let followed = Arc::clone(tls).follow(config.port.certificate_check, stops.port.clone());
            stops.tasks.spawn(followed);
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let limits = config.port.clone();
        let port = tokio::spawn(server::serve(listener, router, limits, tls, metrics, stops.port.clone()));
        Ok(Self { scheme, address, new_admin_key, wired, port, stops, _lock: lock })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the port.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The admin key, when this start made it.
    pub fn new_admin_key(&self) -> Option<&SecretText> {
        self.new_admin_key.as_ref()
    }

    /// What verifies keys.
    pub fn verifier(&self) -> &Verifier {
        &self.wired.api_keys.verifier
    }

    /// Looks for due deliveries, for what is too old now and for streams that end, as after a clock was moved.
    pub fn wake(&self) {
        self.wired.webhook_engine.wake();
        self.wired.email_engine.wake();
        self.wired.retention.notify_one();
        self.wired.key_watch.notify_one();
        self.wired.users.wake.notify_one();
        self.wired.inbox_watch.notify_one();
        self.wired.live.wake();
    }

    /// Drains: refuses new requests, lets those under way and the attempts under way end, writes what is left.
    pub async fn stop(self) {
        let Self { wired, port, stops, .. } = self;
        wired.health.stop(wired.methods.services()).await;
        stops.port.cancel();
        if let Err(error) = port.await {
            tracing::error!(%error, "the port ended badly");
        }
        wired.webhook_engine.close();
        wired.email_engine.close();
        stops.delivery.cancel();
        stops.tasks.close();
        if tokio::time::timeout(wire::ATTEMPT_DRAIN, stops.tasks.wait()).await.is_err() {
            tracing::warn!("attempts were cut off by the drain; they are made again at the next start");
        }
        stops.writer.cancel();
        stops.writers.close();
        stops.writers.wait().await;
        if tokio::time::timeout(GIVE_BACK, wired.give_back()).await.is_err() {
            tracing::warn!(
                "the database did not take what was left in time; deliveries in hand are taken up when the lease ends"
            );
        }
        stops.database.cancel();
        // Whoever still had the embedded database would close it beside the next server that opens it.
        stops.watchers.close();
        if tokio::time::timeout(GIVE_BACK, stops.watchers.wait()).await.is_err() {
            tracing::warn!("the database was still being looked at");
        }
    }
}
