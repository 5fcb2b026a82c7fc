//! Storage: one database, of one of two kinds, chosen at start.
//!
//! * [`Db`] is the handle.  [`Db::reader`] gives a connection for reading, [`Db::transaction`] runs a unit of work.
//! * [`Conn`] is a connection of either kind; [`on!`](crate::on) runs one diesel query on whichever it is.
//! * [`group`] is the grouped writer, through which hot writes share a commit.
//! * [`sweep`] removes what is too old, a little at a time, and [`partition`] a day at once.
//! * [`migrate`] makes the tables at start, under a lock; [`keyring`] holds the keys that seal secrets.
//!
//! SQLite has one writer: a connection behind a fair lock that hot groups and plain transactions take in turn, always
//! with `BEGIN IMMEDIATE`, so that nobody ever meets a busy database; and a few connections that only read.

pub mod group;
pub mod hint;
pub mod keyring;
pub mod migrate;
pub mod partition;
pub mod revision;
pub mod schema;
pub mod statement;
pub mod sweep;
pub mod types;

use std::ops::DerefMut;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use diesel::SqliteConnection;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use crate::error::{Error, Kind, Result};
use crate::origin;

/// A SQLite connection in an async coat.
pub type AsyncSqliteConnection = SyncConnectionWrapper<SqliteConnection>;
/// What a query answers.
pub type QueryResult<T> = diesel::QueryResult<T>;
/// A connection inside a grouped write on SQLite.
pub type SqliteWriter = SqliteConnection;
/// A connection inside a grouped write on PostgreSQL.
pub type PostgresWriter = AsyncPgConnection;

/// Which database to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The embedded one, in this file.
    Sqlite(PathBuf),
    /// A server, by its URL.
    Postgres(String),
}

/// The database.
#[derive(Clone)]
pub struct Db(Backend);

#[derive(Clone)]
enum Backend {
    Sqlite { writer: Arc<Mutex<AsyncSqliteConnection>>, readers: Pool<AsyncSqliteConnection> },
    Postgres { pool: Pool<AsyncPgConnection>, url: Arc<str> },
}

/// A connection of either kind.
pub enum Conn {
    /// To a PostgreSQL server.
    Postgres(Box<dyn DerefMut<Target = AsyncPgConnection> + Send>),
    /// To the embedded database.
    Sqlite(Box<dyn DerefMut<Target = AsyncSqliteConnection> + Send>),
}

/// Runs one diesel query on whichever database `$conn` leads to.
#[macro_export]
macro_rules! on {
    ($conn:expr, |$c:ident| $query:expr) => {
        match $conn {
            $crate::db::Conn::Postgres(handle) => {
                let $c = &mut ***handle;
                $query
            }
            $crate::db::Conn::Sqlite(handle) => {
                let $c = &mut ***handle;
                $query
            }
        }
    };
}

/// Durable at commit; readers do not wait for the writer; a checkpoint about every 16 MiB; 40 MiB of pages in memory for
/// the writer, who has to touch the indexes of every row, and 8 MiB for each reader.
const SQLITE_SETUP: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000; \
    PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -40960; \
    PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864;";
const SQLITE_READERS: usize = 4;
const POSTGRES_CONNECTIONS: usize = 16;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

impl Db {
    /// Opens the database, without touching its tables.
    ///
    /// # Errors
    /// When it can not be reached or created.
    pub async fn open(target: &Target) -> Result<Self> {
        match target {
            Target::Sqlite(path) => Self::open_sqlite(path).await,
            Target::Postgres(url) => Self::open_postgres(url).await,
        }
    }

    async fn open_sqlite(path: &std::path::Path) -> Result<Self> {
        let path = path.to_str().ok_or_else(|| Error::field("database", "the path is not UTF-8"))?;
        let writer = open_sqlite_connection(path.to_owned(), false).await.map_err(Error::internal)?;
        let mut config = ManagerConfig::default();
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(|path| {
            let path = path.to_owned();
            async move { open_sqlite_connection(path, true).await }.boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config(path, config);
        let readers = Pool::builder(manager).max_size(SQLITE_READERS).build().map_err(Error::internal)?;
        Ok(Self(Backend::Sqlite { writer: Arc::new(Mutex::new(writer)), readers }))
    }

    async fn open_postgres(url: &str) -> Result<Self> {
        let mut config = ManagerConfig::default();
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(|url| {
            let url = url.to_owned();
            async move { open_postgres_connection(&url).await }.boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config(url, config);
        let pool = Pool::builder(manager)
            .max_size(POSTGRES_CONNECTIONS)
            .wait_timeout(Some(ACQUIRE_TIMEOUT))
            .create_timeout(Some(ACQUIRE_TIMEOUT))
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(Error::internal)?;
        let db = Self(Backend::Postgres { pool, url: url.into() });
        db.reader().await?;
        Ok(db)
    }

    /// Whether any number of nodes may share this database.
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Backend::Postgres { .. })
    }

    /// A connection for reading.  On PostgreSQL it could write; only [`Db::transaction`] and [`group`] do.
    ///
    /// # Errors
    /// `UNAVAILABLE` when none is free in time or the server can not be reached.
    pub async fn reader(&self) -> Result<Conn> {
        let unavailable = |error| Error::unavailable("the database can not be reached", format!("{error}"));
        match &self.0 {
            Backend::Sqlite { readers, .. } => {
                Ok(Conn::Sqlite(Box::new(readers.get().await.map_err(unavailable)?)))
            }
            Backend::Postgres { pool, .. } => {
                Ok(Conn::Postgres(Box::new(pool.get().await.map_err(unavailable)?)))
            }
        }
    }

    async fn writer(&self) -> Result<Conn> {
        match &self.0 {
            Backend::Sqlite { writer, .. } => {
                Ok(Conn::Sqlite(Box::new(Arc::clone(writer).lock_owned().await)))
            }
            Backend::Postgres { .. } => self.reader().await,
        }
    }

    /// Runs a unit of work in one transaction and commits it if the work answers `Ok`.
    ///
    /// It runs in a task of its own: a caller that goes away in the middle does not leave it half done.  Whom it is for is
    /// known there too.
    pub async fn transaction<R, F>(&self, work: F) -> Result<R>
    where
        R: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R>> + Send + 'static,
    {
        let db = self.clone();
        let unit = async move {
            let mut conn = db.writer().await?;
            begin(&mut conn).await?;
            // A unit of work that panics must not leave its transaction open on a connection that goes back to the pool.
            let done = AssertUnwindSafe(work(&mut conn)).catch_unwind().await;
            match done.unwrap_or_else(|_| Err(Error::internal("a unit of work panicked"))) {
                Ok(done) => execute(&mut conn, "COMMIT").await.map(|()| done),
                Err(error) => {
                    // The first error is the one to tell; a connection whose rollback failed is broken anyway.
                    let _ = execute(&mut conn, "ROLLBACK").await;
                    Err(error)
                }
            }
        };
        tokio::spawn(origin::carried(unit)).await.map_err(Error::internal)?
    }
}

async fn begin(conn: &mut Conn) -> Result<()> {
    let sql = match conn {
        Conn::Postgres(_) => "BEGIN",
        Conn::Sqlite(_) => "BEGIN IMMEDIATE",
    };
    if execute(conn, sql).await.is_ok() {
        return Ok(());
    }
    // A group that panicked may have left its transaction open on the one writer.
    let _ = execute(conn, "ROLLBACK").await;
    execute(conn, sql).await
}

/// Runs statements that answer nothing.
pub async fn execute(conn: &mut Conn, sql: &str) -> Result<()> {
    Ok(on!(conn, |c| c.batch_execute(sql).await)?)
}

/// Whether the embedded database overwrites what is removed from now on, so that nothing of it stays in its free pages.
/// PostgreSQL does not until it uses the place again.
///
/// # Errors
/// When the database refuses it.
pub async fn overwrite(conn: &mut Conn, on: bool) -> Result<()> {
    match conn {
        Conn::Sqlite(_) => {
            execute(conn, if on { "PRAGMA secure_delete = ON" } else { "PRAGMA secure_delete = OFF" }).await
        }
        Conn::Postgres(_) => Ok(()),
    }
}

async fn open_sqlite_connection(
    path: String,
    read_only: bool,
) -> diesel::ConnectionResult<AsyncSqliteConnection> {
    let mut conn = AsyncSqliteConnection::establish(&path).await?;
    let only = if read_only { "PRAGMA query_only = ON; PRAGMA cache_size = -8192;" } else { "" };
    conn.batch_execute(&format!("{SQLITE_SETUP}{only}"))
        .await
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

const POSTGRES_SETUP: &str =
    "SET application_name = 'switchboard'; SET statement_timeout = '30s'; SET TimeZone = 'UTC';";

async fn open_postgres_connection(url: &str) -> diesel::ConnectionResult<AsyncPgConnection> {
    let mut conn = AsyncPgConnection::establish(url).await?;
    conn.batch_execute(POSTGRES_SETUP).await.map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

impl From<DieselError> for Error {
    fn from(error: DieselError) -> Self {
        match &error {
            DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, _)
            | DieselError::BrokenTransactionManager => {
                Self::unavailable("the database can not be reached", error)
            }
            DieselError::DatabaseError(_, info) if is_out_of_space(info.message()) => {
                Self::unavailable("the database has no space left", error)
            }
            _ => Self::internal(error),
        }
    }
}

fn is_out_of_space(message: &str) -> bool {
    message.contains("disk is full") || message.contains("No space left on device")
}

/// Turns a clash with a unique column into an error that says which.
pub fn on_duplicate(error: DieselError, what: &'static str, id: &str) -> Error {
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => {
            Error::new(Kind::AlreadyExists, "ALREADY_EXISTS", format!("there is a {what} {id:?} already"))
                .with("resource", what)
                .with("id", id)
        }
        other => other.into(),
    }
}
