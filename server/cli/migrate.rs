//! `switchboard migrate`: brings the database up to date without serving.

use super::options::DatabaseOptions;
use super::output;
use crate::db::Db;
use crate::error::Result;

/// Migrates.
pub(super) async fn run(options: DatabaseOptions) -> Result<()> {
    let config = options.config()?;
    std::fs::create_dir_all(&config.data).map_err(crate::error::Error::internal)?;
    let done = Db::open(&config.database).await?.migrate().await?;
    for migration in &done {
        output::line(&format!("ran {migration}"));
    }
    if done.is_empty() {
        output::line("the database is up to date");
    }
    Ok(())
}
