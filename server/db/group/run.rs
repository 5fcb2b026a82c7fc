//! Writes one group: all of it in one transaction, or, when the database refuses something, in smaller ones until what
//! is bad stands alone.

use std::panic::AssertUnwindSafe;

use diesel::connection::SimpleConnection;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::SimpleAsyncConnection;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::batch::{AnyBatch, Failure, Fault};
use crate::db::trouble::Trouble;
use crate::db::{Conn, Db};
use crate::error::{Error, Kind};
use crate::failpoint;

type Batches = Vec<Box<dyn AnyBatch>>;

/// What a group writes, it finds by keys that it brings in arrays.  The planner, told of a thousand of them and of a table
/// that was small or not yet analysed a minute ago, compares each with every row instead: minutes of CPU where the keys'
/// index takes milliseconds.  So groups plan each statement once, for any number of keys, and by index alone.
const POSTGRES_BEGIN: &str = "BEGIN; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off; \
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

/// How often a group may find its context out of date, or itself in another's way, before that counts as a fault.
const TRIES: usize = 5;

/// How a transaction ended.
enum End {
    Committed,
    /// This batch's context is out of date; nothing was written.
    Stale(usize),
    /// Another transaction was in the way; nothing was written, and the same may succeed now.
    Clash(DieselError),
    /// The database refused a statement; nothing was written, so that parts may be tried again.
    Refused(DieselError),
    /// Whether anything was written is not known, or trying again is of no use.
    Broken(DieselError),
}

/// Writes the batches and answers their callers.
pub(super) fn group(db: &Db, batches: Batches) -> BoxFuture<'_, ()> {
    async move {
        match write(db, batches).await {
            Ok(()) => {}
            Err((mut batches, Ending::Refused)) if batches.len() > 1 => {
                for batch in batches.drain(..) {
                    group(db, vec![batch]).await;
                }
            }
            Err((mut batches, Ending::Refused)) => {
                for batch in batches.drain(..).flat_map(AnyBatch::split) {
                    group(db, vec![batch]).await;
                }
            }
            Err((batches, Ending::Failed(failure))) => {
                // What is wrong with the database itself is logged once.
                match failure.trouble {
                    Some(trouble) => tracing::debug!(?trouble, "a group of writes failed"),
                    None => tracing::warn!(error = failure.message, "a group of writes failed"),
                }
                for batch in batches {
                    batch.failed(&failure);
                }
            }
        }
    }
    .boxed()
}

enum Ending {
    /// Try the parts.
    Refused,
    /// Give up.
    Failed(Failure),
}

async fn write(db: &Db, mut batches: Batches) -> Result<(), (Batches, Ending)> {
    let mut conn = match db.writer().await {
        Ok(conn) => conn,
        Err(error) => return Err((batches, Ending::Failed(failure(db, &error)))),
    };
    let mut clash = None;
    for _ in 0..TRIES {
        let (back, end) = match &mut conn {
            Conn::Sqlite(handle) => {
                let run = handle.spawn_blocking(move |c| Ok(sqlite(c, batches)));
                match run.await {
                    Ok(end) => end,
                    // The batches went down with the thread, and their callers learn it from their closed channels.
                    Err(error) => {
                        tracing::error!(%error, "a group of writes was lost");
                        return Ok(());
                    }
                }
            }
            Conn::Postgres(handle) => postgres(handle, batches).await,
        };
        batches = back;
        match end {
            End::Committed => {
                drop(conn);
                batches.into_iter().for_each(AnyBatch::committed);
                return Ok(());
            }
            End::Stale(index) => {
                if let Err(error) = batches[index].refresh(&mut conn).await {
                    return Err((batches, Ending::Failed(failure(db, &error))));
                }
            }
            End::Clash(error) => clash = Some(error),
            End::Refused(error) => {
                let alone = batches.len() == 1 && batches[0].len() == 1;
                let ending = if alone { Ending::Failed(failure(db, &error.into())) } else { Ending::Refused };
                return Err((batches, ending));
            }
            End::Broken(error) => return Err((batches, Ending::Failed(failure(db, &error.into())))),
        }
    }
    let message = match clash {
        Some(error) => format!("other transactions were in the way: {error}"),
        None => "the subscriptions change too fast".into(),
    };
    Err((batches, Ending::Failed(Failure { kind: Kind::Unavailable, trouble: None, message })))
}

fn failure(db: &Db, error: &Error) -> Failure {
    db.condition.note(error);
    Failure { kind: error.kind(), trouble: Trouble::told(error), message: error.to_string() }
}

fn sqlite(conn: &mut diesel::SqliteConnection, mut batches: Batches) -> (Batches, End) {
    if let Err(error) = conn.batch_execute("BEGIN IMMEDIATE") {
        // A group that panicked may have left its transaction open.
        let _ = conn.batch_execute("ROLLBACK");
        if conn.batch_execute("BEGIN IMMEDIATE").is_err() {
            return (batches, End::Broken(error));
        }
    }
    let mut end = End::Committed;
    for (index, batch) in batches.iter_mut().enumerate() {
        if let Err(fault) = batch.sqlite(conn) {
            end = of_fault(index, fault);
            break;
        }
        failpoint::pass("group.middle");
    }
    if matches!(end, End::Committed) {
        before_commit(&mut batches);
    }
    if matches!(end, End::Committed)
        && let Err(error) = conn.batch_execute("COMMIT")
    {
        end = End::Broken(error);
    }
    if !matches!(end, End::Committed) {
        // Without effect when SQLite has rolled back by itself, as it does when the disk is full.
        let _ = conn.batch_execute("ROLLBACK");
    }
    (batches, end)
}

async fn postgres(conn: &mut diesel_async::AsyncPgConnection, mut batches: Batches) -> (Batches, End) {
    if let Err(error) = conn.batch_execute(POSTGRES_BEGIN).await {
        return (batches, End::Broken(error));
    }
    let mut end = End::Committed;
    for (index, batch) in batches.iter_mut().enumerate() {
        // A write that panics must cost its group, and neither the loop nor the connection.
        let written = AssertUnwindSafe(batch.postgres(conn)).catch_unwind().await;
        let panicked = || Fault::Database(DieselError::QueryBuilderError("a write panicked".into()));
        if let Err(fault) = written.unwrap_or_else(|_| Err(panicked())) {
            end = of_fault(index, fault);
            break;
        }
        failpoint::pass("group.middle");
    }
    if matches!(end, End::Committed) {
        before_commit(&mut batches);
    }
    if matches!(end, End::Committed)
        && let Err(error) = conn.batch_execute("COMMIT").await
    {
        return (batches, End::Broken(error));
    }
    if !matches!(end, End::Committed) {
        let _ = conn.batch_execute("ROLLBACK").await;
    }
    (batches, end)
}

/// All is written, and nothing of it durable yet.
fn before_commit(batches: &mut Batches) {
    if failpoint::bug("acknowledged_before_commit") {
        let callers: usize = batches.iter_mut().map(|batch| batch.acknowledge()).sum();
        if callers > 0 {
            failpoint::pass("acknowledged.uncommitted");
        }
    }
    failpoint::pass("group.uncommitted");
}

fn of_fault(index: usize, fault: Fault) -> End {
    match fault {
        Fault::Stale => End::Stale(index),
        Fault::Database(error) => match &error {
            // Each of the parts would fail for the same reason.
            _ if Trouble::of(&error).is_some() => End::Broken(error),
            _ if is_clash(&error) => End::Clash(error),
            _ => End::Refused(error),
        },
    }
}

/// Whether only the time was wrong: PostgreSQL ended the transaction for the sake of another one, or a partition was made
/// for a row on its way to the default one.
fn is_clash(error: &DieselError) -> bool {
    let DieselError::DatabaseError(kind, info) = error else { return false };
    match kind {
        DatabaseErrorKind::SerializationFailure => true,
        DatabaseErrorKind::CheckViolation => info.message().contains("partition constraint"),
        _ => info.message().contains("deadlock detected"),
    }
}
