//! The way into the queue: what a mail's row says when it is made.
//!
//! SendEmail and the fan-out of events both come through here, inside their transactions: recipients that are suppressed
//! are settled, the hourly limit is taken from, and what may go out now and has room in its lane is leased to this node
//! by the very commit that makes its row.

pub mod store;

use std::sync::Arc;

use bytes::Bytes;

use super::address;
use super::channel::EmailChannel;
use super::config::{EmailConfig, SharedConfig};
use super::limit;
use super::model::{Mail, Priority, Settled};
use super::suppression;
use super::transport::Transport;
use crate::clock::Timestamp;
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::delivery::engine::FIRST_TOKEN;
use crate::delivery::limit::{Usage, store as limits};
use crate::delivery::{Engine, Leased, Slot, State};
use crate::error::Result;

/// Bodies above this are not kept in memory while a mail waits in hand: they are read when its turn comes.
pub const SMALL: usize = 64 * 1024;

/// What decides about a mail that arrives.
#[derive(Clone)]
pub struct Intake {
    /// Carries the mails.
    pub engine: Engine<EmailChannel>,
    /// The limits.
    pub config: SharedConfig,
    /// Knows whether anybody can take mail now.
    pub transport: Arc<dyn Transport>,
}

/// A mail that arrives.
#[derive(Clone)]
pub struct Arrival {
    /// The mail.
    pub mail: Arc<Mail>,
    /// When it is to be sent, if not now.
    pub send_at: Option<Timestamp>,
    /// The contents of its files, by their keys.
    pub files: Arc<[(String, Bytes)]>,
}

impl From<Arc<Mail>> for Arrival {
    fn from(mail: Arc<Mail>) -> Self {
        Self { mail, send_at: None, files: Arc::default() }
    }
}

/// A row to be written.
pub(super) struct NewMail {
    pub mail: Arc<Mail>,
    /// The variables, serialised once.
    pub variables: String,
    /// The rarer properties, serialised once.
    pub options: String,
    pub state: State,
    pub due: Timestamp,
    /// Why it is held or cancelled.
    pub error: Option<String>,
    /// The node that has it in hand from the start; `None` for one that waits.
    pub lease_owner: Option<i64>,
    pub recipients: Vec<NewRecipient>,
    pub files: Arc<[(String, Bytes)]>,
    pub now: Timestamp,
}

/// A recipient's row.
pub(super) struct NewRecipient {
    pub address: String,
    /// Why it gets no mail.
    pub suppressed: Option<String>,
}

impl NewMail {
    pub(super) fn token(&self) -> i64 {
        if self.lease_owner.is_some() { FIRST_TOKEN } else { 0 }
    }
}

type Job = (Slot<Arc<Mail>>, Leased<Arc<Mail>>);

/// Mails whose rows are written and which are in hand.
#[derive(Default)]
pub(super) struct Prepared {
    jobs: Vec<Job>,
}

impl Prepared {
    /// Takes the mails in hand whose rows are durable.
    pub(super) fn committed(self, engine: &Engine<EmailChannel>) {
        for (slot, job) in self.jobs {
            engine.submit(slot, job);
        }
    }
}

/// How much of the hourly limit the arrivals of a lane get.
struct Grant {
    left: u64,
    usage: Option<Usage>,
}

impl Intake {
    /// Makes the rows on SQLite.
    pub(super) fn sqlite(
        &self,
        conn: &mut SqliteWriter,
        arrivals: &[Arrival],
        now: Timestamp,
    ) -> QueryResult<Prepared> {
        let keys = keys(arrivals);
        let suppressed = suppression::suppressed_sqlite(conn, &pairs(arrivals, &keys), now)?;
        let mut rows = rows(arrivals, keys, suppressed, now);
        let config = self.config.load_full();
        let mut grants = Priority::ALL.map(|_| Grant { left: u64::MAX, usage: None });
        for (priority, grant) in Priority::ALL.into_iter().zip(&mut grants) {
            let wanted = wanted(&rows, priority, &config);
            if let Some(limit) = limit::of_lane(&config, priority).filter(|_| wanted > 0) {
                let (left, usage) = limits::take_sqlite(conn, &limit::hourly(limit), wanted, now)?;
                *grant = Grant { left, usage: Some(usage) };
            }
        }
        let jobs = self.decide(&mut rows, grants, &config, now);
        store::insert_sqlite(conn, &rows)?;
        Ok(Prepared { jobs })
    }

    /// Makes the rows on PostgreSQL.
    pub(super) async fn postgres(
        &self,
        conn: &mut PostgresWriter,
        arrivals: &[Arrival],
        now: Timestamp,
    ) -> QueryResult<Prepared> {
        if arrivals.is_empty() {
            return Ok(Prepared::default());
        }
        let keys = keys(arrivals);
        let suppressed = suppression::suppressed_postgres(conn, &pairs(arrivals, &keys), now).await?;
        let mut rows = rows(arrivals, keys, suppressed, now);
        let config = self.config.load_full();
        let mut grants = Priority::ALL.map(|_| Grant { left: u64::MAX, usage: None });
        for (priority, grant) in Priority::ALL.into_iter().zip(&mut grants) {
            let wanted = wanted(&rows, priority, &config);
            if let Some(limit) = limit::of_lane(&config, priority).filter(|_| wanted > 0) {
                let (left, usage) = limits::take_postgres(conn, &limit::hourly(limit), wanted, now).await?;
                *grant = Grant { left, usage: Some(usage) };
            }
        }
        let jobs = self.decide(&mut rows, grants, &config, now);
        store::insert_postgres(conn, &rows).await?;
        Ok(Prepared { jobs })
    }

    /// Queues mails in the transaction of a connection; the answer is to be called after its commit.
    ///
    /// # Errors
    /// When the database refuses them.
    pub async fn queue(
        &self,
        conn: &mut Conn,
        arrivals: Vec<Arrival>,
        now: Timestamp,
    ) -> Result<Box<dyn FnOnce() + Send>> {
        let prepared = match conn {
            Conn::Postgres(c) => self.postgres(c, &arrivals, now).await?,
            Conn::Sqlite(c) => {
                let intake = self.clone();
                c.spawn_blocking(move |c| intake.sqlite(c, &arrivals, now)).await?
            }
        };
        let engine = self.engine.clone();
        Ok(Box::new(move || prepared.committed(&engine)))
    }

    /// Takes in hand what may go out now and has room.
    fn decide(
        &self,
        rows: &mut [NewMail],
        grants: [Grant; 2],
        config: &EmailConfig,
        now: Timestamp,
    ) -> Vec<Job> {
        let lanes = Priority::ALL.map(|priority| Arc::<str>::from(priority.lane()));
        let nobody = if config.sends() { self.transport.holds().into_iter().next() } else { None };
        let mut grants = grants;
        let mut jobs = Vec::new();
        for row in rows.iter_mut().filter(|row| row.state == State::Pending) {
            let priority = row.mail.priority as usize;
            if let Some(hold) = &nobody {
                (row.state, row.error) = (State::Held, Some(hold.why.clone()));
                continue;
            }
            // The claim counts them, by domain.
            if is_limited_by_domain(&row.mail, config) {
                continue;
            }
            let grant = &mut grants[priority];
            if grant.left == 0 {
                let why = grant.usage.map(|usage| limit::hold(config, usage).why);
                (row.state, row.error) = (State::Held, why);
                continue;
            }
            grant.left -= 1;
            if let Some(slot) = self.engine.reserve(&lanes[priority]) {
                row.state = State::Sending;
                row.lease_owner = Some(self.engine.owner());
                let payload = slim(&row.mail);
                let (id, lane) = (payload.id.clone(), Arc::clone(&lanes[priority]));
                jobs.push((
                    slot,
                    Leased {
                        id,
                        lane,
                        attempts: 0,
                        attempts_before: 0,
                        due: now,
                        token: FIRST_TOKEN,
                        ordering_key: None,
                        payload,
                    },
                ));
            }
        }
        jobs
    }
}

/// The addresses of each mail's recipients, as they are compared.
fn keys(arrivals: &[Arrival]) -> Vec<Vec<String>> {
    let keys = |arrival: &Arrival| arrival.mail.recipients().filter_map(address::suppression_key).collect();
    arrivals.iter().map(keys).collect()
}

fn pairs<'a>(arrivals: &'a [Arrival], keys: &'a [Vec<String>]) -> Vec<(&'a str, &'a str)> {
    let of = |(arrival, keys): (&'a Arrival, &'a Vec<String>)| {
        let topic = arrival.mail.options.topic.as_str();
        keys.iter().map(move |key| (key.as_str(), topic))
    };
    arrivals.iter().zip(keys).flat_map(of).collect()
}

/// Rows that wait, but for those whose time has not come, and those that nobody is to get.
fn rows(
    arrivals: &[Arrival],
    keys: Vec<Vec<String>>,
    suppressed: Vec<Option<String>>,
    now: Timestamp,
) -> Vec<NewMail> {
    let mut suppressed = suppressed.into_iter();
    let row = |(arrival, keys): (&Arrival, Vec<String>)| {
        let with = |address| NewRecipient { address, suppressed: suppressed.next().flatten() };
        let recipients: Vec<_> = keys.into_iter().map(with).collect();
        let mut mail = Arc::clone(&arrival.mail);
        let mut row_state = match arrival.send_at {
            Some(at) if at > now => (State::Scheduled, at, None),
            _ => (State::Pending, now, None),
        };
        if let Some(why) = recipients.iter().find_map(|recipient| recipient.suppressed.clone()) {
            let settled = recipients.iter().filter(|recipient| recipient.suppressed.is_some());
            let settled = settled.map(|r| Settled { address: r.address.clone(), delivered: false }).collect();
            Arc::make_mut(&mut mail).settled = settled;
            if recipients.iter().all(|recipient| recipient.suppressed.is_some()) {
                row_state = (State::Cancelled, now, Some(format!("nobody is to get it: {why}")));
            }
        }
        let (state, due, error) = row_state;
        NewMail {
            variables: serde_json::to_string(&mail.variables).expect("a JSON object is text"),
            options: serde_json::to_string(&mail.options).expect("a struct of texts is text"),
            mail,
            state,
            due,
            error,
            lease_owner: None,
            recipients,
            files: Arc::clone(&arrival.files),
            now,
        }
    };
    arrivals.iter().zip(keys).map(row).collect()
}

fn wanted(rows: &[NewMail], priority: Priority, config: &EmailConfig) -> u64 {
    let ready = |row: &&NewMail| {
        row.state == State::Pending
            && row.mail.priority == priority
            && !is_limited_by_domain(&row.mail, config)
    };
    rows.iter().filter(ready).count() as u64
}

fn is_limited_by_domain(mail: &Mail, config: &EmailConfig) -> bool {
    !config.domain_limits.is_empty()
        && mail.recipients().any(|text| {
            address::domain(text).is_some_and(|domain| config.domain_limits.contains_key(domain.as_str()))
        })
}

/// The mail as it is kept in memory: large bodies are left in the database.
pub(super) fn slim(mail: &Arc<Mail>) -> Arc<Mail> {
    if mail.html_body.len() + mail.plain_body.len() <= SMALL {
        return Arc::clone(mail);
    }
    let mut slim = Mail::clone(mail);
    (slim.html_body, slim.plain_body) = (String::new(), String::new());
    Arc::new(slim)
}
