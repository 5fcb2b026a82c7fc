//! Events at a steady rate, whatever the server does.
//!
//! The loop is open: an event's time begins when it was due to be sent, so that a server that stalls can not make its
//! publishers wait and thereby hide the stall.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::reconcile::{Reconciled, Sent};
use crate::client::{Events, PublishCaller, WANTED, callers};
use crate::error::{Context, Result};
use crate::load::{WARM_UP, pace};
use crate::report::Figure;
use crate::stage::Stage;
use crate::stats::quantile;
use crate::usage::Usage;

/// How long the last deliveries may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Publishes at a rate, for endpoints that are there.
pub struct OpenLoop<'a> {
    stage: &'a Stage<'a>,
    endpoints: u32,
    interval: Duration,
    publisher: PublishCaller,
}

/// What was measured at a rate.
pub struct Paced {
    /// From send to arrival, in milliseconds.
    pub p50: f64,
    /// The same for 99 of 100.
    pub p99: f64,
    /// All figures.
    pub figures: Vec<Figure>,
}

impl<'a> OpenLoop<'a> {
    /// An event each `interval`, for so many endpoints at the stage's sink.
    pub async fn new(stage: &'a Stage<'a>, endpoints: u32, interval: Duration) -> Result<Self> {
        let events = Events::default();
        let mut made =
            callers(stage.server.address(), 1, |channel| PublishCaller::new(channel, &events)).await?;
        Ok(Self { stage, endpoints, interval, publisher: made.remove(0) })
    }

    /// Publishes for a second that does not count.
    pub async fn warm_up(&self) -> Result<()> {
        let sent = self.publish(WARM_UP).await?;
        if !self.stage.drained(self.due(&sent), DRAIN_LIMIT).await {
            return Err("the deliveries of the warm-up did not arrive".into());
        }
        self.stage.sink.take();
        Ok(())
    }

    /// Publishes for so long, waits for the deliveries, and gives the figures.
    pub async fn measure(&self, time: Duration) -> Result<(Vec<Sent>, Paced)> {
        let processes = self.stage.processes();
        let before = Usage::now(&processes);
        let sent = self.publish(time).await?;
        self.stage.drained(self.due(&sent), DRAIN_LIMIT).await;
        let spent = before.spent(&processes);

        let mut found = Reconciled::new(&sent, &self.stage.sink.take(), self.endpoints);
        let mut waits: Vec<Duration> = sent.iter().map(|sent| sent.acknowledged - sent.at).collect();
        let (p50, p99) = (quantile(&mut found.from_send, 0.5), quantile(&mut found.from_send, 0.99));
        let mut figures = vec![
            Figure::spread("send→arrival p50 ms", p50),
            Figure::spread("send→arrival p99 ms", p99),
            Figure::spread("answer→arrival p50 ms", quantile(&mut found.from_acknowledgement, 0.5)),
            Figure::spread("answer→arrival p99 ms", quantile(&mut found.from_acknowledgement, 0.99)),
            Figure::spread("publish p50 ms", quantile(&mut waits, 0.5)),
            Figure::spread("publish p99 ms", quantile(&mut waits, 0.99)),
        ];
        figures.extend(found.faults());
        figures.extend(self.stage.costs(spent, found.from_send.len()));
        Ok((sent, Paced { p50, p99, figures }))
    }

    fn due(&self, sent: &[Sent]) -> u64 {
        sent.len() as u64 * u64::from(self.endpoints)
    }

    /// Publishes at the rate for so long, and waits for all answers.
    async fn publish(&self, time: Duration) -> Result<Vec<Sent>> {
        let interval = self.interval;
        let count = (time.as_nanos() / interval.as_nanos()) as u32;
        let mut ticks = pace(interval, count);
        let mut calls = JoinSet::new();
        while let Some(at) = ticks.recv().await {
            let mut publisher = self.publisher.clone();
            calls.spawn(async move {
                let event = publisher.publish(WANTED).await?;
                Result::Ok(Sent { event, at, acknowledged: Instant::now() })
            });
        }
        let mut sent = Vec::new();
        while let Some(call) = calls.join_next().await {
            sent.push(call.context("a call")??);
        }
        Ok(sent)
    }
}
