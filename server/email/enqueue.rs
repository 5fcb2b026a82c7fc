//! SendEmail's way into the queue: many callers' mails in one commit.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::channel::EmailChannel;
use super::model::{Mail, Priority};
use super::store::{self, NewMail};
use crate::clock::SharedClock;
use crate::db::group::{Done, Fault, GroupedWrite};
use crate::db::{PostgresWriter, QueryResult, SqliteWriter};
use crate::delivery::engine::FIRST_TOKEN;
use crate::delivery::{Engine, Leased, Slot};
use crate::error::Result;
use crate::event::request::{self, RequestKey};

/// What all of them share.
pub struct EnqueueContext {
    /// Carries the mails.
    pub engine: Engine<EmailChannel>,
    /// The time.
    pub clock: SharedClock,
}

/// One mail to be queued.
pub struct EnqueueWrite {
    /// The mail.
    pub mail: Arc<Mail>,
    /// The caller's request id.
    pub key: Option<RequestKey>,
}

/// A mail that was queued, now or by an earlier request with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// The mail's id.
    pub email_id: String,
    /// Whether an earlier request had queued it.
    pub replayed: bool,
}

type Job = (Slot<Arc<Mail>>, Leased<Arc<Mail>>);

/// Rows to be written, with the jobs of those that have room.
pub(super) struct Prepared {
    pub rows: Vec<NewMail>,
    pub jobs: Vec<Job>,
}

impl Prepared {
    /// Reserves room for mails.
    pub(super) fn new(
        engine: &Engine<EmailChannel>,
        mails: Vec<Arc<Mail>>,
        now: crate::clock::Timestamp,
    ) -> Self {
        let lanes = Priority::ALL.map(|priority| Arc::<str>::from(priority.lane()));
        let mut prepared = Self { rows: Vec::with_capacity(mails.len()), jobs: Vec::new() };
        for mail in mails {
            let lane = &lanes[mail.priority as usize];
            let slot = engine.reserve(lane);
            prepared.rows.push(NewMail::new(Arc::clone(&mail), slot.as_ref().map(|_| engine.owner()), now));
            if let Some(slot) = slot {
                let (id, lane) = (mail.id.clone(), Arc::clone(lane));
                prepared.jobs.push((
                    slot,
                    Leased { id, lane, attempts: 0, due: now, token: FIRST_TOKEN, payload: mail },
                ));
            }
        }
        prepared
    }

    /// Takes the mails in hand whose rows are durable.
    pub(super) fn committed(self, engine: &Engine<EmailChannel>) {
        for (slot, job) in self.jobs {
            engine.submit(slot, job);
        }
    }
}

impl EnqueueWrite {
    fn answer(&self, earlier: Result<Option<String>>, fresh: &mut Vec<Arc<Mail>>) -> Result<Enqueued> {
        match earlier? {
            Some(email_id) => Ok(Enqueued { email_id, replayed: true }),
            None => {
                fresh.push(Arc::clone(&self.mail));
                Ok(Enqueued { email_id: self.mail.id.clone(), replayed: false })
            }
        }
    }
}

fn done(
    context: &EnqueueContext,
    outputs: Vec<Result<Enqueued>>,
    prepared: Prepared,
) -> Done<Result<Enqueued>> {
    let engine = context.engine.clone();
    Done { outputs, after_commit: Some(Box::new(move || prepared.committed(&engine))) }
}

impl GroupedWrite for EnqueueWrite {
    type Context = EnqueueContext;
    type Output = Result<Enqueued>;

    fn bytes(&self) -> usize {
        self.mail.html_body.len() + self.mail.plain_body.len()
    }

    fn sqlite(
        context: &EnqueueContext,
        batch: &mut [Self],
        conn: &mut SqliteWriter,
    ) -> Result<Done<Self::Output>, Fault> {
        let (mut outputs, mut fresh) = (Vec::with_capacity(batch.len()), Vec::new());
        for write in batch.iter() {
            let answer = match &write.key {
                None => write.answer(Ok(None), &mut fresh),
                Some(key) => {
                    let earlier = request::find_sqlite(conn, key)?;
                    if matches!(earlier, Ok(None)) {
                        request::keep_sqlite(conn, key, &write.mail.id, write.mail.created_at)?;
                    }
                    write.answer(earlier, &mut fresh)
                }
            };
            outputs.push(answer);
        }
        let prepared = Prepared::new(&context.engine, fresh, context.clock.now());
        store::insert_sqlite(conn, &prepared.rows)?;
        Ok(done(context, outputs, prepared))
    }

    fn postgres<'a>(
        context: &'a EnqueueContext,
        batch: &'a mut [Self],
        conn: &'a mut PostgresWriter,
    ) -> BoxFuture<'a, Result<Done<Self::Output>, Fault>> {
        async move {
            let (mut outputs, mut fresh) = (Vec::with_capacity(batch.len()), Vec::new());
            for write in batch.iter() {
                let answer = match &write.key {
                    None => write.answer(Ok(None), &mut fresh),
                    Some(key) => {
                        let earlier = request::find_postgres(conn, key).await?;
                        if matches!(earlier, Ok(None))
                            && !request::keep_postgres(conn, key, &write.mail.id, write.mail.created_at)
                                .await?
                        {
                            return Err(Fault::Stale);
                        }
                        write.answer(earlier, &mut fresh)
                    }
                };
                outputs.push(answer);
            }
            let prepared = Prepared::new(&context.engine, fresh, context.clock.now());
            insert(conn, &prepared.rows).await?;
            Ok(done(context, outputs, prepared))
        }
        .boxed()
    }
}

async fn insert(conn: &mut PostgresWriter, rows: &[NewMail]) -> QueryResult<()> {
    if rows.is_empty() { Ok(()) } else { store::insert_postgres(conn, rows).await }
}
