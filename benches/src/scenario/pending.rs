//! Deliveries to one endpoint while a million others wait for another one.

use super::deliver::{CALLERS, deliveries};
use super::{Ceilings, in_words, say};
use crate::client::{BatchCaller, Events, callers};
use crate::error::Result;
use crate::load::make_calls;
use crate::options::Backend;
use crate::report::{Figure, Report};
use crate::stage::{Parts, Stage, endpoint, limit};

/// The type of the events that wait.
const TYPE: &str = "bench.pending";
/// How many callers publish them.
const FILLERS: usize = 8;
/// As many events as a call may have.
const BATCH: u64 = 100;
const DAY: i64 = 24 * 60 * 60;

/// What waits, as the table says.
const WAITING: &str =
    "SELECT count(*) FROM webhook_deliveries WHERE status IN ('scheduled', 'pending', 'retrying', 'held')";

/// Measures one endpoint on an empty database, and then on one where they wait.
pub async fn measure(
    parts: &Parts,
    backend: Backend,
    ceilings: &Ceilings,
    report: &mut Report,
) -> Result<()> {
    let (time, count) = (parts.options.time(), parts.options.pending());
    say("pending, none");
    let stage = parts.stage(backend).await?;
    stage.add_endpoints(1).await?;
    let (empty, figures) = deliveries(&stage, 1, CALLERS, ceilings, time).await?;
    report.add("pending", "none pending", backend.name(), &figures);
    stage.stop().await?;

    let case = format!("{} pending", in_words(count));
    say(&format!("pending, {case}"));
    let stage = parts.stage(backend).await?;
    stage.add_endpoints(1).await?;
    fill(&stage, count).await?;
    let (full, others) = deliveries(&stage, 1, CALLERS, ceilings, time).await?;
    let waiting = stage.database.number(WAITING).await?;
    // One a day may go, and another one if a day ends meanwhile.
    if waiting + 2 < count {
        return Err(format!("only {waiting} of {count} deliveries waited").into());
    }
    let mut figures = vec![Figure::spread("× none pending", full / empty)];
    figures.extend(others);
    figures.push(Figure::median("still pending", waiting as f64));
    report.add("pending", &case, backend.name(), &figures);
    stage.stop().await
}

/// Makes so many deliveries that wait, because their endpoint wants one a day.
async fn fill(stage: &Stage<'_>, count: u64) -> Result<()> {
    let mut held = endpoint(stage.sink.url(1), TYPE);
    held.rate_limit = Some(limit(1, DAY));
    stage.add([held]).await?;
    let events = Events::default();
    let make = |channel| BatchCaller::new(channel, &events, TYPE, BATCH as usize);
    let fillers = callers(stage.server.address(), FILLERS, make).await?;
    make_calls(fillers, count / BATCH).await?;
    stage.settled().await?;
    stage.sink.take();
    Ok(())
}
