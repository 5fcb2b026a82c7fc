//! `switchboard serve`: runs until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use http::HeaderValue;
use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};

use super::options::{DatabaseOptions, secret};
use super::output;
use super::tls::TlsOptions;
use crate::app::App;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::telemetry;

/// How to serve.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The address to listen on.
    #[arg(long, env = "SWITCHBOARD_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    #[command(flatten)]
    database: DatabaseOptions,
    /// A file with settings, as TOML.  They can not be changed while the server runs.
    #[arg(long, env = "SWITCHBOARD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting that can not be changed while the server runs, such as email.smtp_port=2525.  May be given several
    /// times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Private ranges that webhooks may go to, such as 127.0.0.0/8.  May be given several times.
    #[arg(long, env = "SWITCHBOARD_ALLOW_NETWORK", value_delimiter = ',')]
    allow_network: Vec<IpNet>,
    /// Hosts that webhooks may go to on a private network, such as hooks.internal, or *.corp.example for all below it.
    /// May be given several times.
    #[arg(long, env = "SWITCHBOARD_ALLOW_HOST", value_delimiter = ',')]
    allow_host: Vec<String>,
    /// Origins whose pages may call, such as https://app.example.com, or * for all.  May be given several times.
    #[arg(long, env = "SWITCHBOARD_ALLOW_ORIGIN", value_delimiter = ',')]
    allow_origin: Vec<HeaderValue>,
    #[command(flatten)]
    tls: TlsOptions,
    /// Refuse webhooks that do not go over TLS.
    #[arg(long, env = "SWITCHBOARD_PRODUCTION")]
    production: bool,
    /// Do not describe the services to clients that ask.
    #[arg(long, env = "SWITCHBOARD_NO_REFLECTION")]
    no_reflection: bool,
    /// Log as JSON.
    #[arg(long, env = "SWITCHBOARD_LOG_JSON")]
    log_json: bool,
}

impl Arguments {
    fn config(self) -> Result<Config> {
        let mut config = self.database.config()?;
        config.listen = self.listen;
        config.allow_network = self.allow_network;
        config.allow_host = self.allow_host;
        config.allow_origin = self.allow_origin;
        config.tls = self.tls.files(self.config.as_deref())?;
        config.production = self.production;
        config.reflection = !self.no_reflection;
        config.admin_key = secret("SWITCHBOARD_ADMIN_KEY")?;
        config.environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        config.set = self.set;
        config.file = self.config;
        Ok(config)
    }
}

/// Serves.
pub(super) async fn run(arguments: Arguments) -> Result<()> {
    telemetry::start_logging(arguments.log_json);
    let config = arguments.config()?;
    let brought = config.admin_key.is_some();
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::internal)?;
    let app = App::start(config).await?;
    if let Some(key) = app.new_admin_key().filter(|_| !brought) {
        output::line(&format!("admin key, shown this once: {}", key.reveal()));
    }
    output::line(&format!("switchboard is ready on {}", app.url()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tracing::info!("draining");
    app.stop().await;
    Ok(())
}
