//! Publishing alone: how many events a second become durable.

use std::time::Duration;

use super::{Ceilings, callers_in_words, say};
use crate::client::{BatchCaller, Events, PublishCaller, UNWANTED, callers};
use crate::error::Result;
use crate::load::{Caller, WARM_UP, closed_loop};
use crate::report::{Figure, Report};
use crate::stage::Stage;
use crate::stats::quantile;
use crate::usage::Usage;

/// How many callers publish at once.
pub const CALLERS: [usize; 3] = [1, 64, 256];
/// How many callers publish batches at once.
pub const BATCH_CALLERS: usize = 8;
const BATCH: usize = 100;

/// One event a call.
pub async fn single(
    stage: &Stage<'_>,
    ceilings: &Ceilings,
    time: Duration,
    report: &mut Report,
) -> Result<()> {
    let events = Events::default();
    for count in CALLERS {
        say(&format!("publish, {}", callers_in_words(count)));
        let makers =
            callers(stage.server.address(), count, |channel| PublishCaller::new(channel, &events)).await?;
        let figures = measure(stage, makers, 1, count, ceilings, time).await?;
        report.add("publish", &callers_in_words(count), stage.backend.name(), &figures);
    }
    Ok(())
}

/// A hundred events a call.
pub async fn batch(
    stage: &Stage<'_>,
    ceilings: &Ceilings,
    time: Duration,
    report: &mut Report,
) -> Result<()> {
    let events = Events::default();
    say("batch");
    let make = |channel| BatchCaller::new(channel, &events, UNWANTED, BATCH);
    let makers = callers(stage.server.address(), BATCH_CALLERS, make).await?;
    let figures = measure(stage, makers, BATCH, BATCH_CALLERS, ceilings, time).await?;
    report.add("batch", &callers_in_words(BATCH_CALLERS), stage.backend.name(), &figures);
    Ok(())
}

async fn measure<C: Caller>(
    stage: &Stage<'_>,
    makers: Vec<C>,
    events_each: usize,
    count: usize,
    ceilings: &Ceilings,
    time: Duration,
) -> Result<Vec<Figure>> {
    let (makers, _) = closed_loop(makers, WARM_UP).await?;
    let before = Usage::now(&stage.processes());
    let (_, mut calls) = closed_loop(makers, time).await?;
    let spent = before.spent(&stage.processes());
    let rate = calls.per_second * events_each as f64;
    let mut figures = vec![
        Figure::spread("events/s", rate),
        ceilings.of_rpcs(count, rate),
        Figure::spread("p50 ms", quantile(&mut calls.latencies, 0.5)),
        Figure::spread("p99 ms", quantile(&mut calls.latencies, 0.99)),
    ];
    figures.extend(stage.costs(spent, calls.latencies.len() * events_each));
    Ok(figures)
}
