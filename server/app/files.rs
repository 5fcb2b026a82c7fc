//! The files of the data folder: how private ones are written, and the lock on the embedded database.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;

use crate::config::Config;
use crate::db::Target;
use crate::error::{Error, Kind, Result};
use crate::secret::{Random, SystemRandom};

/// Keeps other servers away from the embedded database, until it is dropped or the process ends in any way.
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that another thread is just starting holds a copy of it until it
        // runs its program, and the lock with it.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the lock on the database is left to the end of the process");
        }
    }
}

/// Makes the data folder, and takes the embedded database for this process.
///
/// # Errors
/// `FAILED_PRECONDITION` when another server has it.
pub fn prepare(config: &Config) -> Result<Option<Lock>> {
    make_folder(&config.data)?;
    let Target::Sqlite(path) = &config.database else {
        return Ok(None);
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    let mut name = path.clone().into_os_string();
    name.push(".lock");
    let file = OpenOptions::new().create(true).append(true).open(&name).map_err(Error::internal)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another server is using {}", path.display());
            Err(Error::new(Kind::FailedPrecondition, "DATABASE_IN_USE", message))
        }
        Err(TryLockError::Error(error)) => Err(Error::internal(error)),
    }
}

pub(super) fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .map_err(|error| Error::unavailable(format!("the folder {} can not be made", path.display()), error))
}

/// Writes a file that only its owner can read, whole and durable, or not at all.
pub(super) fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut suffix = [0; 8];
    SystemRandom.fill(&mut suffix);
    let draft = path.with_extension(format!("draft-{:016x}", u64::from_le_bytes(suffix)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    // A link fails where a rename would replace a key that another process has made meanwhile.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    linked
}
