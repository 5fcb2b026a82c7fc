//! Live streams: how many events a second reach subscribers, beside the same messages written by a bare server.

mod idle;
mod resume;
mod stalled;

use std::sync::Arc;
use std::time::Duration;

pub use self::idle::measure as idle;
pub use self::resume::measure as resume;
pub use self::stalled::measure as stalled;

use super::{many, say};
use crate::error::Result;
use crate::live::bare::Bare;
use crate::live::publisher::Publisher;
use crate::live::{Got, PER_CONNECTION, Subscribers, Tally, wish};
use crate::load::WARM_UP;
use crate::options::Backend;
use crate::report::{Figure, Report};
use crate::stage::{Parts, Stage};
use crate::stats::quantile;
use crate::usage::{Processes, Spent, Usage};

/// What the subscribers subscribe to.
const TOPIC: &str = "bench:live";
/// How many deliveries are under way at the most, and how many to each subscriber at the least.
const UNDER_WAY: u64 = 20_000;
const UNDER_WAY_EACH: u64 = 10;
/// The most events in a call.
const LARGEST_CALL: usize = 100;
/// How long the last events may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Measures with each number of subscribers, each with a server of its own.
pub async fn fan_out(parts: &Parts, backend: Backend, report: &mut Report) -> Result<()> {
    for &count in &parts.options.subscribers {
        let stage = parts.stage(backend).await?;
        one_topic(parts, &stage, count, report).await?;
        stage.stop().await?;
    }
    Ok(())
}

async fn one_topic(parts: &Parts, stage: &Stage<'_>, count: usize, report: &mut Report) -> Result<()> {
    let (time, case) = (parts.options.time(), many(count, "subscriber"));
    say(&format!("live, {case}"));
    let address = stage.server.address();
    let subscribers = Arc::new(Subscribers::open(address, vec![wish(TOPIC); count], PER_CONNECTION).await?);
    // Where an event goes to a few only, publishing it would cost more than delivering it.
    let size = (LARGEST_CALL / count).max(1);
    let publisher = Publisher::new(address, TOPIC, size, &subscribers).await?;

    let flood = publisher.flood(&subscribers, UNDER_WAY_EACH.max(UNDER_WAY / count as u64));
    tokio::time::sleep(WARM_UP).await;
    subscribers.sample();
    let peak = Rate::measure(&subscribers, &stage.processes(), time).await;
    let sample = subscribers.take_sample();
    flood.stop().await?;
    subscribers.drained(publisher.sent() * count as u64, DRAIN_LIMIT).await;

    let interval = Duration::from_secs_f64((size * count) as f64 / (peak.each_second() / 2.0));
    subscribers.time_from_now();
    publisher.at_a_rate(interval, time, true).await?;
    subscribers.drained(publisher.sent() * count as u64, DRAIN_LIMIT).await;
    let mut times = subscribers.take_times();
    let paced = times.len() as f64 / time.as_secs_f64();
    let faults = faults(&subscribers, publisher.acknowledged());
    drop(subscribers);

    if sample.is_empty() {
        return Err("no message came within the time".into());
    }
    say(&format!("live, the same by a bare server, {}", many(count, "stream")));
    let bare = Bare::start(&parts.folders.create("bare")?, &sample)?;
    let readers = Subscribers::open(&bare.address, vec![wish(TOPIC); count], PER_CONNECTION).await?;
    tokio::time::sleep(WARM_UP).await;
    let processes = Processes { server: Some(bare.pid()), ..Processes::default() };
    let ceiling = Rate::measure(&readers, &processes, time).await;
    drop((readers, bare));

    let mut figures = vec![
        Figure::spread("delivered/s", peak.each_second()),
        Figure::spread("× ceiling", peak.each_second() / ceiling.each_second()),
        Figure::spread("per core/s", peak.per_core()),
        Figure::spread("per core × ceiling", peak.per_core() / ceiling.per_core()),
        Figure::spread("p50 ms", quantile(&mut times, 0.5)),
        Figure::spread("p99 ms", quantile(&mut times, 0.99)),
    ];
    figures.extend(faults);
    figures.push(Figure::median("events a message", peak.events / peak.messages));
    figures.push(Figure::median("paced delivered/s", paced));
    figures.extend(stage.costs(peak.spent, peak.events as usize));
    let backend = stage.backend.name();
    report.add("live", &case, backend, &figures);
    let figures = [
        Figure::spread("delivered/s", ceiling.each_second()),
        Figure::spread("per core/s", ceiling.per_core()),
        Figure::median("events a message", ceiling.events / ceiling.messages),
        Figure::median("server CPU µs each", 1_000_000.0 / ceiling.per_core()),
        Figure::median("load cores", ceiling.spent.bench_cores),
        Figure::median("other cores", ceiling.spent.other_cores),
    ];
    report.add("live", &format!("bare server, {}", many(count, "stream")), backend, &figures);
    Ok(())
}

/// What arrived within a time.
struct Rate {
    seconds: f64,
    events: f64,
    messages: f64,
    spent: Spent,
}

impl Rate {
    async fn measure(subscribers: &Subscribers, processes: &Processes, time: Duration) -> Self {
        let (usage, before) = (Usage::now(processes), subscribers.got());
        tokio::time::sleep(time).await;
        let (spent, after) = (usage.spent(processes), subscribers.got());
        let Got { at, events, messages } = before;
        Self {
            seconds: (after.at - at).as_secs_f64(),
            events: (after.events - events) as f64,
            messages: (after.messages - messages).max(1) as f64,
            spent,
        }
    }

    fn each_second(&self) -> f64 {
        self.events / self.seconds
    }

    /// For each second of the server's processor time. One that spent less than can be seen had a hundredth.
    fn per_core(&self) -> f64 {
        self.events / self.spent.server.max(0.01)
    }
}

/// What must be 0: each subscriber has exactly what was acknowledged.
fn faults(subscribers: &Subscribers, acknowledged: Tally) -> [Figure; 3] {
    let (mut lost, mut duplicates) = (0, 0);
    for tally in subscribers.tallies() {
        let (missing, extra) = tally.faults(acknowledged);
        lost += missing;
        duplicates += extra;
    }
    [
        Figure::sum("lost", lost as usize),
        Figure::sum("duplicates", duplicates as usize),
        Figure::sum("notices", subscribers.notices() as usize),
    ]
}
