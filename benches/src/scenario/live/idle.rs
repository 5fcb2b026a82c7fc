//! Streams on which nothing happens: what each takes of the memory and of the processor, and what it adds to a publish that
//! is none of its business.

use std::time::{Duration, Instant};

use super::super::{many, say};
use crate::error::Result;
use crate::live::publisher::Publisher;
use crate::live::{PER_CONNECTION, Subscribers, wish};
use crate::load::WARM_UP;
use crate::options::Backend;
use crate::report::{Figure, Report};
use crate::stage::{Parts, Stage};
use crate::usage::{Usage, resident};

/// How many streams, and how many of them on a connection: as behind a proxy, and as browsers have them.
const CASES: [(usize, usize); 2] = [(10_000, PER_CONNECTION), (5_000, 1)];
/// As long as the server is silent on a stream, so that each has one heartbeat in it.
const SILENCE: Duration = Duration::from_secs(20);
/// Five hundred a second.
const INTERVAL: Duration = Duration::from_millis(2);
const ELSEWHERE: &str = "bench:elsewhere";

/// Measures each case with a server of its own.
pub async fn measure(parts: &Parts, backend: Backend, report: &mut Report) -> Result<()> {
    for (count, per_connection) in CASES {
        let stage = parts.stage(backend).await?;
        let time = parts.options.time();
        let silence = if parts.options.quick { time } else { SILENCE };
        let figures = idle(&stage, count, per_connection, time, silence).await?;
        let connections = many(count / per_connection, "connection");
        let case = format!("{}, {connections}", many(count, "stream"));
        report.add("live-idle", &case, backend.name(), &figures);
        stage.stop().await?;
    }
    Ok(())
}

async fn idle(
    stage: &Stage<'_>,
    count: usize,
    per_connection: usize,
    time: Duration,
    silence: Duration,
) -> Result<Vec<Figure>> {
    say(&format!("live-idle, {}, {per_connection} on a connection", many(count, "stream")));
    let address = stage.server.address();
    let publisher = Publisher::at(address, ELSEWHERE, 1, Instant::now()).await?;
    publisher.at_a_rate(INTERVAL, WARM_UP, true).await?;
    let alone = elsewhere(stage, &publisher, time).await?;
    stage.settled().await?;
    let before = resident(stage.server.pid());

    let wishes = (0..count).map(|number| wish(&format!("bench:idle:{number}"))).collect();
    let begin = Instant::now();
    let subscribers = Subscribers::open(address, wishes, per_connection).await?;
    let opening = begin.elapsed();
    stage.settled().await?;
    let after = resident(stage.server.pid());
    let usage = Usage::now(&stage.processes());
    tokio::time::sleep(silence).await;
    let spent = usage.spent(&stage.processes());

    let beside = elsewhere(stage, &publisher, time).await?;
    Ok(vec![
        Figure::spread("RSS KiB each", (after - before) * 1_024.0 / count as f64),
        Figure::spread("CPU µs/s each", spent.server * 1e6 / silence.as_secs_f64() / count as f64),
        Figure::spread("publish CPU × alone", beside / alone.max(1.0)),
        Figure::sum("strays", subscribers.got().events as usize),
        Figure::sum("ended", count - subscribers.open_now().min(count)),
        Figure::median("publish CPU µs each, alone", alone),
        Figure::median("opened/s", count as f64 / opening.as_secs_f64()),
        Figure::median("RSS MiB before", before),
        Figure::median("RSS MiB with all", after),
        Figure::median("other cores", spent.other_cores),
    ])
}

/// The server's processor time for an event that none of the streams is about, in microseconds.
async fn elsewhere(stage: &Stage<'_>, publisher: &Publisher, time: Duration) -> Result<f64> {
    let usage = Usage::now(&stage.processes());
    let calls = publisher.at_a_rate(INTERVAL, time, true).await?;
    Ok(usage.spent(&stage.processes()).server * 1e6 / calls as f64)
}
