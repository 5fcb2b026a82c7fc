//! Subscribers whose server is killed while events are published, and started again.
//!
//! Each has a connection of its own and tries again every 50 to 150 ms from the moment that it is lost, with the cursor that
//! it has. They are all there again when each has an event that was published after the new server was ready. What each
//! ought to have got is what the log says, read from its beginning by one more subscriber.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{many, say};
use super::{DRAIN_LIMIT, TOPIC, faults};
use crate::error::Result;
use crate::live::publisher::Publisher;
use crate::live::{Subscribers, wish};
use crate::load::WARM_UP;
use crate::options::Backend;
use crate::report::{Figure, Report};
use crate::stage::Parts;

const SUBSCRIBERS: usize = 1_000;
const UNDER_WAY: u64 = 10;

/// Measures one restart.
pub async fn measure(parts: &Parts, backend: Backend, report: &mut Report) -> Result<()> {
    say(&format!("live-resume, {}", many(SUBSCRIBERS, "subscriber")));
    let stage = parts.stage(backend).await?;
    let address = stage.server.address().to_owned();
    let first = Subscribers::open(&address, vec![wish(TOPIC)], 1).await?;
    let start = first.cursor();
    drop(first);
    let wishes = vec![wish(TOPIC); SUBSCRIBERS];
    let subscribers = Arc::new(Subscribers::open_lasting(&address, wishes, 1).await?);
    let publisher = Publisher::new(&address, TOPIC, 1, &subscribers).await?;

    let flood = publisher.flood(&subscribers, UNDER_WAY);
    tokio::time::sleep(WARM_UP).await;
    let (stage, killed, started) = stage.killed_and_started(&parts.program).await?;
    let ready = Instant::now();
    flood.stop_whatever().await;
    let behind = publisher.acknowledged().count * SUBSCRIBERS as u64;
    let behind = behind.saturating_sub(subscribers.got().events);

    let marked = publisher.clone().publish_at_last().await?;
    let live = subscribers.all_have(marked, DRAIN_LIMIT).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;

    let mut whole = wish(TOPIC);
    whole.cursor = start;
    let whole = Subscribers::open(&address, vec![whole], 1).await?;
    whole.all_have(marked, DRAIN_LIMIT).await?;
    let log = whole.tallies().first().copied().unwrap_or_default();
    let unlogged = publisher.acknowledged().count.saturating_sub(log.count);

    let mut figures = vec![
        Figure::spread("from kill s", (live - killed).as_secs_f64()),
        Figure::spread("from start s", (live - started).as_secs_f64()),
        Figure::spread("server ready s", (ready - started).as_secs_f64()),
    ];
    let [mut lost, duplicates, notices] = faults(&subscribers, log);
    lost.value += unlogged as f64;
    figures.extend([lost, duplicates, notices]);
    figures.push(Figure::median("behind at the kill", behind as f64));
    report.add("live-resume", &many(SUBSCRIBERS, "subscriber"), backend.name(), &figures);
    drop((subscribers, whole));
    stage.stop().await
}
