//! The publish: events, the deliveries of every channel and the request ids of many callers, in one transaction.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::bus::Bus;
use super::fanout::{Fanout, Planned};
use super::log;
use super::model::{Event, Fact};
use super::registry::Registry;
use super::request::{self, RequestKey};
use crate::clock::{SharedClock, Timestamp};
use crate::db::group::{Done, Fault, GroupedWrite};
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter, revision};
use crate::error::Result;
use crate::failpoint;

/// What all publishes share.
pub struct PublishContext {
    /// Every channel.
    pub fanouts: Vec<Arc<dyn Fanout>>,
    /// The event types.
    pub registry: Arc<Registry>,
    /// The live end of the log.
    pub bus: Arc<Bus>,
    /// The time.
    pub clock: SharedClock,
}

/// One call's events: all of them or none.
pub struct PublishWrite {
    /// The events.
    pub facts: Vec<Arc<Fact>>,
    /// The call's request ids: for each event, the key that its caller gave; or one for all of them.
    pub keys: Vec<Option<RequestKey>>,
}

/// An event that was published, now or by an earlier request with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The event's id.
    pub event_id: Arc<str>,
    /// Its place in the log; 0 for one that has none: it is ephemeral, or no longer kept.
    pub position: i64,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Whether an earlier request had published it.
    pub replayed: bool,
}

/// A batch under way: what each write answers, and which facts are new.
#[derive(Default)]
struct Plan {
    answers: Vec<Result<Vec<Published>>>,
    fresh: Vec<Arc<Fact>>,
    /// Events that an earlier request published: the write, the place in it, and the event.
    replays: Vec<(usize, usize, String)>,
}

impl Plan {
    /// Notes a write, given for each of its events the one that an earlier request published.
    fn add(&mut self, write: &PublishWrite, earlier: Vec<Option<String>>) {
        let index = self.answers.len();
        let mut answer = Vec::with_capacity(write.facts.len());
        // One key for all of them: it knows the first.
        let whole = write.keys.len() == 1;
        let earlier = earlier.into_iter().cycle().take(write.facts.len());
        for (place, (fact, earlier)) in write.facts.iter().zip(earlier).enumerate() {
            let replayed = earlier.is_some();
            match earlier {
                Some(event_id) if place == 0 || !whole => self.replays.push((index, place, event_id)),
                Some(_) => {}
                None => self.fresh.push(Arc::clone(fact)),
            }
            let (event_id, created_at) = (Arc::clone(&fact.id), fact.created_at);
            answer.push(Published { event_id, position: 0, created_at, replayed });
        }
        self.answers.push(Ok(answer));
    }

    /// Adds the events that follow from the new ones.
    fn derive(&mut self, context: &PublishContext) {
        let now = context.clock.now();
        let derived =
            context.fanouts.iter().flat_map(|fanout| fanout.derive(&self.fresh, now)).collect::<Vec<_>>();
        self.fresh.extend(derived);
    }

    /// Gives the new events their places.
    fn place(&mut self, first: i64) -> Vec<Event> {
        let answers = self.answers.iter_mut().flatten().flatten();
        for (published, position) in answers.filter(|published| !published.replayed).zip(first..) {
            published.position = position;
        }
        std::mem::take(&mut self.fresh)
            .into_iter()
            .zip(first..)
            .map(|(fact, position)| Event { position, fact })
            .collect()
    }

    /// Answers a repeat with what the first request published; an event that is no longer kept has no place.
    fn replay(&mut self, write: usize, place: usize, event_id: String, found: Option<(i64, Timestamp)>) {
        if let Ok(answer) = &mut self.answers[write] {
            let published = &mut answer[place];
            published.event_id = event_id.into();
            (published.position, published.created_at) = found.unwrap_or((0, published.created_at));
        }
    }
}

impl PublishWrite {
    /// The request ids that nothing was published for yet, with what this write publishes.
    fn unanswered<'a>(
        &'a self,
        earlier: &'a [Option<String>],
    ) -> impl Iterator<Item = (&'a RequestKey, &'a Arc<Fact>)> {
        let new = |((key, fact), earlier): ((&'a Option<RequestKey>, _), &Option<String>)| match earlier {
            None => key.as_ref().map(|key| (key, fact)),
            Some(_) => None,
        };
        self.keys.iter().zip(&self.facts).zip(earlier).filter_map(new)
    }
}

impl PublishContext {
    fn is_current(&self, revision: i64) -> bool {
        self.registry.revision() == revision
            && self.fanouts.iter().all(|fanout| fanout.revision() == revision)
    }

    /// Reads what decides who gets an event, if it has changed.
    pub async fn refresh(&self, conn: &mut Conn) -> Result<()> {
        let revision = revision::current(conn, revision::SUBSCRIPTIONS).await?;
        if self.registry.revision() != revision {
            self.registry.refresh(conn).await?;
        }
        for fanout in &self.fanouts {
            if fanout.revision() != revision {
                fanout.refresh(conn).await?;
            }
        }
        Ok(())
    }

    fn plan(&self, events: &[Event]) -> Vec<Box<dyn Planned>> {
        let now = self.clock.now();
        self.fanouts.iter().filter_map(|fanout| fanout.plan(events, now)).collect()
    }

    fn done(
        &self,
        plan: Plan,
        events: Vec<Event>,
        mut planned: Vec<Box<dyn Planned>>,
    ) -> Done<Result<Vec<Published>>> {
        if failpoint::bug("attempted_before_commit") {
            planned.drain(..).for_each(Planned::committed);
        }
        failpoint::pass("accept.uncommitted");
        let bus = Arc::clone(&self.bus);
        let after_commit = move || {
            failpoint::pass("accept.committed");
            planned.into_iter().for_each(Planned::committed);
            bus.committed(&events);
        };
        Done { outputs: plan.answers, after_commit: Some(Box::new(after_commit)) }
    }
}

impl GroupedWrite for PublishWrite {
    type Context = PublishContext;
    type Output = Result<Vec<Published>>;

    fn weight(&self) -> usize {
        self.facts.len()
    }

    fn bytes(&self) -> usize {
        self.facts.iter().map(|fact| fact.data.len()).sum()
    }

    fn sqlite(
        context: &PublishContext,
        batch: &mut [Self],
        conn: &mut SqliteWriter,
    ) -> Result<Done<Self::Output>, Fault> {
        if !context.is_current(revision::current_sqlite(conn, revision::SUBSCRIPTIONS)?) {
            return Err(Fault::Stale);
        }
        let mut plan = Plan::default();
        for write in batch.iter() {
            let find = |key: &Option<RequestKey>| match key {
                Some(key) => request::find_sqlite(conn, key),
                None => Ok(Ok(None)),
            };
            match write.keys.iter().map(find).collect::<QueryResult<Result<Vec<_>>>>()? {
                Err(error) => plan.answers.push(Err(error)),
                Ok(earlier) => {
                    for (key, fact) in write.unanswered(&earlier) {
                        request::keep_sqlite(conn, key, &fact.id, fact.created_at)?;
                    }
                    plan.add(write, earlier);
                }
            }
        }
        let mut events = Vec::new();
        plan.derive(context);
        if !plan.fresh.is_empty() {
            events = plan.place(log::take_positions_sqlite(conn, plan.fresh.len() as i64)?);
            log::append_sqlite(conn, &events)?;
        }
        for (write, place, event_id) in std::mem::take(&mut plan.replays) {
            let found = log::place_sqlite(conn, &event_id)?;
            plan.replay(write, place, event_id, found);
        }
        let mut planned = context.plan(&events);
        for jobs in &mut planned {
            jobs.sqlite(conn)?;
        }
        Ok(context.done(plan, events, planned))
    }

    fn postgres<'a>(
        context: &'a PublishContext,
        batch: &'a mut [Self],
        conn: &'a mut PostgresWriter,
    ) -> BoxFuture<'a, Result<Done<Self::Output>, Fault>> {
        async move {
            if !context.is_current(revision::hold_postgres(conn, revision::SUBSCRIPTIONS).await?) {
                return Err(Fault::Stale);
            }
            let mut plan = Plan::default();
            for write in batch.iter() {
                let mut earlier = Vec::with_capacity(write.facts.len());
                for key in &write.keys {
                    earlier.push(match key {
                        Some(key) => request::find_postgres(conn, key).await?,
                        None => Ok(None),
                    });
                }
                match earlier.into_iter().collect::<Result<Vec<_>>>() {
                    Err(error) => plan.answers.push(Err(error)),
                    Ok(earlier) => {
                        for (key, fact) in write.unanswered(&earlier) {
                            if !request::keep_postgres(conn, key, &fact.id, fact.created_at).await? {
                                return Err(Fault::Stale);
                            }
                        }
                        plan.add(write, earlier);
                    }
                }
            }
            let mut events = Vec::new();
            plan.derive(context);
            if !plan.fresh.is_empty() {
                events = plan.place(log::take_positions_postgres(conn, plan.fresh.len() as i64).await?);
                log::append_postgres(conn, &events).await?;
            }
            for (write, place, event_id) in std::mem::take(&mut plan.replays) {
                let found = log::place_postgres(conn, &event_id).await?;
                plan.replay(write, place, event_id, found);
            }
            let mut planned = context.plan(&events);
            for jobs in &mut planned {
                jobs.postgres(conn).await?;
            }
            Ok(context.done(plan, events, planned))
        }
        .boxed()
    }

    fn refresh<'a>(context: &'a PublishContext, conn: &'a mut Conn) -> BoxFuture<'a, Result<()>> {
        context.refresh(conn).boxed()
    }
}
