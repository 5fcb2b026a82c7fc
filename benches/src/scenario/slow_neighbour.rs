//! An endpoint beside one that takes its time: how long its events take to arrive, without the other and with it.

use std::time::Duration;

use super::latency::INTERVAL;
use super::open_loop::OpenLoop;
use super::reconcile::Reconciled;
use super::say;
use crate::client::WANTED;
use crate::error::Result;
use crate::report::{Figure, Report};
use crate::sink::Sink;
use crate::stage::{Stage, endpoint};

/// How long the neighbour takes to answer.
const PAUSE: Duration = Duration::from_secs(10);

/// Measures one endpoint at a hundred events a second, alone and then beside a neighbour that wants the same events.
pub async fn measure(stage: &Stage<'_>, time: Duration, report: &mut Report) -> Result<()> {
    say("slow-neighbour, alone");
    stage.add_endpoints(1).await?;
    let events = OpenLoop::new(stage, 1, INTERVAL).await?;
    events.warm_up().await?;
    let (_, alone) = events.measure(time).await?;
    report.add("slow-neighbour", "alone", stage.backend.name(), &alone.figures);

    say("slow-neighbour, beside it");
    let neighbour = Sink::start_slow(PAUSE)?;
    stage.add([endpoint(neighbour.url(0), WANTED)]).await?;
    let (sent, beside) = events.measure(time).await?;
    let found = Reconciled::new(&sent, &neighbour.take(), 1);
    let mut figures = vec![Figure::spread("p50 change ms", beside.p50 - alone.p50)];
    figures.extend(beside.figures);
    // It can not have them all within the time: what it lacks waits for it, and is not lost.
    figures.push(Figure::median("at the neighbour", found.from_send.len() as f64));
    figures.push(Figure::median("waiting for it", found.lost as f64));
    figures.push(Figure::sum("neighbour's duplicates", found.duplicates));
    figures.push(Figure::sum("neighbour's unknown", found.unknown));
    report.add("slow-neighbour", "beside one of 10 s", stage.backend.name(), &figures);
    Ok(())
}
