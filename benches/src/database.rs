//! A database and the files that a server keeps beside it. It outlives the servers that run on it one after the other.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use switchboard::config::DATABASE_FILE;

use crate::error::{Context, Result};
use crate::options::Backend;
use crate::postgres::Cluster;
use crate::process::{Watchdog, run, run_within};

/// The database on PostgreSQL. Each one in turn is new.
const NAME: &str = "switchboard";

/// How long SQL may take: some of it makes or counts millions of rows.
const SQL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Removes the folder once no server runs in it any more.
const END: &str = r#"
left=400
while [ -e "$1/running" ] && [ "$left" -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
rm -rf "$1"
"#;

/// Fails unless SQLite's shell is there.
pub async fn shell_installed() -> Result<()> {
    run("sqlite3", ["--version"]).await.map(drop).context("SQLite's shell, which tests/tools/install brings")
}

/// A database. Dropping it removes its files.
pub struct Database<'a> {
    /// The kind of storage.
    pub backend: Backend,
    folder: PathBuf,
    cluster: Option<&'a Cluster>,
    watchdog: Watchdog,
}

impl<'a> Database<'a> {
    /// An empty one, with its files in this folder; on PostgreSQL in this cluster.
    pub async fn create(backend: Backend, folder: PathBuf, cluster: Option<&'a Cluster>) -> Result<Self> {
        let watchdog = Watchdog::new("", END, [folder.as_os_str()], &[])?;
        if let Some(cluster) = cluster {
            cluster.create(NAME).await?;
        }
        Ok(Self { backend, folder, cluster, watchdog })
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the server keeps its files.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its URL; `None` for a file.
    pub fn url(&self) -> Option<String> {
        self.cluster.map(|cluster| cluster.url(NAME))
    }

    /// The first process of PostgreSQL, when there is one.
    pub fn postmaster(&self) -> Option<u32> {
        self.cluster.map(Cluster::postmaster)
    }

    /// Runs SQL and gives what it answers, columns with `|` between.
    pub async fn sql(&self, sql: &str) -> Result<String> {
        match self.cluster {
            Some(cluster) => cluster.sql_within(SQL_LIMIT, NAME, sql).await,
            None => {
                let file = self.data().join(DATABASE_FILE);
                let args = ["-batch".as_ref(), "-bail".as_ref(), file.as_os_str(), OsStr::new(sql)];
                run_within(SQL_LIMIT, "sqlite3", args).await
            }
        }
    }

    /// One number that SQL answers.
    pub async fn number(&self, sql: &str) -> Result<u64> {
        self.sql(sql).await?.parse().context(sql)
    }

    /// What it takes on its disk, in MiB.
    pub async fn mebibytes(&self) -> Result<f64> {
        let sql = match self.backend {
            Backend::Sqlite => {
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size".to_owned()
            }
            Backend::Postgres => format!("SELECT pg_database_size('{NAME}')"),
        };
        Ok(self.number(&sql).await? as f64 / 1_048_576.0)
    }

    /// Removes it.
    pub async fn remove(self) -> Result<()> {
        self.watchdog.finish().await;
        match self.cluster {
            Some(cluster) => cluster.remove(NAME).await,
            None => Ok(()),
        }
    }
}
