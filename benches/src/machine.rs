//! What was measured where: facts without which no figure means anything.

use std::fs;

use serde::Serialize;

use crate::process::run;

/// The machine, the moment and the code.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// When the measurement began.
    pub date: String,
    /// The revision of the tree; `dirty` when it had changes, and `unknown` outside a repository.
    pub commit: String,
    /// Processors that this program may use.
    pub cores: usize,
    /// What the processor calls itself.
    pub processor: String,
    /// The kernel's release.
    pub kernel: String,
    /// The file system under the databases.
    pub file_system: String,
    /// The version of PostgreSQL, when it was measured.
    pub postgres: Option<String>,
}

impl Machine {
    /// Looks around.
    pub async fn describe(file_system: &str, postgres: Option<String>) -> Self {
        let unknown = || "unknown".to_owned();
        let tree = env!("CARGO_MANIFEST_DIR");
        let describe = ["-C", tree, "describe", "--always", "--dirty", "--exclude", "*"];
        Self {
            date: run("date", ["-u", "+%Y-%m-%dT%H:%M:%SZ"]).await.unwrap_or_else(|_| unknown()),
            commit: run("git", describe).await.unwrap_or_else(|_| unknown()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor().unwrap_or_else(unknown),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |text| text.trim().to_owned()),
            file_system: file_system.to_owned(),
            postgres,
        }
    }
}

#[cfg(test)]
impl Machine {
    /// One for reports that nobody measured.
    pub fn of_a_test() -> Self {
        Self {
            date: "today".into(),
            commit: "abc".into(),
            cores: 2,
            processor: "a processor".into(),
            kernel: "6".into(),
            file_system: "ext4".into(),
            postgres: None,
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { date, commit, cores, processor, kernel, file_system, postgres } = self;
        writeln!(f, "{date}, commit {commit}")?;
        write!(f, "{cores} cores ({processor}), Linux {kernel}, databases on {file_system}")?;
        if let Some(postgres) = postgres {
            write!(f, ", {postgres}")?;
        }
        Ok(())
    }
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}
