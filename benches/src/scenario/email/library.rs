//! A client that is a library of this program: called in a closed loop, and held against what the sink counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Round, Target, faults};
use crate::error::Result;
use crate::load::{Caller, WARM_UP, closed_loop};
use crate::report::Figure;
use crate::stats::quantile;
use crate::usage::{Processes, Usage};

/// How long the sink may take for its last counts.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Sends one message in each call, and counts those that the server took.
pub struct Counting<C> {
    /// Who sends.
    pub caller: C,
    /// What was taken from all of them.
    pub taken: Arc<AtomicU64>,
}

impl<C: Caller> Caller for Counting<C> {
    async fn call(&mut self) -> Result<()> {
        self.caller.call().await?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Measures so many clones of this caller at once. Gives the messages per second, and the figures that follow the rate.
pub async fn measure<C: Caller + Clone>(
    round: &Round<'_>,
    target: &Target,
    caller: C,
    count: usize,
) -> Result<(f64, Vec<Figure>)> {
    let taken = Arc::new(AtomicU64::new(0));
    let callers =
        (0..count).map(|_| Counting { caller: caller.clone(), taken: Arc::clone(&taken) }).collect();
    let processes = Processes { load: vec![target.sink.pid()], ..Processes::default() };

    let (callers, _) = closed_loop(callers, WARM_UP).await?;
    let before = Usage::now(&processes);
    let (_, mut calls) = closed_loop(callers, round.time).await?;
    let spent = before.spent(&processes);

    let taken = taken.load(Ordering::Relaxed);
    target.sink.drained(taken, DRAIN_LIMIT).await;
    let mut figures = faults(taken, target.sink.counters().messages).to_vec();
    figures.extend([
        Figure::median("p50 ms", quantile(&mut calls.latencies, 0.5)),
        Figure::median("p99 ms", quantile(&mut calls.latencies, 0.99)),
        Figure::median("connections", target.sink.connections() as f64),
        Figure::median("load cores", spent.bench_cores),
        Figure::median("other cores", spent.other_cores),
    ]);
    Ok((calls.per_second, figures))
}
