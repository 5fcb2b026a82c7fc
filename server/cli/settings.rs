//! `switchboard settings`: settings for whoever has the database and the master key, as after the lists of addresses have nobody
//! any more who could change them.

use clap::{Args, Subcommand};

use super::options::DatabaseOptions;
use super::output;
use crate::app::{Ground, Machine};
use crate::audit::Recorder;
use crate::error::Result;
use crate::settings::{Given, SettingsService, Terms};

/// What to do with settings.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Put settings back to their defaults.  Servers on PostgreSQL follow at once, one on SQLite at its next start.
    Reset(Arguments),
}

/// The settings to put back.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Their keys, such as security.ip_allow.
    #[arg(required = true)]
    keys: Vec<String>,
    /// Why, for the history.
    #[arg(long, default_value = "put back by the command line")]
    reason: String,
    #[command(flatten)]
    database: DatabaseOptions,
}

/// Changes settings.
pub(super) async fn run(verb: Verb) -> Result<()> {
    let Verb::Reset(Arguments { keys, reason, database }) = verb;
    let Ground { db, keyring, machine, .. } = Ground::open(&database.config()?, Machine::default()).await?;
    let (clock, random) = (machine.clock.clone(), machine.random.clone());
    let audit = Recorder::open(&db, &keyring.audit_mac, clock.clone()).await?;
    let settings = SettingsService::open(db, &keyring, audit, clock, random, &Given::default()).await?;
    let values = settings.reset(&keys, Terms { reason, ..Terms::default() }).await?;
    output::line(&format!("the settings are at revision {}", values.revision));
    Ok(())
}
