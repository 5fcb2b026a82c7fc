//! Subscribers that do not read beside others that do.
//!
//! A hundredth of the subscribers, one on each connection, stops to open its window. It has a second topic, whose events fill
//! whatever there is to fill for it without costing the others anything. Both states are measured in turn, several times, so
//! that what the machine does meanwhile meets both alike; in between all catch up.

use std::time::Duration;

use super::super::{many, say};
use super::{DRAIN_LIMIT, TOPIC, faults};
use crate::error::Result;
use crate::live::publisher::Publisher;
use crate::live::{PER_CONNECTION, Subscribers, wish};
use crate::load::WARM_UP;
use crate::options::Backend;
use crate::report::{Figure, Report};
use crate::stage::Parts;
use crate::stats::quantile;
use crate::usage::{Usage, resident};

const SUBSCRIBERS: usize = 10_000;
/// Ten events a second: a hundred thousand deliveries.
const INTERVAL: Duration = Duration::from_millis(100);
const FILL_TOPIC: &str = "bench:fill";
/// What fills a stream that is not read: 256 KiB of data alone.
const FILL_CALLS: usize = 13;
const FILL_CALL: usize = 100;
/// How long the last events of a slice may take where nobody can say whether all are there.
const SETTLE: Duration = Duration::from_millis(500);
const SLICES: u32 = 4;

/// Measures both cases on one server.
pub async fn measure(parts: &Parts, backend: Backend, report: &mut Report) -> Result<()> {
    let stage = parts.stage(backend).await?;
    let address = stage.server.address();
    say(&format!("live-stalled, {}", many(SUBSCRIBERS, "subscriber")));
    let mut wishes = vec![wish(TOPIC); SUBSCRIBERS];
    // The first of each connection, which is the one that will stall.
    wishes.iter_mut().step_by(PER_CONNECTION).for_each(|wish| wish.topics.push(FILL_TOPIC.to_owned()));
    let stalling = SUBSCRIBERS.div_ceil(PER_CONNECTION);
    let subscribers = Subscribers::open(address, wishes, PER_CONNECTION).await?;
    let publisher = Publisher::new(address, TOPIC, 1, &subscribers).await?;
    let mut filler = publisher.uncounted(FILL_TOPIC, FILL_CALL);
    let drained = async || {
        subscribers.drained(publisher.sent() * SUBSCRIBERS as u64, DRAIN_LIMIT).await;
    };

    publisher.at_a_rate(INTERVAL, WARM_UP, true).await?;
    let slice = parts.options.time() / SLICES;
    let mut cases = [("none stalled", Vec::new()), ("1 % stalled", Vec::new())];
    let mut growth: f64 = 0.0;
    let usage = Usage::now(&stage.processes());
    for _ in 0..SLICES {
        for (stalled, (_, times)) in cases.iter_mut().enumerate() {
            let before = resident(stage.server.pid());
            subscribers.stall(stalled == 1);
            for _ in 0..FILL_CALLS {
                filler.publish_uncounted().await?;
            }
            subscribers.time_from_now();
            publisher.at_a_rate(INTERVAL, slice, true).await?;
            if stalled == 1 {
                // The last ones are given the time that the others wait for theirs too.
                tokio::time::sleep(SETTLE).await;
                growth = growth.max(resident(stage.server.pid()) - before);
                times.extend(subscribers.take_times());
                subscribers.stall(false);
                drained().await;
            } else {
                drained().await;
                times.extend(subscribers.take_times());
            }
        }
    }
    let spent = usage.spent(&stage.processes());
    let mut alone = 0.0;
    for (case, times) in &mut cases {
        let p99 = quantile(times, 0.99);
        let mut figures = vec![Figure::spread("p50 ms", quantile(times, 0.5)), Figure::spread("p99 ms", p99)];
        if alone > 0.0 {
            figures.push(Figure::spread("p99 × none stalled", p99 / alone));
            figures.push(Figure::spread("RSS KiB each stalled", growth * 1_024.0 / stalling as f64));
            figures.extend(faults(&subscribers, publisher.acknowledged()));
            figures.extend(stage.costs(spent, subscribers.got().events as usize));
        }
        alone = p99;
        report.add("live-stalled", case, backend.name(), &figures);
    }
    drop(subscribers);
    stage.stop().await
}
