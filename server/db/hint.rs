//! Hints between nodes that there is something to look at, on PostgreSQL.
//!
//! Every node looks by itself a few times a second; a hint makes it look at once.  It has no content, is given after the
//! commit that it is about, on a connection of its own that commits by itself, and a few at a time: a NOTIFY inside a
//! transaction would make all commits of the database wait for each other.  Nothing may depend on a hint: the connection
//! can fail, and behind some poolers there is none.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::sql_types::Integer;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::StreamExt;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{Backend, Db, open_postgres_connection};
use crate::clock::Stopwatch;
use crate::error::{Error, Result};

/// The shortest time between two hints of one node.
const PACE: Duration = Duration::from_millis(5);
/// How long a connection may be silent before it is asked whether it lives.
const SILENCE: Duration = Duration::from_secs(30);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before the next try after the connection failed, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What there may be to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// The event log.
    Log,
    /// Ephemeral events.
    Ephemeral,
    /// Requests to other nodes, and their answers.
    Mailbox,
}

impl Hint {
    const ALL: [Self; 3] = [Self::Log, Self::Ephemeral, Self::Mailbox];

    fn channel(self) -> &'static str {
        match self {
            Self::Log => "switchboard_log",
            Self::Ephemeral => "switchboard_ephemeral",
            Self::Mailbox => "switchboard_mailbox",
        }
    }
}

/// Gives and hears hints.
pub struct Hints {
    /// The server's URL; `None` where nobody else is, or nobody is to be told.
    url: Option<String>,
    due: [AtomicBool; Hint::ALL.len()],
    wake: Notify,
    heard: [watch::Sender<()>; Hint::ALL.len()],
}

#[derive(QueryableByName)]
struct Backends {
    #[diesel(sql_type = Integer)]
    id: i32,
}

enum Next {
    Heard(diesel::pg::PgNotification),
    Give,
    Silence,
    Stop,
}

impl Hints {
    /// Hints over this database; none at all unless `enabled`.
    pub fn new(db: &Db, enabled: bool) -> Self {
        let url = match &db.backend {
            Backend::Postgres { url, .. } if enabled => Some(url.to_string()),
            _ => None,
        };
        Self {
            url,
            due: Default::default(),
            wake: Notify::new(),
            heard: std::array::from_fn(|_| watch::Sender::new(())),
        }
    }

    /// Tells the other nodes to look, soon; to be called after the commit.
    pub fn give(&self, hint: Hint) {
        if self.url.is_some() && !self.due[hint as usize].swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Changes whenever another node says that there is something.
    pub fn heard(&self, hint: Hint) -> watch::Receiver<()> {
        self.heard[hint as usize].subscribe()
    }

    /// Gives and hears, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let Some(url) = &self.url else { return };
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Stopwatch::start();
            match self.session(url, &stop).await {
                Ok(()) => return,
                // Looking by itself goes on: it is only slower.
                Err(error) => {
                    tracing::info!(%error, "hints of other nodes can not be heard; it is tried again");
                }
            }
            pause =
                if begun.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            if tokio::time::timeout(pause, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    async fn session(&self, url: &str, stop: &CancellationToken) -> Result<()> {
        let mut conn = patient(async {
            let mut conn = open_postgres_connection(url).await.map_err(Error::internal)?;
            let listen: String = Hint::ALL.map(|hint| format!("LISTEN {};", hint.channel())).concat();
            conn.batch_execute(&listen).await?;
            Ok(conn)
        })
        .await?;
        let own: Backends =
            patient(async { Ok(sql_query("SELECT pg_backend_pid() AS id").get_result(&mut conn).await?) })
                .await?;
        // There may have been some while nobody listened.
        self.heard.iter().for_each(|heard| heard.send_modify(|()| {}));
        let mut given: Option<Stopwatch> = None;
        loop {
            match self.next(&mut conn, stop).await? {
                Next::Stop => return Ok(()),
                Next::Heard(notification) if notification.process_id == own.id => {}
                Next::Heard(notification) => {
                    let hint = Hint::ALL.into_iter().find(|hint| hint.channel() == notification.channel);
                    if let Some(hint) = hint {
                        self.heard[hint as usize].send_modify(|()| {});
                    }
                }
                Next::Give => {
                    if let Some(rest) = given.and_then(|given| PACE.checked_sub(given.elapsed())) {
                        tokio::time::sleep(rest).await;
                    }
                    given = Some(Stopwatch::start());
                    self.tell(&mut conn).await?;
                }
                Next::Silence => patient(async { Ok(conn.batch_execute("SELECT 1").await?) }).await?,
            }
        }
    }

    async fn next(&self, conn: &mut AsyncPgConnection, stop: &CancellationToken) -> Result<Next> {
        let mut notifications = pin!(conn.notifications_stream());
        Ok(tokio::select! {
            () = stop.cancelled() => Next::Stop,
            heard = notifications.next() => match heard {
                Some(heard) => Next::Heard(heard?),
                None => return Err(Error::unavailable("the database can not be reached", "the connection has ended")),
            },
            () = self.wake.notified() => Next::Give,
            () = tokio::time::sleep(SILENCE) => Next::Silence,
        })
    }

    async fn tell(&self, conn: &mut AsyncPgConnection) -> Result<()> {
        // Before the message goes out: what comes after is told of by the next one.
        let due = Hint::ALL.into_iter().filter(|hint| self.due[*hint as usize].swap(false, Ordering::AcqRel));
        let notify: String = due.map(|hint| format!("NOTIFY {};", hint.channel())).collect();
        if notify.is_empty() {
            return Ok(());
        }
        patient(async { Ok(conn.batch_execute(&notify).await?) }).await
    }
}

async fn patient<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::unavailable("the database can not be reached", "no answer in time");
    tokio::time::timeout(PATIENCE, work).await.map_err(late)?
}
