//! Puts a backup in the place of the embedded database, while no server runs.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection;
use diesel::sql_types::BigInt;
use diesel::{RunQueryDsl, sql_query};

use super::{Contents, Draft, inspect, open, seal, sync_folder, unwritable};
use crate::clock::Timestamp;
use crate::db::migrate;
use crate::error::{Error, Kind, Result};
use crate::secret::Random;

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup held.
    pub contents: Contents,
    /// Where the database is kept that was there before.
    pub kept: Option<PathBuf>,
}

/// Refuses what [`restore`] would refuse, and changes nothing; answers what the backup holds.
///
/// # Errors
/// As [`restore`]'s.
pub fn check(backup: &Path, database: &Path, replace: bool) -> Result<Contents> {
    refuse_existing(database, replace)?;
    let sealed = seal::open(backup)?;
    refuse_unknown(backup, std::slice::from_ref(&sealed.contents.migration))?;
    sealed.copy_to(&mut io::sink())
}

/// Makes what is in `backup` the database in the file `database`, which the caller keeps everybody else from.  A database that
/// is there is refused unless it is to be replaced, and then kept under another name.  The event log gets another epoch:
/// what subscribers have seen of it since the backup is to be told from what will stand there.
///
/// # Errors
/// `FAILED_PRECONDITION` when the backup is not whole or newer than this program, or the database is there or in use;
/// `UNAVAILABLE` when a file can not be read or written.
pub fn restore(
    backup: &Path,
    database: &Path,
    replace: bool,
    now: Timestamp,
    random: &dyn Random,
) -> Result<Restored> {
    refuse_existing(database, replace)?;
    let sealed = seal::open(backup)?;
    let failed = |error| unwritable(database, error);
    let draft = Draft::beside(database, random)?;
    let mut file = OpenOptions::new().write(true).open(&draft.path).map_err(failed)?;
    let contents = sealed.copy_to(&mut file)?;
    drop(file);
    refuse_unknown(backup, &inspect(&draft.path)?.migrations)?;
    let mut epoch = [0; 8];
    random.fill(&mut epoch);
    let mut conn = open(&draft.path)?;
    sql_query("UPDATE event_log SET epoch = ?")
        .bind::<BigInt, _>(i64::from_le_bytes(epoch))
        .execute(&mut conn)?;
    drop(conn);
    OpenOptions::new().write(true).open(&draft.path).and_then(|file| file.sync_all()).map_err(failed)?;
    let kept = set_aside(database, now)?;
    fs::rename(&draft.path, database).and_then(|()| sync_folder(database)).map_err(failed)?;
    Ok(Restored { contents, kept })
}

fn refuse_existing(database: &Path, replace: bool) -> Result<()> {
    if replace || !(database.exists() || beside(database, "-wal").exists()) {
        return Ok(());
    }
    let message = format!("there is a database in {}", database.display());
    Err(Error::new(Kind::FailedPrecondition, "DATABASE_EXISTS", message))
}

fn refuse_unknown(backup: &Path, migrations: &[String]) -> Result<()> {
    let known = migrate::known()?;
    if migrations.iter().all(|migration| known.contains(migration)) {
        Ok(())
    } else {
        Err(seal::too_new(backup))
    }
}

/// Gives the database that is there a second name, under which it stays, and takes its `-wal` out of the way: SQLite would
/// take it for that of the restored one.  At every moment there is a whole database under the first name.
fn set_aside(database: &Path, now: Timestamp) -> Result<Option<PathBuf>> {
    let failed = |error| unwritable(database, error);
    let kept = beside(database, &format!(".replaced-{}", now.seconds()));
    let (wal, shm) = (beside(database, "-wal"), beside(database, "-shm"));
    let is_there = database.exists();
    if is_there {
        // Whoever closes a database last brings its -wal into its file.  One that is damaged keeps it.
        let sound =
            open(database).and_then(|mut conn| Ok(conn.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)")?));
        if sound.is_ok() && wal.exists() {
            let message = format!("another program has {} open", database.display());
            return Err(Error::new(Kind::FailedPrecondition, "DATABASE_IN_USE", message));
        }
        fs::hard_link(database, &kept).or_else(|_| copy_new(database, &kept)).map_err(failed)?;
    }
    rename_if_there(&wal, &beside(&kept, "-wal")).map_err(failed)?;
    remove_if_there(&shm).map_err(failed)?;
    sync_folder(database).map_err(failed)?;
    Ok(is_there.then_some(kept))
}

fn copy_new(from: &Path, to: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(to)?;
    io::copy(&mut fs::File::open(from)?, &mut file)?;
    file.sync_all()
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    if_there(fs::rename(from, to))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    if_there(fs::remove_file(path))
}

fn if_there(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
