//! Whether the database does its work now: who writes notes that it does not, and one task looks whether it does again.
//!
//! * A write that has no space, or that the storage refuses, notes so.  Once a second the task then tries to write: a file of
//!   [`RESERVE`] bytes beside the embedded database, and a row.  A write that happens to fit ends no trouble.
//! * On PostgreSQL the task asks for a sign of life once a second, over a connection of its own.  When there is none, every
//!   connection of the pool is cut, so that whoever waits on one is told at once, and nobody gets another until the
//!   server answers again.  A server that hangs, or a network that swallows packets, would keep them for minutes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::trouble::Trouble;
use super::{Backend, Db, execute, open_postgres_connection};
use crate::error::{Error, Result};

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a sign of life may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much space there must be again.
const RESERVE: usize = 1024 * 1024;
/// A change that takes place on the disk and means nothing.
const WRITE: &str = "INSERT INTO revisions (name, value) VALUES ('written', 1) \
    ON CONFLICT (name) DO UPDATE SET value = revisions.value + 1";

/// What is known of the database.
pub(super) struct Condition {
    trouble: watch::Sender<Option<Trouble>>,
    /// Ends the connections of the pool; another one takes its place then.
    cut: Mutex<CancellationToken>,
}

impl Default for Condition {
    fn default() -> Self {
        Self { trouble: watch::Sender::new(None), cut: Mutex::default() }
    }
}

impl Condition {
    pub(super) fn trouble(&self) -> Option<Trouble> {
        *self.trouble.borrow()
    }

    /// Notes that there is trouble, or none any more; logs when that is news.
    pub(super) fn set(&self, now: Option<Trouble>) {
        let changed = self.trouble.send_if_modified(|trouble| std::mem::replace(trouble, now) != now);
        match now {
            Some(trouble) if changed => tracing::error!("{}", trouble.explanation()),
            None if changed => tracing::info!("the database does its work again"),
            _ => {}
        }
    }

    /// Notes what stands behind an error, if it is the storage.
    pub(super) fn note(&self, error: &Error) {
        if let Some(trouble) = Trouble::told(error) {
            self.set(Some(trouble));
        }
    }

    /// What ends a connection that is made now.
    pub(super) fn cut_token(&self) -> CancellationToken {
        self.lock().clone()
    }

    fn cut(&self) {
        std::mem::take(&mut *self.lock()).cancel();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, CancellationToken> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Db {
    /// Why the database does not do its work now; `None` while it does.
    pub fn trouble(&self) -> Option<Trouble> {
        self.condition.trouble()
    }

    /// Tells whenever that changes.
    pub fn troubles(&self) -> watch::Receiver<Option<Trouble>> {
        self.condition.trouble.subscribe()
    }

    /// Waits until there is no trouble, and not longer than this.
    pub async fn recovers(&self, within: Duration) {
        let mut troubles = self.troubles();
        // Whoever waits tries again in any case.
        let _ = tokio::time::timeout(within, troubles.wait_for(Option::is_none)).await;
    }

    /// Looks whether the database does its work, until `stop`.
    pub async fn look_after(&self, stop: CancellationToken) {
        match &self.backend {
            Backend::Sqlite { path, .. } => self.look_after_storage(path, &stop).await,
            Backend::Postgres { url, .. } => self.look_after_server(url, &stop).await,
        }
    }

    async fn look_after_storage(&self, path: &Path, stop: &CancellationToken) {
        let mut troubles = self.troubles();
        loop {
            tokio::select! {
                // The sender lives as long as this.
                _ = troubles.wait_for(Option::is_some) => {}
                () = stop.cancelled() => return,
            }
            if !passes(INTERVAL, stop).await {
                return;
            }
            match self.try_storage(path.to_owned()).await {
                Ok(()) => self.condition.set(None),
                Err(error) => tracing::debug!(%error, "the database can not be written to yet"),
            }
        }
    }

    async fn try_storage(&self, path: PathBuf) -> Result<()> {
        let room = tokio::task::spawn_blocking(move || try_room(&path));
        room.await.map_err(Error::internal)?.map_err(Error::internal)?;
        self.try_writing().await
    }

    async fn try_writing(&self) -> Result<()> {
        self.transaction(|conn| Box::pin(async { execute(conn, WRITE).await })).await
    }

    async fn look_after_server(&self, url: &str, stop: &CancellationToken) {
        let mut conn = None;
        loop {
            let answer = tokio::time::timeout(PATIENCE, sign_of_life(&mut conn, url));
            match answer.await.unwrap_or(Life::Gone) {
                Life::There if self.trouble() == Some(Trouble::Unreachable) => self.condition.set(None),
                Life::There if self.trouble().is_some() => {
                    // The storage of the server may be what fails: then a write has to succeed.
                    if self.try_writing().await.is_ok() {
                        self.condition.set(None);
                    }
                }
                Life::There => {}
                Life::Gone => {
                    conn = None;
                    self.condition.set(Some(Trouble::Unreachable));
                    self.condition.cut();
                }
            }
            if !passes(INTERVAL, stop).await {
                return;
            }
        }
    }
}

enum Life {
    There,
    Gone,
}

/// Asks the server for an answer, over the same connection each time; over a new one when that has ended.
async fn sign_of_life(conn: &mut Option<AsyncPgConnection>, url: &str) -> Life {
    if let Some(known) = conn {
        if known.batch_execute("SELECT 1").await.is_ok() {
            return Life::There;
        }
        *conn = None;
    }
    match open_postgres_connection(url).await {
        Ok(new) => {
            *conn = Some(new);
            Life::There
        }
        // A server that has a reason of its own, as too many clients, is there.
        Err(error) if refuses_us_alone(&error) => Life::There,
        Err(_) => Life::Gone,
    }
}

fn refuses_us_alone(error: &diesel::ConnectionError) -> bool {
    match error {
        diesel::ConnectionError::CouldntSetupConfiguration(error) => Trouble::of(error).is_none(),
        _ => false,
    }
}

/// Whether there is room for more than a row, and whether it can be written.
fn try_room(database: &Path) -> std::io::Result<()> {
    let mut name = database.to_path_buf().into_os_string();
    name.push(".space");
    let path = PathBuf::from(name);
    let written = fs::File::create(&path).and_then(|mut file| {
        // Not zeros, which some file systems do not write.
        file.write_all(&[0xa5; RESERVE])?;
        file.sync_all()
    });
    // Removed in any case: it may be what fills the disk now.
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// Whether this time passes before the end.
async fn passes(time: Duration, stop: &CancellationToken) -> bool {
    tokio::time::timeout(time, stop.cancelled()).await.is_err()
}
