//! What is written in a group: the trait for a kind of write, and a batch of them with the callers who wait.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::db::trouble::Trouble;
use crate::db::{Conn, PostgresWriter, SqliteWriter};
use crate::error::{Error, Kind, Result};

/// One kind of hot write.
///
/// Both forms get all writes of the kind in the group, inside its transaction, and may be called again after a
/// roll-back: they must have no effect but through the connection and [`Done::after_commit`].
pub trait GroupedWrite: Send + Sized + 'static {
    /// What all writes of the kind share.
    type Context: Send + Sync + 'static;
    /// What the caller of one write gets.
    type Output: Send + 'static;

    /// How much of a group this write fills; a group holds about [`GROUP_WEIGHT`](super::lane::GROUP_WEIGHT).
    fn weight(&self) -> usize {
        1
    }

    /// The payload that this write keeps in memory while it waits.
    fn bytes(&self) -> usize {
        0
    }

    /// Writes the batch to SQLite.
    fn sqlite(
        context: &Self::Context,
        batch: &mut [Self],
        conn: &mut SqliteWriter,
    ) -> Result<Done<Self::Output>, Fault>;

    /// Writes the batch to PostgreSQL.
    fn postgres<'a>(
        context: &'a Self::Context,
        batch: &'a mut [Self],
        conn: &'a mut PostgresWriter,
    ) -> BoxFuture<'a, Result<Done<Self::Output>, Fault>>;

    /// Brings the context up to date after a [`Fault::Stale`].
    fn refresh<'a>(_context: &'a Self::Context, _conn: &'a mut Conn) -> BoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed()
    }
}

/// A batch that was written.
pub struct Done<T> {
    /// One answer per write, in their order.
    pub outputs: Vec<T>,
    /// Runs once the commit is durable, before the callers are answered.  It must not block.
    pub after_commit: Option<Box<dyn FnOnce() + Send>>,
}

impl<T> Done<T> {
    /// A batch with nothing to do after its commit.
    pub fn new(outputs: Vec<T>) -> Self {
        Self { outputs, after_commit: None }
    }
}

/// Why a batch could not be written.
#[derive(Debug)]
pub enum Fault {
    /// The database refused.
    Database(diesel::result::Error),
    /// The context is older than the database: refresh it and write again.
    Stale,
}

impl From<diesel::result::Error> for Fault {
    fn from(error: diesel::result::Error) -> Self {
        Self::Database(error)
    }
}

/// Who is told how a write ended.
pub(super) enum Reply<W: GroupedWrite> {
    Caller(tokio::sync::oneshot::Sender<Result<W::Output>>),
    Callback(Box<dyn FnOnce(W, Result<W::Output>) + Send>),
}

impl<W: GroupedWrite> Reply<W> {
    fn send(self, write: W, result: Result<W::Output>) {
        match self {
            // A caller that went away does not want to know.
            Self::Caller(sender) => drop(sender.send(result)),
            Self::Callback(callback) => callback(write, result),
        }
    }
}

/// A batch of any kind.
pub(super) trait AnyBatch: Send {
    fn len(&self) -> usize;
    fn sqlite(&mut self, conn: &mut SqliteWriter) -> Result<(), Fault>;
    fn postgres<'a>(&'a mut self, conn: &'a mut PostgresWriter) -> BoxFuture<'a, Result<(), Fault>>;
    fn refresh<'a>(&'a mut self, conn: &'a mut Conn) -> BoxFuture<'a, Result<()>>;
    /// Answers everybody, once the commit is durable; says how many callers waited for it.
    fn acknowledge(&mut self) -> usize;
    /// The commit is durable: runs what follows it and answers everybody.
    fn committed(self: Box<Self>);
    /// Nothing was written: tells everybody.
    fn failed(self: Box<Self>, error: &Failure);
    /// One batch for each write.
    fn split(self: Box<Self>) -> Vec<Box<dyn AnyBatch>>;
}

/// Why nothing was written, so that each caller gets an error of their own.
#[derive(Debug)]
pub(super) struct Failure {
    pub kind: Kind,
    /// What is wrong with the database, if that is the reason.
    pub trouble: Option<Trouble>,
    pub message: String,
}

impl Failure {
    fn error(&self) -> Error {
        match (self.trouble, self.kind) {
            (Some(trouble), _) => trouble.error(self.message.clone()),
            (None, Kind::Unavailable) => {
                Error::unavailable("the database can not be written to", self.message.clone())
            }
            _ => Error::internal(self.message.clone()),
        }
    }
}

pub(super) struct Batch<W: GroupedWrite> {
    pub context: Arc<W::Context>,
    pub writes: Vec<W>,
    pub replies: Vec<Reply<W>>,
    pub done: Option<Done<W::Output>>,
}

impl<W: GroupedWrite> AnyBatch for Batch<W> {
    fn len(&self) -> usize {
        self.writes.len()
    }

    fn sqlite(&mut self, conn: &mut SqliteWriter) -> Result<(), Fault> {
        self.done = None;
        self.done = Some(W::sqlite(&self.context, &mut self.writes, conn)?);
        Ok(())
    }

    fn postgres<'a>(&'a mut self, conn: &'a mut PostgresWriter) -> BoxFuture<'a, Result<(), Fault>> {
        async move {
            self.done = None;
            self.done = Some(W::postgres(&self.context, &mut self.writes, conn).await?);
            Ok(())
        }
        .boxed()
    }

    fn refresh<'a>(&'a mut self, conn: &'a mut Conn) -> BoxFuture<'a, Result<()>> {
        W::refresh(&self.context, conn)
    }

    fn acknowledge(&mut self) -> usize {
        let Some(done) = &mut self.done else { return 0 };
        let callers = self.replies.iter().filter(|reply| matches!(reply, Reply::Caller(_))).count();
        debug_assert_eq!(done.outputs.len(), self.writes.len());
        let answered = self.writes.drain(..).zip(self.replies.drain(..)).zip(done.outputs.drain(..));
        answered.for_each(|((write, reply), output)| reply.send(write, Ok(output)));
        callers
    }

    fn committed(mut self: Box<Self>) {
        if let Some(after_commit) = self.done.as_mut().and_then(|done| done.after_commit.take()) {
            after_commit();
        }
        self.acknowledge();
    }

    fn failed(self: Box<Self>, failure: &Failure) {
        for (write, reply) in self.writes.into_iter().zip(self.replies) {
            reply.send(write, Err(failure.error()));
        }
    }

    fn split(self: Box<Self>) -> Vec<Box<dyn AnyBatch>> {
        let Self { context, writes, replies, .. } = *self;
        let single = |(write, reply)| -> Box<dyn AnyBatch> {
            Box::new(Self {
                context: Arc::clone(&context),
                writes: vec![write],
                replies: vec![reply],
                done: None,
            })
        };
        writes.into_iter().zip(replies).map(single).collect()
    }
}
