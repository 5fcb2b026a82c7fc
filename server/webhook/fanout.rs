//! The deliveries that a publish makes: one for each event and each endpoint that wants it.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::channel::WebhookChannel;
use super::directory::Directory;
use super::store::{self, NewDelivery};
use crate::clock::Timestamp;
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::delivery::engine::FIRST_TOKEN;
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
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
}

struct PlannedDeliveries {
    engine: Engine<WebhookChannel>,
    rows: Vec<NewDelivery>,
    /// The deliveries that have room, in the order of the rows that are leased.
    jobs: Vec<(Slot<Payload>, Leased<Payload>)>,
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
        let (mut rows, mut jobs) = (Vec::new(), Vec::new());
        for Event { fact, .. } in events {
            for endpoint in &*endpoints.wanting(&fact.event_type) {
                let id = self.ids.next(Kind::WebhookDelivery);
                let slot = self.engine.reserve(&endpoint.id);
                rows.push(NewDelivery {
                    id: id.clone(),
                    webhook_id: Arc::clone(&endpoint.id),
                    fact: Arc::clone(fact),
                    lease_owner: slot.as_ref().map(|_| self.engine.owner()),
                    now,
                });
                if let Some(slot) = slot {
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
        Some(Box::new(PlannedDeliveries { engine: self.engine.clone(), rows, jobs }))
    }
}

impl Planned for PlannedDeliveries {
    fn sqlite(&mut self, conn: &mut SqliteWriter) -> QueryResult<()> {
        store::insert_deliveries_sqlite(conn, &self.rows)
    }

    fn postgres<'a>(&'a mut self, conn: &'a mut PostgresWriter) -> BoxFuture<'a, QueryResult<()>> {
        store::insert_deliveries_postgres(conn, &self.rows).boxed()
    }

    fn committed(self: Box<Self>) {
        for (slot, job) in self.jobs {
            self.engine.submit(slot, job);
        }
    }
}
