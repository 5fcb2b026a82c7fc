//! A hundred events a second, whatever the server does: how long each takes to arrive.
//!
//! The loop is open: an event's time begins when it was due to be sent, so that a server that stalls can not make its
//! publishers wait and thereby hide the stall.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::reconcile::{Reconciled, Sent};
use super::say;
use crate::client::{Events, PublishCaller, WANTED, callers};
use crate::error::{Context, Result};
use crate::load::WARM_UP;
use crate::report::{Figure, Report};
use crate::stage::Stage;
use crate::stats::quantile;
use crate::usage::Usage;

const INTERVAL: Duration = Duration::from_millis(10);
/// How long the last deliveries may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Measures one endpoint.
pub async fn measure(stage: &Stage<'_>, time: Duration, report: &mut Report) -> Result<()> {
    say("latency");
    stage.add_endpoints(1).await?;
    let events = Events::default();
    let publisher =
        callers(stage.server.address(), 1, |channel| PublishCaller::new(channel, &events)).await?.remove(0);

    let warm_up = open_loop(&publisher, &events, WARM_UP).await?;
    if !stage.drained(warm_up.len() as u64, DRAIN_LIMIT).await {
        return Err("the deliveries of the warm-up did not arrive".into());
    }
    stage.sink.take();

    let before = Usage::now(&stage.processes());
    let sent = open_loop(&publisher, &events, time).await?;
    stage.drained(sent.len() as u64, DRAIN_LIMIT).await;
    let spent = before.spent(&stage.processes());

    let mut found = Reconciled::new(&sent, &stage.sink.take(), 1);
    let mut waits: Vec<Duration> = sent.iter().map(|sent| sent.acknowledged - sent.at).collect();
    let mut figures = vec![
        Figure::spread("send→arrival p50 ms", quantile(&mut found.from_send, 0.5)),
        Figure::spread("send→arrival p99 ms", quantile(&mut found.from_send, 0.99)),
        Figure::spread("answer→arrival p50 ms", quantile(&mut found.from_acknowledgement, 0.5)),
        Figure::spread("answer→arrival p99 ms", quantile(&mut found.from_acknowledgement, 0.99)),
        Figure::spread("publish p50 ms", quantile(&mut waits, 0.5)),
        Figure::spread("publish p99 ms", quantile(&mut waits, 0.99)),
    ];
    figures.extend(found.faults());
    figures.extend(stage.costs(spent, found.from_send.len()));
    report.add("latency", "100 events/s", stage.backend.name(), &figures);
    Ok(())
}

/// Publishes at the rate for so long, and waits for all answers.
async fn open_loop(publisher: &PublishCaller, events: &Events, time: Duration) -> Result<Vec<Sent>> {
    let count = (time.as_nanos() / INTERVAL.as_nanos()) as u32;
    let (tick, mut ticks) = mpsc::unbounded_channel();
    let begin = Instant::now();
    // A thread of its own: the runtime's timers are a millisecond coarse, which would be part of every figure.
    let pacer = std::thread::spawn(move || {
        for number in 0..count {
            let due = begin + INTERVAL * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if tick.send(due).is_err() {
                break;
            }
        }
    });
    let mut calls = JoinSet::new();
    while let Some(at) = ticks.recv().await {
        let mut publisher = PublishCaller { client: publisher.client.clone(), events: events.clone() };
        calls.spawn(async move {
            let event = publisher.publish(WANTED).await?;
            Result::Ok(Sent { event, at, acknowledged: Instant::now() })
        });
    }
    pacer.join().map_err(|_| "the pacer failed")?;
    let mut sent = Vec::new();
    while let Some(call) = calls.join_next().await {
        sent.push(call.context("a call")??);
    }
    Ok(sent)
}
