//! `switchboard backup` and `switchboard restore`: the embedded database as one file, and back.

use std::path::PathBuf;

use clap::Args;

use super::options::DatabaseOptions;
use super::output;
use crate::app::{self, Machine};
use crate::config::Config;
use crate::db::Target;
use crate::db::backup::restore::Restored;
use crate::db::backup::{self, Contents, restore};
use crate::error::{Error, Kind, Result};

/// What to back up.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file to make.  One that is there is never written over.
    path: PathBuf,
    #[command(flatten)]
    database: DatabaseOptions,
}

/// What to restore.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The backup.
    path: PathBuf,
    /// Replace the database that is there; it is kept under another name.
    #[arg(long)]
    replace: bool,
    /// Check everything and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    database: DatabaseOptions,
}

/// Backs up.
pub(super) async fn back_up(arguments: Backup) -> Result<()> {
    crate::telemetry::start_logging(false);
    let source = embedded(&arguments.database.config()?)?;
    let Machine { clock, random, .. } = Machine::default();
    let target = arguments.path.clone();
    let made = blocking(move || backup::make(&source, &target, clock.now(), &*random)).await?;
    output::line(&format!("{} is made: {}", arguments.path.display(), summary(&made)));
    output::line(&format!("audit log checkpoint {}", made.audit));
    output::note(
        "the master key is not in it: keep master.key, or SWITCHBOARD_MASTER_KEY, in another place; without it \
         the secrets of a restored database can not be opened",
    );
    Ok(())
}

/// Restores.
pub(super) async fn restore(arguments: Restore) -> Result<()> {
    crate::telemetry::start_logging(false);
    let config = arguments.database.config()?;
    let database = embedded(&config)?;
    let Restore { path, replace, dry_run, .. } = arguments;
    let shown = path.display().to_string();
    if dry_run {
        let contents = blocking(move || restore::check(&path, &database, replace)).await?;
        output::line(&format!("{shown} is good: {}", summary(&contents)));
        return Ok(());
    }
    // No server may have it, nor begin to.
    let _lock = app::take_database(&config)?;
    let Machine { clock, random, .. } = Machine::default();
    let place = database.clone();
    let done = blocking(move || restore::restore(&path, &place, replace, clock.now(), &*random)).await;
    let Restored { contents, kept } = done.map_err(|error| match error.reason() {
        "DATABASE_EXISTS" => Error::new(
            error.kind(),
            error.reason(),
            format!(
                "{}: --replace puts the backup in its place, and keeps it under another name",
                error.message()
            ),
        ),
        _ => error,
    })?;
    output::line(&format!("{} is restored from {shown}: {}", database.display(), summary(&contents)));
    output::line(&format!("audit log checkpoint {}", contents.audit));
    if let Some(kept) = kept {
        output::line(&format!("what was there before is {}", kept.display()));
    }
    match app::master_key_opens(&config).await {
        Ok(Some(true)) => output::line("the master key that is here opens its secrets"),
        Ok(Some(false)) => {
            output::note("the master key that is here is another one: bring the one of the backup's server");
        }
        Ok(None) => output::note(
            "bring the master key of the backup's server before you start one, as master.key in the data folder or as \
             SWITCHBOARD_MASTER_KEY",
        ),
        Err(error) => {
            output::note(&format!("whether the master key is the right one will show at the start: {error}"));
        }
    }
    Ok(())
}

fn embedded(config: &Config) -> Result<PathBuf> {
    match &config.database {
        Target::Sqlite(path) => Ok(path.clone()),
        Target::Postgres(_) => Err(Error::new(
            Kind::FailedPrecondition,
            "DATABASE_NOT_EMBEDDED",
            "this is for the embedded database; for PostgreSQL use its own tools, pg_dump and pg_restore: see \
             docs/operations.md",
        )),
    }
}

fn summary(contents: &Contents) -> String {
    let Contents { version, created_at, migration, events, bytes, .. } = contents;
    format!(
        "made by version {version} at {created_at}, schema {migration}, {bytes} bytes, events up to {events}"
    )
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}
