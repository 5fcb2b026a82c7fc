//! Makes and changes the tables, at start and by `switchboard migrate`.
//!
//! Each migration is a folder with the same name below `migrations/sqlite` and `migrations/postgres`.  On PostgreSQL
//! an advisory lock lets one node migrate while the others wait; SQLite is held by one process already.

use diesel::migration::{Migration, MigrationSource};
use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{Backend, Db};
use crate::error::{Error, Result};
use crate::failpoint;

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// The key of the advisory lock, any number that nothing else uses.
const LOCK: i64 = 0x7377_6272_6402;

impl Db {
    /// Runs the migrations that this database has not seen, and answers their names.
    ///
    /// # Errors
    /// When one fails (the database is as it was before that one), or when the database is newer than the binary.
    pub async fn migrate(&self) -> Result<Vec<String>> {
        match &self.backend {
            Backend::Sqlite { writer, .. } => {
                let mut writer = writer.lock().await;
                let run = writer.spawn_blocking(|conn| {
                    Ok(conn.exclusive_transaction(|conn| {
                        run(conn, SQLITE).map_err(|error| {
                            diesel::result::Error::QueryBuilderError(error.to_string().into())
                        })
                    }))
                });
                run.await?.map_err(Error::internal)
            }
            Backend::Postgres { url, .. } => migrate_postgres(url).await,
        }
    }
}

/// The migrations of the embedded database that this version knows.
pub(super) fn known() -> Result<Vec<String>> {
    let known: Vec<Box<dyn Migration<diesel::sqlite::Sqlite>>> =
        SQLITE.migrations().map_err(|error| Error::internal(error.to_string()))?;
    Ok(known.iter().map(|migration| migration.name().version().to_string()).collect())
}

async fn migrate_postgres(url: &str) -> Result<Vec<String>> {
    // A connection of its own: the lock lives as long as the session, so that it goes when this ends in any way.
    let mut conn = AsyncPgConnection::establish(url).await.map_err(Error::internal)?;
    diesel::sql_query(format!("SELECT pg_advisory_lock({LOCK})")).execute(&mut conn).await?;
    let mut harness = AsyncMigrationHarness::new(conn);
    tokio::task::block_in_place(|| run(&mut harness, POSTGRES))
        .map_err(|error| Error::internal(error.to_string()))
}

fn run<DB, H>(harness: &mut H, source: EmbeddedMigrations) -> diesel::migration::Result<Vec<String>>
where
    DB: diesel::backend::Backend,
    H: MigrationHarness<DB>,
    EmbeddedMigrations: MigrationSource<DB>,
{
    let known: Vec<Box<dyn Migration<DB>>> = source.migrations()?;
    let known: Vec<String> = known.iter().map(|migration| migration.name().version().to_string()).collect();
    let unknown =
        harness.applied_migrations()?.into_iter().find(|applied| !known.contains(&applied.to_string()));
    if let Some(unknown) = unknown {
        return Err(format!(
            "the database has migration {unknown}, which this version does not know: use a newer one"
        )
        .into());
    }
    let mut done = Vec::new();
    for migration in harness.pending_migrations(source)? {
        done.push(harness.run_migration(&*migration)?.to_string());
        failpoint::pass("migration.middle");
    }
    Ok(done)
}
