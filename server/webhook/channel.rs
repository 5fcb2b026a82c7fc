//! The webhook channel of the delivery engine: what may go out now, and what an attempt is.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::client::BODY_LIMIT;
use super::directory::{Directory, Endpoint};
use super::health::breaker::{FIRST_WAIT, Leave};
use super::mode::DeliveryMode;
use super::policy::hold;
use super::sender::{Sender, failed};
use super::stats::Tally;
use super::{health, store};
use crate::clock::{Stopwatch, Timestamp};
use crate::db::{Conn, Db, revision};
use crate::delivery::limit::{Limit, store as limits};
use crate::delivery::{Attempt, Channel, Dispatch, Leased, Outcome, Policy, Room, Table};
use crate::error::Result;
use crate::event::Fact;

/// How much of an answer each delivery of a batch keeps at the least.
const LEAST_BODY: usize = 1_024;
/// When to try again when a limit can not be read.
const UNCOUNTED_WAIT: Duration = Duration::from_secs(1);

/// What becomes of a delivery that no request is made for, and why.
type Instead = (Outcome, String);

/// The webhook channel of the delivery engine.
pub struct WebhookChannel {
    /// The endpoints.
    pub directory: Arc<Directory>,
    /// Makes the requests.
    pub sender: Arc<Sender>,
    /// Counts them.
    pub tally: Arc<Tally>,
    /// Counts the requests of batches.
    pub db: Db,
    /// Keeps requests to those apart that do not answer.
    pub pace: health::Pace,
}

impl WebhookChannel {
    fn limit(&self, lane: &str) -> Option<Limit> {
        let own = self.directory.find(lane)?.rate_limit;
        self.sender.defaults.limit(lane, own)
    }

    fn is_batched(&self, lane: &str) -> bool {
        self.directory.find(lane).is_some_and(|endpoint| endpoint.mode == DeliveryMode::Batched)
    }

    /// Whether requests to an endpoint may go out.  What waits for an inactive one is withdrawn, which asks nobody.
    fn leave(&self, lane: &str, now: Timestamp) -> Leave {
        match self.directory.find(lane) {
            Some(endpoint) if endpoint.active => endpoint.pulse.ask(now),
            _ => Leave::Free,
        }
    }

    /// Makes a request to an endpoint, if it can have one, and notes what came of it.
    async fn request(&self, endpoint: &Endpoint, request: impl Future<Output = Attempt>) -> Attempt {
        if endpoint.pulse.is_silent() {
            self.pace.turn().await;
        }
        let stopwatch = Stopwatch::start();
        let attempt = request.await;
        let succeeded = attempt.outcome == Outcome::Succeeded;
        let now = self.sender.clock.now();
        self.tally.note(&endpoint.id, succeeded, stopwatch.elapsed(), now);
        self.directory.chart.note(&endpoint.pulse, &attempt, now);
        attempt
    }

    /// The endpoint that deliveries of a lane go to now.
    ///
    /// # Errors
    /// What becomes of them instead.
    fn destination(&self, lane: &str) -> Result<Arc<Endpoint>, Instead> {
        match self.directory.find(lane) {
            Some(endpoint) if endpoint.mode == DeliveryMode::Pulled => {
                Err((Outcome::Withdrawn, "the endpoint is pulled: nothing is sent to it".into()))
            }
            Some(endpoint) if endpoint.active => match endpoint.pulse.start(self.sender.clock.now()) {
                Leave::Wait(until) => Err((Outcome::Held { until }, health::hold(until).why)),
                Leave::Free | Leave::Probe => Ok(endpoint),
            },
            Some(_) => Err((Outcome::Withdrawn, "the endpoint is not active".into())),
            // It was deleted, and then its delivery is gone too; or its secret can not be opened, and that can be mended.
            None => Err((Outcome::Retry { after: None }, "the endpoint can not be used".into())),
        }
    }

    /// Takes one request of the endpoint's limit; answers when to look again if it is used up.
    ///
    /// Deliveries that share a request are counted here, where it is known how many do.
    async fn take_request(&self, lane: &str) -> Result<Option<Timestamp>> {
        let Some(limit) = self.limit(lane) else {
            return Ok(None);
        };
        let now = self.sender.clock.now();
        let take = self.db.transaction(move |conn| {
            Box::pin(async move {
                let mut usage = limits::usage_of(conn, &limit, now).await?;
                if usage.left(limit.most) == 0 {
                    return Ok(Some(usage.end()));
                }
                usage.used += 1;
                limits::put(conn, &limit, usage).await.map(|()| None)
            })
        });
        take.await
    }
}

/// One for each delivery of a batch.  What was answered is kept with each of them, with a share of the limit for each.
fn shared(attempt: Attempt, count: usize) -> Vec<Attempt> {
    let limit = (BODY_LIMIT / count.max(1)).max(LEAST_BODY);
    let body = attempt.response_body.map(|mut body| {
        body.truncate(body.floor_char_boundary(limit));
        body
    });
    let one = || Attempt {
        response_status: attempt.response_status,
        response_body: body.clone(),
        error: attempt.error.clone(),
        details: attempt.details.clone(),
        ..Attempt::new(attempt.outcome.clone())
    };
    std::iter::repeat_with(one).take(count).collect()
}

impl Channel for WebhookChannel {
    type Payload = Arc<Fact>;

    fn table(&self) -> Table {
        Table::WebhookDeliveries
    }

    fn policy(&self, job: &Leased<Arc<Fact>>) -> Arc<Policy> {
        match self.directory.find(&job.lane) {
            Some(endpoint) => self.sender.policy(&endpoint).policy,
            None => self.sender.defaults.policy().policy,
        }
    }

    async fn attempt(&self, job: &Leased<Arc<Fact>>) -> Attempt {
        match self.destination(&job.lane) {
            Ok(endpoint) => self.request(&endpoint, self.sender.send(&endpoint, &job.id, &job.payload)).await,
            Err((outcome, why)) => failed(outcome, why),
        }
    }

    fn dispatch(&self, lane: &str) -> Dispatch {
        let Some(endpoint) = self.directory.find(lane) else {
            return Dispatch::default();
        };
        let batching = (endpoint.mode == DeliveryMode::Batched).then_some(endpoint.batching);
        Dispatch { concurrency: endpoint.pulse.width(), batching }
    }

    fn weight(&self, job: &Leased<Arc<Fact>>) -> usize {
        job.payload.data.len()
    }

    async fn attempt_together(&self, jobs: &[Leased<Arc<Fact>>]) -> Vec<Attempt> {
        let Some(first) = jobs.first() else {
            return Vec::new();
        };
        // Before the endpoint is asked: a probe that it grants must be made.
        let attempt = match self.take_request(&first.lane).await {
            Ok(None) => match self.destination(&first.lane) {
                Ok(endpoint) => {
                    let facts = jobs.iter().map(|job| &*job.payload).collect();
                    self.request(&endpoint, self.sender.send_batch(&endpoint, facts)).await
                }
                Err((outcome, why)) => failed(outcome, why),
            },
            Ok(Some(until)) => failed(Outcome::Held { until }, "the limit of requests is used up".into()),
            Err(error) => {
                tracing::warn!(webhook = &*first.lane, %error, "a limit could not be read");
                let until = self.sender.clock.now() + UNCOUNTED_WAIT;
                failed(Outcome::Held { until }, "the limit of requests could not be read".into())
            }
        };
        shared(attempt, jobs.len())
    }

    fn room<'a>(
        &'a self,
        conn: &'a mut Conn,
        lane: &'a str,
        wanted: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Room>> {
        async move {
            let (wanted, held) = match self.leave(lane, now) {
                Leave::Free => (wanted, None),
                Leave::Wait(until) => return Ok(Room { granted: 0, hold: Some(health::hold(until)) }),
                // The others wait for what comes of it.
                Leave::Probe => (wanted.min(1), Some(health::hold(now + FIRST_WAIT))),
            };
            let Some(limit) = self.limit(lane) else {
                return Ok(Room { granted: wanted, hold: held });
            };
            let usage = limits::usage_of(conn, &limit, now).await?;
            let left = usize::try_from(usage.left(limit.most)).unwrap_or(usize::MAX);
            let granted = if left > 0 && self.is_batched(lane) { wanted } else { left.min(wanted) };
            Ok(Room { granted, hold: if granted < wanted { Some(hold(&limit, usage)) } else { held } })
        }
        .boxed()
    }

    fn claimed<'a>(
        &'a self,
        conn: &'a mut Conn,
        lane: &'a str,
        count: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            // What shares a request is counted when that is made.
            let counts = count > 0 && !self.is_batched(lane);
            let Some(limit) = self.limit(lane).filter(|_| counts) else {
                return Ok(());
            };
            let mut usage = limits::usage_of(conn, &limit, now).await?;
            usage.used += count as u64;
            limits::put(conn, &limit, usage).await
        }
        .boxed()
    }

    fn load<'a>(
        &'a self,
        conn: &'a mut Conn,
        ids: Vec<String>,
    ) -> BoxFuture<'a, Result<Vec<(String, Arc<Fact>)>>> {
        async move {
            // Another node may have changed the endpoints since this one read them: what is claimed now must not be
            // judged by what they were.
            if revision::current(conn, revision::SUBSCRIPTIONS).await? != self.directory.revision() {
                self.directory.refresh(conn).await?;
            }
            store::load_facts(conn, ids).await
        }
        .boxed()
    }
}
