//! The master key: where it comes from, and how another one takes its place.
//!
//! It is given, or in the file `master.key` of the data folder, which is made at the first start.  Another one is written
//! beside it first, as `master.key.new`; then the data keys are wrapped by it in one transaction; then the file is
//! renamed.  A start that finds both files tries both, so that it does not matter where this was cut off.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::files::{make_folder, write_private};
use super::wire::Ground;
use crate::config::Config;
use crate::db::Db;
use crate::db::keyring::{self, rotate};
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::secret::{KEY_LENGTH, MasterKeys, SharedRandom, SystemRandom};

const FILE: &str = "master.key";
const NEXT_FILE: &str = "master.key.new";
const LOCK_FILE: &str = "master.key.lock";

type Key = Zeroizing<[u8; KEY_LENGTH]>;

/// The master keys that a process was told of.
struct Masters {
    given: Option<Key>,
    next: Option<Key>,
    data: PathBuf,
    random: SharedRandom,
}

/// The master keys of this configuration.
///
/// # Errors
/// `INVALID_ARGUMENT` when one is not base64 of 32 bytes.
pub(super) fn of(config: &Config, random: &SharedRandom) -> Result<Arc<dyn MasterKeys>> {
    let given = |text: &Option<crate::secret::SecretText>, origin| {
        text.as_ref().map(|text| decode(text.reveal(), origin)).transpose()
    };
    Ok(Arc::new(Masters {
        given: given(&config.master_key, "SWITCHBOARD_MASTER_KEY")?,
        next: given(&config.new_master_key, "SWITCHBOARD_NEW_MASTER_KEY")?,
        data: config.data.clone(),
        random: random.clone(),
    }))
}

impl MasterKeys for Masters {
    fn candidates(&self) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        match &self.given {
            Some(given) => keys.push(given.clone()),
            None => {
                // The new file first: what is renamed between the two reads is in the second one.
                let next = read(&self.data.join(NEXT_FILE))?;
                let path = self.data.join(FILE);
                keys.extend(read(&path)?);
                keys.extend(next);
                if keys.is_empty() {
                    keys.push(read_or_make(&path, &self.random)?);
                }
            }
        }
        keys.extend(self.next.clone());
        Ok(keys)
    }

    fn opened(&self, key: &[u8; KEY_LENGTH]) {
        if self.given.is_none()
            && let Err(error) = settle(&self.data, key)
        {
            tracing::warn!(%error, "{NEXT_FILE} is the master key and could not be renamed to {FILE}");
        }
    }
}

/// Gives the new file the name of the old one, if this key is in it.
fn settle(data: &Path, key: &[u8; KEY_LENGTH]) -> std::io::Result<()> {
    let next = data.join(NEXT_FILE);
    if !matches!(read(&next), Ok(Some(content)) if *content == *key) {
        return Ok(());
    }
    match fs::rename(next, data.join(FILE)) {
        // Another process has done it.
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => File::open(data)?.sync_all(),
    }
}

fn read(path: &Path) -> Result<Option<Key>> {
    let text = match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let message = format!("the master key in {} can not be read", path.display());
            return Err(Error::unavailable(message, error));
        }
    };
    warn_of_readers(path);
    let origin = path.file_name().unwrap_or_default().to_string_lossy();
    decode(&text, &origin).map(Some)
}

/// The key in a file, which is made if it is not there.
fn read_or_make(path: &Path, random: &SharedRandom) -> Result<Key> {
    if let Some(key) = read(path)? {
        return Ok(key);
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_folder(folder)?;
    }
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    random.fill(&mut *key);
    let text = Zeroizing::new(STANDARD.encode(*key));
    match write_private(path, text.as_bytes()) {
        Ok(()) => {
            tracing::warn!(file = %path.display(), "a master key was made: back it up, secrets can not be opened without it");
            Ok(key)
        }
        // Another process has just made it.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            read(path)?.ok_or_else(|| Error::internal("the master key went away"))
        }
        Err(error) => {
            Err(Error::unavailable(format!("the master key can not be kept in {}", path.display()), error))
        }
    }
}

/// Warns when others than its owner may read a file with a secret.
pub fn warn_of_readers(path: &Path) {
    let mode = fs::metadata(path).map_or(0, |file| file.permissions().mode());
    if mode & 0o077 != 0 {
        let mode = format!("{:03o}", mode & 0o777);
        tracing::warn!(file = %path.display(), mode, "others may read this file with a secret: chmod 600 it");
    }
}

fn decode(text: &str, origin: &str) -> Result<Key> {
    let bytes = STANDARD.decode(text.trim()).map(Zeroizing::new).ok();
    let key = bytes.and_then(|bytes| <[u8; KEY_LENGTH]>::try_from(bytes.as_slice()).ok());
    key.map(Zeroizing::new).ok_or_else(|| Error::field(origin, "must be the base64 form of 32 bytes"))
}

/// Whether the master key that is here opens the keys of the database; `None` when there is no master key.  Makes none.
///
/// # Errors
/// When the master key or the database can not be read.
pub async fn master_key_opens(config: &Config) -> Result<Option<bool>> {
    let random: SharedRandom = Arc::new(SystemRandom);
    if config.master_key.is_none() && ![FILE, NEXT_FILE].iter().any(|name| config.data.join(name).exists()) {
        return Ok(None);
    }
    let (masters, db) = (of(config, &random)?, Db::open(&config.database).await?);
    keyring::is_opened_by(&db, &*masters, &random).await.map(Some)
}

/// Where another master key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewMaster {
    /// `SWITCHBOARD_NEW_MASTER_KEY`, or its file.
    Environment,
    /// This file, which is made if it is not there.
    File(PathBuf),
}

/// What is left to do after the data keys were wrapped by another master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swapped {
    /// Nothing: the file in the data folder has it.
    File,
    /// The environment of every server is to be given the new one.
    Environment,
}

/// Wraps the data keys by another master key.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is not base64 of 32 bytes; `FAILED_PRECONDITION` when somebody else is at it.
pub async fn rotate_master(ground: &Ground, config: &Config, new: &NewMaster) -> Result<Swapped> {
    let key = match (new, &config.new_master_key) {
        (NewMaster::File(path), _) => read_or_make(path, &ground.machine.random)?,
        (NewMaster::Environment, Some(text)) => decode(text.reveal(), "SWITCHBOARD_NEW_MASTER_KEY")?,
        (NewMaster::Environment, None) => {
            return Err(Error::field("SWITCHBOARD_NEW_MASTER_KEY", "must be set"));
        }
    };
    let sealer = &ground.keyring.sealer;
    if config.master_key.is_some() {
        rotate::rewrap(&ground.db, sealer, &key).await?;
        return Ok(Swapped::Environment);
    }
    let failed = |error| Error::unavailable("the new master key can not be kept in the data folder", error);
    // Two at a time would each take the other's file for its own.  The lock goes with the process.
    let lock =
        OpenOptions::new().create(true).append(true).open(config.data.join(LOCK_FILE)).map_err(failed)?;
    lock.try_lock().map_err(|_| {
        Error::new(
            Kind::FailedPrecondition,
            "MASTER_KEY_IN_ROTATION",
            "the master key is being replaced already",
        )
    })?;
    // What an earlier call left behind may be the right one: it gets its name now, instead of being removed.
    keyring::confirm_master(&ground.db, sealer).await?;
    let next = config.data.join(NEXT_FILE);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let text = Zeroizing::new(STANDARD.encode(*key));
    write_private(&next, text.as_bytes()).map_err(failed)?;
    failpoint::pass("rotation.written");
    rotate::rewrap(&ground.db, sealer, &key).await?;
    failpoint::pass("rotation.wrapped");
    settle(&config.data, &key).map_err(failed)?;
    Ok(Swapped::File)
}
