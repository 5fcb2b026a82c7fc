//! What the process is told at its start: by flags and by its environment.
//!
//! These are the things that must be known before there is a database, or that decide who may reach the server.
//! Everything else is a setting, in the database.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;

use crate::db::Target;
use crate::delivery::{Limits, node};
use crate::error::{Error, Result};
use crate::notification::registry::Unread;
use crate::rpc::{server, tls};
use crate::secret::SecretText;

/// The process's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the server keeps its files.
    pub data: PathBuf,
    /// The database.
    pub database: Target,
    /// Private ranges that webhooks may go to.
    pub allow_network: Vec<IpNet>,
    /// Hosts that webhooks may go to on a private network: exact names, or `*.example.com`.
    pub allow_host: Vec<String>,
    /// Origins whose pages may call; `*` alone means all.
    pub allow_origin: Vec<HeaderValue>,
    /// The first admin key, instead of having one made.
    pub admin_key: Option<SecretText>,
    /// The key that wraps the keys in the database, instead of the file `master.key`; base64 of 32 bytes.
    pub master_key: Option<SecretText>,
    /// The master key that is to follow, so that a start works before and after the keys are wrapped by it.
    pub new_master_key: Option<SecretText>,
    /// Whether webhooks must go over TLS.
    pub production: bool,
    /// Whether the server describes itself to clients.
    pub reflection: bool,
    /// Variables that pin settings.
    pub environment: HashMap<String, String>,
    /// Settings that flags pin, as `KEY=VALUE`.
    pub set: Vec<String>,
    /// The file whose settings are pinned.
    pub file: Option<PathBuf>,
    /// The port's certificate; without one it does not speak TLS.
    pub tls: Option<tls::Files>,
    /// Limits of the port.
    pub port: server::Limits,
    /// How long a subscriber may leave what is sent to it unread.
    pub unread: Unread,
    /// Limits of webhook deliveries.
    pub webhooks: Limits,
    /// How long this node's deliveries stay its own after its last sign of life, on PostgreSQL.
    pub lease: Duration,
    /// Whether nodes on PostgreSQL tell each other when there is something to look at, beside looking by themselves.
    pub hints: bool,
}

impl Config {
    /// Defaults, on a free port of this machine, with an embedded database in `data`.
    pub fn local(data: PathBuf) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            database: Target::Sqlite(data.join(DATABASE_FILE)),
            data,
            allow_network: Vec::new(),
            allow_host: Vec::new(),
            allow_origin: Vec::new(),
            admin_key: None,
            master_key: None,
            new_master_key: None,
            production: false,
            reflection: true,
            environment: HashMap::new(),
            set: Vec::new(),
            file: None,
            tls: None,
            port: server::Limits::default(),
            unread: Unread::default(),
            webhooks: Limits::default(),
            lease: node::LEASE,
            hints: true,
        }
    }
}

/// The embedded database's file.
pub const DATABASE_FILE: &str = "switchboard.db";

/// Reads `DATABASE_URL`: nothing or `sqlite:PATH` is the embedded database, `postgres:…` a server.
///
/// # Errors
/// `INVALID_ARGUMENT` for anything else.
pub fn database(url: Option<&str>, data: &std::path::Path) -> Result<Target> {
    match url.filter(|url| !url.is_empty()) {
        None => Ok(Target::Sqlite(data.join(DATABASE_FILE))),
        Some(url) if url.starts_with("postgres:") || url.starts_with("postgresql:") => {
            Ok(Target::Postgres(url.into()))
        }
        Some(url) => match url.strip_prefix("sqlite:") {
            Some(path) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                Ok(Target::Sqlite(if path.is_empty() { data.join(DATABASE_FILE) } else { path.into() }))
            }
            None => Err(Error::field(
                "DATABASE_URL",
                "must be sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE",
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_chosen_by_its_url() {
        let data = std::path::Path::new("d");
        let of = |url| database(url, data).ok();
        assert_eq!(of(None), Some(Target::Sqlite("d/switchboard.db".into())));
        assert_eq!(of(Some("sqlite:")), Some(Target::Sqlite("d/switchboard.db".into())));
        assert_eq!(of(Some("sqlite:///var/x.db")), Some(Target::Sqlite("/var/x.db".into())));
        assert_eq!(of(Some("sqlite:x.db")), Some(Target::Sqlite("x.db".into())));
        assert_eq!(of(Some("postgres://h/d")), Some(Target::Postgres("postgres://h/d".into())));
        assert_eq!(of(Some("mysql://h/d")), None);
    }
}
