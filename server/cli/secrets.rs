//! `switchboard secrets`: the keys that secrets are sealed under.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::options::DatabaseOptions;
use super::output;
use crate::app::{Ground, Machine, NewMaster, Swapped, rotate_master};
use crate::db::keyring::rotate::{self, Beginning};
use crate::db::keyring::status;
use crate::error::{Error, Kind, Result};
use crate::id::Kind as IdKind;

/// How often what others sealed meanwhile is looked for: each time finds less, and mostly nothing.
const PASSES: usize = 100;

/// What to do with the keys.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Seal every secret under a new data key, or wrap the data keys by a new master key.  Servers may run meanwhile.  What
    /// was cut off goes on where it was.
    Rotate(Rotate),
    /// Show the data keys, their age and how many values each seals.
    Status(Look),
}

/// What to rotate.
#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// Wrap the data keys by another master key instead: the one in this file, which is made if it is not there, or env for
    /// the one in SWITCHBOARD_NEW_MASTER_KEY.
    #[arg(long, value_name = "FILE|env")]
    new_master_key: Option<PathBuf>,
    /// How many values are sealed anew in one transaction.
    #[arg(long, default_value_t = 100, hide = true)]
    batch: usize,
    #[command(flatten)]
    database: DatabaseOptions,
}

/// What to look at.
#[derive(Debug, Args)]
pub(super) struct Look {
    /// Open every sealed value, and fail if one does not open.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    database: DatabaseOptions,
}

/// Looks after the keys.
pub(super) async fn run(verb: Verb) -> Result<()> {
    crate::telemetry::start_logging(false);
    match verb {
        Verb::Status(look) => show(look).await,
        Verb::Rotate(Rotate { new_master_key: None, batch, database }) => {
            rotate_data_key(&Ground::open(&database.config()?, Machine::default()).await?, batch).await
        }
        Verb::Rotate(Rotate { new_master_key: Some(new), database, .. }) => {
            let config = database.config()?;
            let ground = Ground::open(&config, Machine::default()).await?;
            let new = if new.as_os_str() == "env" { NewMaster::Environment } else { NewMaster::File(new) };
            output::line(match rotate_master(&ground, &config, &new).await? {
                Swapped::File => {
                    "the data keys are wrapped by the new master key, which is in master.key now: back it up"
                }
                Swapped::Environment => {
                    "the data keys are wrapped by the new master key: give it to every server as \
                     SWITCHBOARD_MASTER_KEY, and start them again"
                }
            });
            Ok(())
        }
    }
}

async fn rotate_data_key(ground: &Ground, batch: usize) -> Result<()> {
    let Ground { db, keyring, machine, ids, .. } = ground;
    let sealer = &keyring.sealer;
    output::line(match rotate::begin(db, sealer, ids.next(IdKind::DataKey), machine.clock.now()).await? {
        Beginning::Anew => "a new data key seals from now on",
        Beginning::Resumed => "going on with a rotation that was cut off",
    });
    let mut total = 0;
    for _ in 0..PASSES {
        total += rotate::reseal(db, sealer, batch, |done| {
            output::line(&format!("{} values are sealed anew", total + done));
        })
        .await?;
        if let Some(dropped) = rotate::finish(db, sealer).await? {
            output::line(&format!("done: {total} values were sealed anew, {dropped} old data keys dropped"));
            return Ok(());
        }
    }
    let message =
        "something still seals under the old data key: stop servers of an older version, and run this again";
    Err(Error::new(Kind::FailedPrecondition, "OLD_DATA_KEY_IN_USE", message))
}

async fn show(look: Look) -> Result<()> {
    let ground = Ground::open(&look.database.config()?, Machine::default()).await?;
    let now = ground.machine.clock.now();
    let status = status::status(&ground.db).await?;
    for key in &status.keys {
        let days = now.since(key.created_at).as_secs() / 86_400;
        let state = if key.retired_at.is_some() { "retired" } else { "active" };
        let values = key.values.map(|values| format!("  {values} values")).unwrap_or_default();
        output::line(&format!("{}  {}  {state}  {days} days old{values}", key.id, key.purpose));
    }
    if status.unnamed > 0 {
        let unnamed = status.unnamed;
        output::line(&format!(
            "{unnamed} values do not name their key, which is the oldest: a rotation names it"
        ));
    }
    if look.check {
        let check = status::check(&ground.db, &ground.keyring.sealer).await?;
        output::line(&format!("{} values open, {} do not", check.good, check.broken.len()));
        check.broken.iter().for_each(|place| output::line(&format!("does not open: {place}")));
        if !check.broken.is_empty() {
            let message = "there are sealed values that open under no key";
            return Err(Error::new(Kind::FailedPrecondition, "SECRETS_DO_NOT_OPEN", message));
        }
    }
    Ok(())
}
