//! A hundred healthy endpoints beside a thousand that mean harm: what the healthy ones notice, and what the server holds.

use std::convert::Infallible;
use std::time::Duration;

use super::open_loop::OpenLoop;
use super::say;
use crate::client::{Events, PublishCaller, callers};
use crate::error::{Error, Result};
use crate::hostile::Hostile;
use crate::report::{Figure, Report};
use crate::stage::{Stage, endpoint};
use crate::usage::{forget_peak, peak_resident, resident};

const HEALTHY: u32 = 100;
const HOSTILE: usize = 1_000;
/// Twenty events a second, each for all healthy endpoints.
const INTERVAL: Duration = Duration::from_millis(50);
/// The hostile endpoints want events of these types, a tenth of them each.
const TYPES: usize = 10;
/// When the next type has its turn: each hostile endpoint gets an event every five seconds.
const TURN: Duration = Duration::from_millis(500);
/// How long they have been at it when the measurement begins.
const LEAD: Duration = Duration::from_secs(6);

/// Measures the healthy endpoints, alone and then beside the others.
pub async fn measure(stage: &Stage<'_>, time: Duration, report: &mut Report) -> Result<()> {
    say("hostile, healthy alone");
    stage.add_endpoints(HEALTHY).await?;
    let events = OpenLoop::new(stage, HEALTHY, INTERVAL).await?;
    events.warm_up().await?;
    let (_, alone) = events.measure(time).await?;
    report.add("hostile", "100 healthy, alone", stage.backend.name(), &alone.figures);

    say("hostile, beside them");
    let hostile = Hostile::start()?;
    stage.add((0..HOSTILE).map(|number| endpoint(hostile.url(number), &event_type(number)))).await?;
    let server = stage.server.pid();
    let before = resident(server);
    forget_peak(server)?;
    let measuring = async {
        tokio::time::sleep(LEAD).await;
        events.measure(time).await
    };
    let (_, beside) = tokio::select! {
        measured = measuring => measured?,
        error = provoke(stage) => return Err(error),
    };
    let mut figures = vec![
        Figure::spread("p99 × alone", beside.p99 / alone.p99),
        Figure::spread("RSS growth MiB", peak_resident(server) - before),
    ];
    figures.extend(beside.figures);
    figures.push(Figure::sum("followed", hostile.trapped()));
    figures.push(Figure::median("hostile connections", hostile.connections() as f64));
    report.add("hostile", "beside 1,000 hostile", stage.backend.name(), &figures);
    Ok(())
}

/// The type of event that a hostile endpoint wants.
fn event_type(number: usize) -> String {
    format!("bench.hostile.{}", number % TYPES)
}

/// Publishes for the hostile endpoints until it fails.
async fn provoke(stage: &Stage<'_>) -> Error {
    let endless = async {
        let events = Events::default();
        let make = |channel| PublishCaller::new(channel, &events);
        let mut publisher = callers(stage.server.address(), 1, make).await?.remove(0);
        let mut turns = tokio::time::interval(TURN);
        for number in 0_usize.. {
            turns.tick().await;
            publisher.publish(&event_type(number)).await?;
        }
        Ok(std::future::pending::<Infallible>().await)
    };
    match endless.await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}
