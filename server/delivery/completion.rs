//! Writing results: the new state and the attempt row, many in one commit, each only under its lease.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::lane::Slot;
use super::machine::Status;
use super::model::Table;
use super::order::Sequence;
use super::store;
use crate::clock::Timestamp;
use crate::db::group::{Done, Fault, GroupedWrite};
use crate::db::{PostgresWriter, QueryResult, SqliteWriter};

/// What a channel writes together with a result, if the lease still holds.
pub trait Effect: Send + Sync {
    /// Writes it to SQLite.
    fn sqlite(&self, conn: &mut SqliteWriter) -> QueryResult<()>;

    /// Writes it to PostgreSQL.
    fn postgres<'a>(&'a self, conn: &'a mut PostgresWriter) -> BoxFuture<'a, QueryResult<()>>;
}

/// The result of one attempt, to be written.
pub struct Completion<P> {
    /// The delivery.
    pub id: String,
    /// The lease under which the attempt was made.
    pub token: i64,
    /// Where the delivery stands after it.
    pub status: Status,
    /// Whether anything was tried, and so whether there is an attempt row.
    pub tried: bool,
    /// The HTTP status or the SMTP reply code.
    pub response_status: Option<i32>,
    /// What the destination said.
    pub response_body: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// What was said, for a failed attempt.
    pub transcript: Option<String>,
    /// What the channel keeps of the attempt beside that.
    pub details: Option<String>,
    /// What the channel writes with it.
    pub effect: Option<Box<dyn Effect>>,
    /// When the attempt started.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// When it ended.
    pub now: Timestamp,
    /// What the delivery is in order with.
    pub sequence: Option<Sequence>,
    /// Freed when the result is durable.
    pub slot: Option<Slot<P>>,
}

impl<P> Completion<P> {
    /// What goes on with its next delivery once this result is written.
    pub fn frees(&self) -> Option<Sequence> {
        self.sequence.clone().filter(|_| self.status.state.is_final())
    }
}

/// What the results of one channel share.
pub struct Ledger {
    /// The table.
    pub table: Table,
    /// This node.
    pub owner: i64,
}

impl<P: Send + Sync + 'static> GroupedWrite for Completion<P> {
    type Context = Ledger;
    /// Whether the lease still held.
    type Output = bool;

    fn sqlite(ledger: &Ledger, batch: &mut [Self], conn: &mut SqliteWriter) -> Result<Done<bool>, Fault> {
        let written = batch.iter().map(|result| store::complete_sqlite(conn, ledger, result));
        Ok(Done::new(written.collect::<Result<_, _>>()?))
    }

    fn postgres<'a>(
        ledger: &'a Ledger,
        batch: &'a mut [Self],
        conn: &'a mut PostgresWriter,
    ) -> BoxFuture<'a, Result<Done<bool>, Fault>> {
        async move { Ok(Done::new(store::complete_postgres(conn, ledger, batch).await?)) }.boxed()
    }
}
