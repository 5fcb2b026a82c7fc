//! The seal of a backup: its last page, which says in JSON what the backup is, and ends with the checksum of everything
//! before.
//!
//! SQLite does not look at what lies behind the last page of a database, so that a backup can be opened as one too.  No byte
//! is outside of the checksum but the checksum itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};

const FORMAT: &str = "switchboard backup";
/// Grows when a program of today could not read what one of tomorrow writes.
const REVISION: u32 = 1;
/// The size of the seal, a page of the database.
const PAGE: usize = 4096;
/// SHA-256 in hexadecimal digits, and the end of the line.
const SUM: usize = 65;
const BLOCK: usize = 256 * 1024;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The version of the program that made it.
    pub version: String,
    /// When it was made, in RFC 3339.
    pub created_at: String,
    /// The last migration that its database has seen.
    pub migration: String,
    /// The position of the last event in it.
    pub events: i64,
    /// The end of its audit log, a checkpoint that a restored log must have.
    pub audit: String,
    /// The size of its database in bytes.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Seal {
    format: String,
    revision: u32,
    #[serde(flatten)]
    contents: Contents,
}

/// Puts the seal behind a database, and makes the file durable.
pub(super) fn close(path: &Path, contents: &Contents) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut sum = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => break,
            length => sum.update(&block[..length]),
        }
    }
    let seal = Seal { format: FORMAT.to_owned(), revision: REVISION, contents: contents.clone() };
    let text = serde_json::to_string(&seal)?;
    let text = format!("{text:<width$}\n", width = PAGE - SUM - 1);
    sum.update(text.as_bytes());
    writeln!(file, "{text}{}", hexadecimal(&sum.finalize()))?;
    file.sync_all()
}

/// A backup whose seal was read, and nothing else yet.
pub struct Sealed {
    path: PathBuf,
    file: File,
    page: Vec<u8>,
    /// What it says that it holds.
    pub contents: Contents,
}

/// Opens a backup.
///
/// # Errors
/// `FAILED_PRECONDITION` when it is none, or of a newer kind.
pub fn open(path: &Path) -> Result<Sealed> {
    let unreadable = |error| unreadable(path, error);
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let Some(bytes) = length.checked_sub(PAGE as u64) else { return Err(invalid(path)) };
    let mut page = vec![0; PAGE];
    file.seek(SeekFrom::Start(bytes)).map_err(unreadable)?;
    file.read_exact(&mut page).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    let seal = std::str::from_utf8(&page[..PAGE - SUM]).ok();
    let seal = seal.and_then(|text| serde_json::from_str::<Seal>(text.trim_end()).ok());
    match seal.filter(|seal| seal.format == FORMAT) {
        Some(seal) if seal.revision > REVISION => Err(too_new(path)),
        Some(Seal { contents, .. }) if contents.bytes == bytes => {
            Ok(Sealed { path: path.to_owned(), file, page, contents })
        }
        _ => Err(invalid(path)),
    }
}

impl Sealed {
    /// Writes the database in it to `out`, and answers what it holds.  What was written is good only then.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when the backup is not as it was made.
    pub fn copy_to(mut self, out: &mut impl Write) -> Result<Contents> {
        let mut sum = Sha256::new();
        let mut block = vec![0; BLOCK];
        let mut left = self.contents.bytes;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            self.file.read_exact(&mut block[..length]).map_err(|error| unreadable(&self.path, error))?;
            sum.update(&block[..length]);
            let written = out.write_all(&block[..length]);
            written.map_err(|error| Error::unavailable("the copy can not be written", error))?;
            left -= length as u64;
        }
        sum.update(&self.page[..PAGE - SUM]);
        let sum = format!("{}\n", hexadecimal(&sum.finalize()));
        if self.page[PAGE - SUM..] == *sum.as_bytes() { Ok(self.contents) } else { Err(invalid(&self.path)) }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::unavailable(format!("{} can not be read", path.display()), error)
}

fn invalid(path: &Path) -> Error {
    let message = format!("{} is not a backup of Switchboard, or is damaged", path.display());
    Error::new(Kind::FailedPrecondition, "BACKUP_INVALID", message)
}

/// A backup that this version can not use.
pub(super) fn too_new(path: &Path) -> Error {
    let message = format!("{} was made by a newer version: use that one", path.display());
    Error::new(Kind::FailedPrecondition, "BACKUP_TOO_NEW", message)
}
