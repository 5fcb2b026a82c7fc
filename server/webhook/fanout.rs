//! The deliveries that a publish makes: one for each event and each endpoint that wants it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::channel::WebhookChannel;
use super::directory::Directory;
use super::health::notice::is_about;
use super::policy::Defaults;
use super::store::{self, NewDelivery};
use crate::clock::Timestamp;
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::delivery::engine::FIRST_TOKEN;
use crate::delivery::limit::store::{self as limits, Wish};
use crate::delivery::{Engine, Leased, Slot};
use crate::error::Result;
use crate::event::{Event, Fact, Fanout, Planned};
use crate::id::{IdGenerator, Kind};

type Payload = Arc<Fact>;

/// The webhook channel, as a publish sees it.
pub struct WebhookFanout {
    /// The endpoints.
    pub directory: Arc<Directory>,
    /// Carries the deliveries.
    pub engine: Engine<WebhookChannel>,
    /// The limits of endpoints without their own.
    pub defaults: Arc<Defaults>,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
}

struct PlannedDeliveries {
    engine: Engine<WebhookChannel>,
    rows: Vec<NewDelivery>,
    /// The deliveries that have room, in the order of the rows that are leased.
    jobs: Vec<(Slot<Payload>, Leased<Payload>)>,
    /// What the endpoints of the jobs have limits for, by name.
    wishes: BTreeMap<Arc<str>, Wish>,
    now: Timestamp,
}

impl PlannedDeliveries {
    fn wishes(&self) -> Vec<Wish> {
        self.wishes.values().cloned().collect()
    }

    /// Lets those wait that are over a limit, the newest ones.
    fn keep(&mut self, granted: Vec<u64>) {
        let wishes = std::mem::take(&mut self.wishes);
        let mut over: HashMap<Arc<str>, u64> = wishes
            .into_iter()
            .zip(granted)
            .map(|((lane, wish), granted)| (lane, wish.wanted - granted))
            .filter(|(_, over)| *over > 0)
            .collect();
        if over.is_empty() {
            return;
        }
        let mut waiting = HashSet::new();
        let mut kept = Vec::with_capacity(self.jobs.len());
        for (slot, job) in std::mem::take(&mut self.jobs).into_iter().rev() {
            match over.get_mut(&job.lane).filter(|over| **over > 0) {
                Some(over) => {
                    *over -= 1;
                    waiting.insert(job.id);
                }
                None => kept.push((slot, job)),
            }
        }
        kept.reverse();
        self.jobs = kept;
        for row in self.rows.iter_mut().filter(|row| waiting.contains(&row.id)) {
            row.lease_owner = None;
        }
    }
}

impl Fanout for WebhookFanout {
    fn revision(&self) -> i64 {
        self.directory.revision()
    }

    fn refresh<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<()>> {
        self.directory.refresh(conn).boxed()
    }

    fn plan(&self, events: &[Event], now: Timestamp) -> Option<Box<dyn Planned>> {
        let endpoints = self.directory.endpoints();
        let (mut rows, mut jobs, mut wishes) = (Vec::new(), Vec::new(), BTreeMap::<Arc<str>, Wish>::new());
        for Event { fact, .. } in events {
            for endpoint in &*endpoints.wanting(&fact.event_type) {
                if is_about(fact, &endpoint.id) {
                    continue;
                }
                let id = self.ids.next(Kind::WebhookDelivery);
                // What a dead host would get waits in the database, of which the poller takes a probe now and then.
                let slot = if endpoint.pulse.is_open() { None } else { self.engine.reserve(&endpoint.id) };
                rows.push(NewDelivery {
                    id: id.clone(),
                    webhook_id: Arc::clone(&endpoint.id),
                    fact: Arc::clone(fact),
                    lease_owner: slot.as_ref().map(|_| self.engine.owner()),
                    now,
                });
                if let Some(slot) = slot {
                    if let Some(wish) = wishes.get_mut(&endpoint.id) {
                        wish.wanted += 1;
                    } else if let Some(limit) = self.defaults.limit(&endpoint.id, endpoint.rate_limit) {
                        wishes.insert(Arc::clone(&endpoint.id), Wish { limit, wanted: 1 });
                    }
                    let (lane, payload) = (Arc::clone(&endpoint.id), Arc::clone(fact));
                    jobs.push((
                        slot,
                        Leased {
                            id,
                            lane,
                            attempts: 0,
                            attempts_before: 0,
                            due: now,
                            token: FIRST_TOKEN,
                            payload,
                        },
                    ));
                }
            }
        }
        if rows.is_empty() {
            return None;
        }
        Some(Box::new(PlannedDeliveries { engine: self.engine.clone(), rows, jobs, wishes, now }))
    }
}

impl Planned for PlannedDeliveries {
    fn sqlite(&mut self, conn: &mut SqliteWriter) -> QueryResult<()> {
        if !self.wishes.is_empty() {
            let granted = limits::take_each_sqlite(conn, &self.wishes(), self.now)?;
            self.keep(granted);
        }
        store::insert_deliveries_sqlite(conn, &self.rows)
    }

    fn postgres<'a>(&'a mut self, conn: &'a mut PostgresWriter) -> BoxFuture<'a, QueryResult<()>> {
        async move {
            if !self.wishes.is_empty() {
                let granted = limits::take_each_postgres(conn, &self.wishes(), self.now).await?;
                self.keep(granted);
            }
            store::insert_deliveries_postgres(conn, &self.rows).await
        }
        .boxed()
    }

    fn committed(self: Box<Self>) {
        for (slot, job) in self.jobs {
            self.engine.submit(slot, job);
        }
    }
}
