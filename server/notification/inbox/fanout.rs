//! The inbox as a channel of a publish.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::apply::{self, Applied, Op};
use super::herald::Herald;
use super::routes::Routes;
use super::word;
use crate::clock::Timestamp;
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::error::Result;
use crate::event::{Event, Fact, Fanout, Planned};
use crate::id::IdGenerator;

/// How many notifications the events changed that somebody waits for.
#[derive(Debug, Default)]
pub struct Results(Mutex<HashMap<String, i64>>);

/// Waits for one of them, and forgets it in the end.
#[derive(Debug)]
pub struct Expected {
    results: Arc<Results>,
    event_id: String,
}

impl Results {
    /// Begins to wait for what an event changes; to be called before it is published.
    pub fn expect(self: &Arc<Self>, event_id: &str) -> Expected {
        self.lock().insert(event_id.to_owned(), 0);
        Expected { results: Arc::clone(self), event_id: event_id.to_owned() }
    }

    fn note(&self, changed: HashMap<String, i64>) {
        let mut results = self.lock();
        for (event_id, count) in changed {
            if let Some(result) = results.get_mut(&event_id) {
                *result = count;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expected {
    /// What the event has changed; to be called after its commit.
    pub fn take(self) -> i64 {
        self.results.lock().get(&self.event_id).copied().unwrap_or_default()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.results.lock().remove(&self.event_id);
    }
}

/// The inbox, as a publish sees it.
pub struct InboxFanout {
    /// Tells the counts.
    pub herald: Arc<Herald>,
    /// What marks have changed.
    pub results: Arc<Results>,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The routes that lead here, compiled.
    pub routes: ArcSwap<Routes>,
}

impl InboxFanout {
    /// One that has read no routes yet.
    pub fn new(herald: Arc<Herald>, ids: Arc<IdGenerator>) -> Arc<Self> {
        Arc::new(Self { herald, results: Arc::default(), ids, routes: ArcSwap::default() })
    }
}

impl Fanout for InboxFanout {
    fn revision(&self) -> i64 {
        self.routes.load().revision()
    }

    fn refresh<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<()>> {
        async move {
            let read = Arc::new(Routes::read(conn).await?);
            // Two refreshes may overlap; the older one must not win.
            self.routes.rcu(|known| {
                if known.revision() > read.revision() { Arc::clone(known) } else { Arc::clone(&read) }
            });
            Ok(())
        }
        .boxed()
    }

    fn derive(&self, facts: &[Arc<Fact>], _now: Timestamp) -> Vec<Arc<Fact>> {
        self.routes.load().derive(facts, &self.ids)
    }

    fn plan(&self, events: &[Event], _now: Timestamp) -> Option<Box<dyn Planned>> {
        let ops: Vec<Op> = events.iter().filter_map(word::read).collect();
        if ops.is_empty() {
            return None;
        }
        let (herald, results) = (Arc::clone(&self.herald), Arc::clone(&self.results));
        Some(Box::new(PlannedOps { ops, applied: Applied::default(), herald, results }))
    }
}

struct PlannedOps {
    ops: Vec<Op>,
    applied: Applied,
    herald: Arc<Herald>,
    results: Arc<Results>,
}

impl Planned for PlannedOps {
    fn sqlite(&mut self, conn: &mut SqliteWriter) -> QueryResult<()> {
        self.applied = apply::sqlite(conn, &self.ops)?;
        Ok(())
    }

    fn postgres<'a>(&'a mut self, conn: &'a mut PostgresWriter) -> BoxFuture<'a, QueryResult<()>> {
        async move {
            self.applied = apply::postgres(conn, &self.ops).await?;
            Ok(())
        }
        .boxed()
    }

    fn committed(self: Box<Self>) {
        // What a broadcast does to everybody's counts is told by whoever follows the log.
        let Applied { changed, users, everybody: _ } = self.applied;
        self.results.note(changed);
        if !users.is_empty() {
            self.herald.changed(users, false);
        }
    }
}
