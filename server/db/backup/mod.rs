//! Backups of the embedded database: one file, made while a server writes, and put back while none runs.
//!
//! A backup is a packed database with a [`seal`] behind it, which says what is in it and has the checksum of all of it.
//!
//! [`make`] copies by `VACUUM INTO`, which is one read transaction of another process: everything that was committed before it
//! began is in the copy, and the server's writer never waits for it.  SQLite's page by page copy would begin anew with
//! every commit of that writer and so never end on a busy server; in one step it would hold the same read transaction, and
//! copy the free pages too.  Until the copy is there SQLite can not begin its `-wal` file anew, which grows by what is
//! written meanwhile.
//!
//! [`restore`] refuses what is not whole, and leaves what was there in place until what replaces it is complete.
//!
//! The master key is in no backup: whoever finds one can not open the secrets in it.

pub mod restore;
pub mod seal;

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::secret::Random;
pub use seal::Contents;

/// Makes a backup of the database in `source`, as the new file `target`, which only its owner can read.  Blocks until it is
/// checked and durable.
///
/// # Errors
/// `FAILED_PRECONDITION` when there is no database or the copy is not sound; `ALREADY_EXISTS` when the target is there, which
/// is never written over; `RESOURCE_EXHAUSTED` when it does not fit.
pub fn make(source: &Path, target: &Path, now: Timestamp, random: &dyn Random) -> Result<Contents> {
    if !source.is_file() {
        let message = format!("there is no database in {}", source.display());
        return Err(Error::new(Kind::FailedPrecondition, "DATABASE_MISSING", message));
    }
    if target.exists() {
        return Err(exists(target));
    }
    let draft = Draft::beside(target, random)?;
    let mut conn = open(source)?;
    let copied = sql_query("VACUUM INTO ?").bind::<Text, _>(text(&draft.path)?).execute(&mut conn);
    copied.map_err(|error| {
        let message = format!("{} can not be copied to {}", source.display(), target.display());
        Error::unavailable(message, error)
    })?;
    drop(conn);
    let found = inspect(&draft.path)?;
    let contents = Contents {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        created_at: now.to_string(),
        migration: found.migrations.last().cloned().unwrap_or_default(),
        events: found.events,
        audit: found.audit,
        bytes: fs::metadata(&draft.path).map_err(|error| unwritable(target, error))?.len(),
    };
    seal::close(&draft.path, &contents).map_err(|error| unwritable(target, error))?;
    draft.publish(target)?;
    Ok(contents)
}

/// Reads a backup from its beginning to its end, and answers what is in it.
///
/// # Errors
/// `FAILED_PRECONDITION` when one byte of it is not what was written.
pub fn check(backup: &Path) -> Result<Contents> {
    seal::open(backup)?.copy_to(&mut std::io::sink())
}

/// A file that gets its name when it is complete, and is removed otherwise.
struct Draft {
    path: PathBuf,
}

impl Draft {
    /// An empty one in the folder of `target`.
    fn beside(target: &Path, random: &dyn Random) -> Result<Self> {
        let mut suffix = [0; 8];
        random.fill(&mut suffix);
        let mut name = target.to_path_buf().into_os_string();
        name.push(format!(".draft-{:016x}", u64::from_le_bytes(suffix)));
        let path = std::path::absolute(PathBuf::from(name)).map_err(|error| unwritable(target, error))?;
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.map_err(|error| unwritable(target, error))?;
        Ok(Self { path })
    }

    /// Gives it its name, which nobody may have.
    fn publish(self, target: &Path) -> Result<()> {
        let published = fs::hard_link(&self.path, target).or_else(|error| match error.kind() {
            ErrorKind::AlreadyExists => Err(error),
            // A file system without links: what is renamed over is an empty file of our own.
            _ => {
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
                fs::rename(&self.path, target)
            }
        });
        match published.and_then(|()| sync_folder(target)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(exists(target)),
            done => done.map_err(|error| unwritable(target, error)),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is gone when it was renamed.
        let _ = fs::remove_file(&self.path);
    }
}

/// What is in a database.
struct Found {
    migrations: Vec<String>,
    events: i64,
    audit: String,
}

#[derive(QueryableByName)]
struct Value {
    #[diesel(sql_type = Text)]
    value: String,
}

/// Looks through a database that nobody else has open, and changes nothing.
fn inspect(path: &Path) -> Result<Found> {
    let mut conn = open(path)?;
    let mut values = |query: &str| -> diesel::QueryResult<Vec<String>> {
        let rows: Vec<Value> = sql_query(query).load(&mut conn)?;
        Ok(rows.into_iter().map(|row| row.value).collect())
    };
    let faults = values("SELECT integrity_check AS value FROM pragma_integrity_check")?;
    if faults != ["ok"] {
        let message = format!("the database is damaged: {}", faults.join(", "));
        return Err(Error::new(Kind::FailedPrecondition, "DATABASE_DAMAGED", message));
    }
    let foreign = |_| {
        Error::new(Kind::FailedPrecondition, "DATABASE_FOREIGN", "the database is not one of Switchboard")
    };
    let migrations = values("SELECT version AS value FROM __diesel_schema_migrations ORDER BY version")
        .map_err(foreign)?;
    let events = values("SELECT CAST(next_position - 1 AS TEXT) AS value FROM event_log").map_err(foreign)?;
    // Databases of the first versions have no audit log.
    let audit = values("SELECT seq || ':' || hash AS value FROM audit_head").unwrap_or_default();
    Ok(Found {
        migrations,
        events: events.first().and_then(|text| text.parse().ok()).unwrap_or_default(),
        audit: audit.into_iter().next().unwrap_or_else(|| "0:".to_owned()),
    })
}

fn open(path: &Path) -> Result<SqliteConnection> {
    let path = std::path::absolute(path).map_err(Error::internal)?;
    let unavailable = |error: diesel::ConnectionError| {
        Error::unavailable(format!("{} can not be opened", path.display()), error)
    };
    let mut conn = SqliteConnection::establish(text(&path)?).map_err(unavailable)?;
    conn.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA temp_store = MEMORY")?;
    Ok(conn)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::field("path", "is not UTF-8"))
}

fn sync_folder(file: &Path) -> std::io::Result<()> {
    let file = std::path::absolute(file)?;
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn exists(target: &Path) -> Error {
    let message = format!("{} is there already, and nothing is written over", target.display());
    Error::new(Kind::AlreadyExists, "FILE_EXISTS", message)
}

fn unwritable(target: &Path, error: std::io::Error) -> Error {
    Error::unavailable(format!("{} can not be written", target.display()), error)
}
