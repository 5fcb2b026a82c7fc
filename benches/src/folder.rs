//! Where the databases of a measurement live: on a real disk, because what is measured is durable there.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::options::Backend;
use crate::postgres;
use crate::process::run;

/// Gives out new folders.
pub struct Folders {
    base: PathBuf,
    file_system: String,
    given: Cell<u32>,
}

impl Folders {
    /// Finds a place on a disk: the build's folder if it is on one, or else the system's folders for temporary files.
    pub async fn find(backends: &[Backend]) -> Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let target = program.ancestors().nth(2).map(Path::to_owned);
        let candidates = target.into_iter().chain([PathBuf::from("/var/tmp"), std::env::temp_dir()]);
        for base in candidates {
            let file_system = file_system(&base).await.unwrap_or_default();
            let in_memory = ["", "tmpfs", "ramfs"].contains(&file_system.as_str());
            let reachable = !backends.contains(&Backend::Postgres) || postgres::can_reach(&base).await;
            if !in_memory && reachable {
                return Ok(Self { base, file_system, given: Cell::new(0) });
            }
        }
        Err("there is no folder on a disk for the databases: in memory, nothing durable can be measured"
            .into())
    }

    /// A new, empty folder. Whoever asks for it removes it.
    pub fn create(&self, purpose: &str) -> Result<PathBuf> {
        self.given.set(self.given.get() + 1);
        let name = format!("switchboard-bench-{}-{}-{purpose}", std::process::id(), self.given.get());
        let folder = self.base.join(name);
        fs::create_dir(&folder).context("a folder for a database")?;
        Ok(folder)
    }

    /// The kind of file system that they are on.
    pub fn file_system(&self) -> &str {
        &self.file_system
    }
}

async fn file_system(folder: &Path) -> Result<String> {
    let args = ["-f".as_ref(), "-c".as_ref(), "%T".as_ref(), folder.as_os_str()];
    run("stat", args).await
}
