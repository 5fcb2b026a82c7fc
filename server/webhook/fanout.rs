//! The deliveries that a publish makes: one for each event and each endpoint that wants it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::channel::WebhookChannel;
use super::directory::Directory;
use super::health::notice::is_about;
use super::mode::DeliveryMode;
use super::policy::Defaults;
use super::store::{self, NewDelivery};
use crate::clock::Timestamp;
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::delivery::engine::FIRST_TOKEN;
use crate::delivery::limit::store::{self as limits, Wish};
use crate::delivery::order::{self, Sequence};
use crate::delivery::{Engine, Leased, Slot};
use crate::error::Result;
use crate::event::{Event, Fact, Fanout, Planned};
use crate::failpoint;
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
    /// What the deliveries are in order with, each once.
    fn sequences(&self) -> Vec<Sequence> {
        let mut sequences: Vec<_> = self.rows.iter().filter_map(NewDelivery::sequence).collect();
        sequences.sort_unstable();
        sequences.dedup();
        sequences
    }

    /// Lets those wait that have another of their sequence before them.
    fn park(&mut self, mut busy: HashSet<Sequence>) {
        let mut parked = HashSet::new();
        for row in &mut self.rows {
            // The first of a sequence makes it busy for the others.
            let Some(sequence) = row.sequence().filter(|sequence| !busy.insert(sequence.clone())) else {
                continue;
            };
            row.parked = true;
            if row.lease_owner.take().is_some() {
                parked.insert(row.id.clone());
                if let Some(wish) = self.wishes.get_mut(&sequence.lane) {
                    wish.wanted -= 1;
                }
            }
        }
        self.jobs.retain(|(_, job)| !parked.contains(&job.id));
    }

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
        for Event { fact, position } in events {
            for endpoint in &*endpoints.wanting(&fact.event_type) {
                if is_about(fact, &endpoint.id) {
                    continue;
                }
                let id = self.ids.next(Kind::WebhookDelivery);
                let ordering = (endpoint.mode == DeliveryMode::Ordered)
                    .then(|| (Arc::from(fact.subject.as_str()), *position));
                let ordering_key = ordering.as_ref().map(|(key, _)| Arc::clone(key));
                // What a dead host would get waits in the database, of which the poller takes a probe now and then.
                let slot = if endpoint.pulse.is_open() { None } else { self.engine.reserve(&endpoint.id) };
                rows.push(NewDelivery {
                    id: id.clone(),
                    webhook_id: Arc::clone(&endpoint.id),
                    fact: Arc::clone(fact),
                    lease_owner: slot.as_ref().map(|_| self.engine.owner()),
                    ordering,
                    parked: false,
                    now,
                });
                if let Some(slot) = slot {
                    // What shares a request is counted when that is made.
                    if endpoint.mode == DeliveryMode::Batched {
                    } else if let Some(wish) = wishes.get_mut(&endpoint.id) {
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
                            ordering_key,
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
        let sequences = self.sequences();
        if !sequences.is_empty() {
            self.park(order::store::busy_sqlite(conn, &sequences)?);
        }
        if !self.wishes.is_empty() {
            let granted = limits::take_each_sqlite(conn, &self.wishes(), self.now)?;
            self.keep(granted);
        }
        store::insert_deliveries_sqlite(conn, &self.rows)
    }

    fn postgres<'a>(&'a mut self, conn: &'a mut PostgresWriter) -> BoxFuture<'a, QueryResult<()>> {
        async move {
            let sequences = self.sequences();
            if !sequences.is_empty() {
                self.park(order::store::busy_postgres(conn, &sequences).await?);
            }
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
            if failpoint::bug("handover_lost") {
                continue;
            }
            self.engine.submit(slot, job);
        }
    }
}
