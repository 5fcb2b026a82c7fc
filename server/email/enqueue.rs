//! SendEmail's way into the queue: many callers' mails in one commit.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::intake::{Arrival, Intake, Prepared};
use crate::clock::SharedClock;
use crate::db::group::{Done, Fault, GroupedWrite};
use crate::db::{PostgresWriter, SqliteWriter};
use crate::error::{Error, Result};
use crate::event::request::{self, RequestKey};
use crate::failpoint;

/// What all of them share.
pub struct EnqueueContext {
    /// Decides about the mails.
    pub intake: Intake,
    /// The time.
    pub clock: SharedClock,
}

/// One caller's mails.
pub struct EnqueueWrite {
    /// The mails, each with its caller's request id.
    pub mails: Vec<(Arrival, Option<RequestKey>)>,
    /// Whether one that is refused refuses all.
    pub strict: bool,
}

/// A mail that was queued, now or by an earlier request with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// The mail's id.
    pub email_id: String,
    /// Whether an earlier request had queued it.
    pub replayed: bool,
}

/// What becomes of one caller's mails, in their order.
type Answers = Vec<Result<Enqueued>>;
/// What earlier requests with the same ids were answered.
type Earlier = Vec<Result<Option<String>>>;

impl EnqueueWrite {
    /// Whether nothing of it may be written.
    fn is_refused(&self, earlier: &Earlier) -> bool {
        self.strict && earlier.iter().any(Result::is_err)
    }

    /// The mails that are new, with their request ids.
    fn fresh<'a>(
        &'a self,
        earlier: &'a Earlier,
    ) -> impl Iterator<Item = (&'a Arrival, Option<&'a RequestKey>)> {
        let new =
            |((arrival, key), earlier): (&'a (Arrival, Option<RequestKey>), &Result<Option<String>>)| {
                matches!(earlier, Ok(None)).then_some((arrival, key.as_ref()))
            };
        self.mails.iter().zip(earlier).filter_map(new)
    }

    fn answer(&self, earlier: Earlier) -> Answers {
        let one = |((arrival, _), earlier): (&(Arrival, _), Result<Option<String>>)| {
            Ok(match earlier? {
                Some(email_id) => Enqueued { email_id, replayed: true },
                None => Enqueued { email_id: arrival.mail.id.clone(), replayed: false },
            })
        };
        self.mails.iter().zip(earlier).map(one).collect()
    }

    /// The first refusal stands for all.
    fn refuse(earlier: Earlier) -> Error {
        let refused = (0..).zip(earlier).find_map(|(index, earlier)| Some((index, earlier.err()?)));
        refused.map_or_else(
            || Error::internal("nothing was refused"),
            |(index, error): (i32, Error)| error.with("index", index.to_string()),
        )
    }
}

fn done(
    context: &EnqueueContext,
    outputs: Vec<Result<Answers>>,
    prepared: Prepared,
) -> Done<Result<Answers>> {
    let engine = context.intake.engine.clone();
    let after_commit = move || {
        failpoint::pass("accept.committed");
        prepared.committed(&engine);
    };
    Done { outputs, after_commit: Some(Box::new(after_commit)) }
}

impl GroupedWrite for EnqueueWrite {
    type Context = EnqueueContext;
    /// An error when all of it was refused, else an answer for each mail.
    type Output = Result<Answers>;

    fn weight(&self) -> usize {
        self.mails.len()
    }

    fn bytes(&self) -> usize {
        let files = |arrival: &Arrival| arrival.files.iter().map(|(_, content)| content.len()).sum::<usize>();
        let mail = |arrival: &Arrival| arrival.mail.html_body.len() + arrival.mail.plain_body.len();
        self.mails.iter().map(|(arrival, _)| mail(arrival) + files(arrival)).sum()
    }

    fn sqlite(
        context: &EnqueueContext,
        batch: &mut [Self],
        conn: &mut SqliteWriter,
    ) -> Result<Done<Self::Output>, Fault> {
        let (mut outputs, mut fresh) = (Vec::with_capacity(batch.len()), Vec::new());
        for write in batch.iter() {
            let mut earlier: Earlier = Vec::with_capacity(write.mails.len());
            for (_, key) in &write.mails {
                earlier.push(match key {
                    Some(key) => request::find_sqlite(conn, key)?,
                    None => Ok(None),
                });
            }
            if write.is_refused(&earlier) {
                outputs.push(Err(EnqueueWrite::refuse(earlier)));
                continue;
            }
            for (arrival, key) in write.fresh(&earlier) {
                if let Some(key) = key {
                    request::keep_sqlite(conn, key, &arrival.mail.id, arrival.mail.created_at)?;
                }
                fresh.push(arrival.clone());
            }
            outputs.push(Ok(write.answer(earlier)));
        }
        let prepared = context.intake.sqlite(conn, &fresh, context.clock.now())?;
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
                let mut earlier: Earlier = Vec::with_capacity(write.mails.len());
                for (_, key) in &write.mails {
                    earlier.push(match key {
                        Some(key) => request::find_postgres(conn, key).await?,
                        None => Ok(None),
                    });
                }
                if write.is_refused(&earlier) {
                    outputs.push(Err(EnqueueWrite::refuse(earlier)));
                    continue;
                }
                for (arrival, key) in write.fresh(&earlier) {
                    if let Some(key) = key
                        && !request::keep_postgres(conn, key, &arrival.mail.id, arrival.mail.created_at)
                            .await?
                    {
                        return Err(Fault::Stale);
                    }
                    fresh.push(arrival.clone());
                }
                outputs.push(Ok(write.answer(earlier)));
            }
            let prepared = context.intake.postgres(conn, &fresh, context.clock.now()).await?;
            Ok(done(context, outputs, prepared))
        }
        .boxed()
    }
}
