//! Storage: one database, of one of two kinds, chosen at start.
//!
//! * [`Db`] is the handle.  [`Db::reader`] gives a connection for reading, [`Db::transaction`] runs a unit of work.
//! * [`Conn`] is a connection of either kind; [`on!`](crate::on) runs one diesel query on whichever it is.
//! * [`group`] is the grouped writer, through which hot writes share a commit.
//! * [`trouble`] is what can be wrong with the database itself; [`Db::look_after`] notices that, and when it is over.
//! * [`sweep`] removes what is too old, a little at a time, and [`partition`] a day at once.
//! * [`migrate`] makes the tables at start, under a lock; [`keyring`] holds the keys that seal secrets.
//! * [`backup`] makes one file of the embedded database, and brings it back.
//!
//! SQLite has one writer: a connection behind a fair lock that hot groups and plain transactions take in turn, always
//! with `BEGIN IMMEDIATE`, so that nobody ever meets a busy database; and a few connections that only read.

pub mod backup;
mod condition;
pub mod group;
pub mod hint;
pub mod keyring;
pub mod migrate;
pub mod partition;
pub mod revision;
pub mod schema;
pub mod statement;
pub mod sweep;
pub mod trouble;
pub mod types;

use std::ops::DerefMut;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use condition::Condition;
use diesel::SqliteConnection;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use trouble::Trouble;

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
pub struct Db {
    backend: Backend,
    condition: Arc<Condition>,
}

#[derive(Clone)]
enum Backend {
    Sqlite {
        writer: Arc<Mutex<AsyncSqliteConnection>>,
        readers: Pool<AsyncSqliteConnection>,
        path: Arc<Path>,
    },
    Postgres {
        pool: Pool<AsyncPgConnection>,
        url: Arc<str>,
    },
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
/// First how long to wait for others: a process that ends may just be closing the database.
const SQLITE_SETUP: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
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

    async fn open_sqlite(file: &Path) -> Result<Self> {
        let path = file.to_str().ok_or_else(|| Error::field("database", "the path is not UTF-8"))?;
        let writer = open_sqlite_connection(path.to_owned(), false).await.map_err(Error::internal)?;
        let mut config = ManagerConfig::default();
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(|path| {
            let path = path.to_owned();
            async move { open_sqlite_connection(path, true).await }.boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config(path, config);
        let readers = Pool::builder(manager).max_size(SQLITE_READERS).build().map_err(Error::internal)?;
        let writer = Arc::new(Mutex::new(writer));
        Ok(Self {
            backend: Backend::Sqlite { writer, readers, path: file.into() },
            condition: Arc::default(),
        })
    }

    async fn open_postgres(url: &str) -> Result<Self> {
        let condition = Arc::new(Condition::default());
        let mut config = ManagerConfig::default();
        config.recycling_method = RecyclingMethod::Fast;
        let cuts = Arc::clone(&condition);
        config.custom_setup = Box::new(move |url| {
            let (url, cut) = (url.to_owned(), cuts.cut_token());
            async move { open_pooled_connection(&url, cut).await }.boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config(url, config);
        let pool = Pool::builder(manager)
            .max_size(POSTGRES_CONNECTIONS)
            .wait_timeout(Some(ACQUIRE_TIMEOUT))
            .create_timeout(Some(ACQUIRE_TIMEOUT))
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(Error::internal)?;
        let db = Self { backend: Backend::Postgres { pool, url: url.into() }, condition };
        db.reader().await?;
        Ok(db)
    }

    /// Whether any number of nodes may share this database.
    pub fn is_shared(&self) -> bool {
        matches!(self.backend, Backend::Postgres { .. })
    }

    /// A connection for reading.  On PostgreSQL it could write; only [`Db::transaction`] and [`group`] do.
    ///
    /// # Errors
    /// `UNAVAILABLE` when none is free in time or the server can not be reached.
    pub async fn reader(&self) -> Result<Conn> {
        let unavailable = |error| Trouble::Unreachable.error(format!("{error}"));
        let silent = || Trouble::Unreachable.error("it gives no sign of life");
        if self.trouble() == Some(Trouble::Unreachable) {
            return Err(silent());
        }
        match &self.backend {
            Backend::Sqlite { readers, .. } => {
                Ok(Conn::Sqlite(Box::new(readers.get().await.map_err(unavailable)?)))
            }
            Backend::Postgres { pool, .. } => {
                let mut troubles = self.troubles();
                tokio::select! {
                    biased;
                    conn = pool.get() => Ok(Conn::Postgres(Box::new(conn.map_err(unavailable)?))),
                    _ = troubles.wait_for(|trouble| *trouble == Some(Trouble::Unreachable)) => Err(silent()),
                }
            }
        }
    }

    async fn writer(&self) -> Result<Conn> {
        match &self.backend {
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
        let done = tokio::spawn(origin::carried(unit)).await.map_err(Error::internal)?;
        if let Err(error) = &done {
            self.condition.note(error);
        }
        done
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

/// How long the network may swallow what was sent before the connection counts as lost.
const LOST: Duration = Duration::from_secs(10);
/// How long a connection may be silent before the network is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(30);

/// A connection that ends when `cut` says so, whatever it waits for.
async fn open_pooled_connection(
    url: &str,
    cut: CancellationToken,
) -> diesel::ConnectionResult<AsyncPgConnection> {
    let invalid =
        |error: tokio_postgres::Error| diesel::ConnectionError::InvalidConnectionUrl(error.to_string());
    let mut config: tokio_postgres::Config = url.parse().map_err(invalid)?;
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(LOST);
    }
    config.keepalives_idle(SILENCE.min(config.get_keepalives_idle()));
    let bad = |error: tokio_postgres::Error| {
        // Its own text says only that there is an error.
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        diesel::ConnectionError::BadConnection(format!("{error}{cause}"))
    };
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(bad)?;
    tokio::spawn(async move {
        tokio::select! {
            // Whoever waits for an answer learns how it ended.
            _ = connection => {}
            () = cut.cancelled() => {}
        }
    });
    let mut conn = AsyncPgConnection::try_from(client).await?;
    conn.batch_execute(POSTGRES_SETUP).await.map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

const POSTGRES_SETUP: &str =
    "SET application_name = 'switchboard'; SET statement_timeout = '30s'; SET TimeZone = 'UTC';";

async fn open_postgres_connection(url: &str) -> diesel::ConnectionResult<AsyncPgConnection> {
    let mut conn = AsyncPgConnection::establish(url).await?;
    conn.batch_execute(POSTGRES_SETUP).await.map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
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
