//! The whole way: accepted, committed, rendered, signed, sent, committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Rivals, Round, Target, faults};
use crate::client::callers;
use crate::error::Result;
use crate::load::{Caller, WARM_UP, closed_loop};
use crate::mail::{Mailer, Mails, configure};
use crate::report::{Figure, Report};
use crate::smtp_sink::Counter;
use crate::stats::quantile;
use crate::usage::Usage;

/// How many callers queue batches at once.
const CALLERS: usize = 8;
/// How many mails a batch has.
const BATCH: usize = 100;
/// How long the last mails may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);
/// How often a caller who is held back looks again.
const HOLD: Duration = Duration::from_millis(5);

/// What is under way, as far as callers and sink know. Its limit bounds the load: what a server accepts and can not send
/// would otherwise grow for as long as the measurement lasts.
struct Queue {
    accepted: AtomicU64,
    arrived: Counter,
    limit: u64,
}

impl Queue {
    fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    fn under_way(&self) -> u64 {
        self.accepted().saturating_sub(self.arrived.now().messages)
    }
}

/// Queues batches, and waits while too many mails are under way.
struct QueueCaller {
    mailer: Mailer,
    queue: Arc<Queue>,
    held_back: Duration,
}

impl Caller for QueueCaller {
    async fn call(&mut self) -> Result<()> {
        let asked = Instant::now();
        while self.queue.under_way() > self.queue.limit {
            tokio::time::sleep(HOLD).await;
        }
        self.held_back += asked.elapsed();
        let ids = self.mailer.queue(BATCH).await?;
        self.queue.accepted.fetch_add(ids.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// Measures a server that has done nothing else, from the first call to the last arrival.
pub async fn measure(round: &Round<'_>, rivals: Rivals, report: &mut Report) -> Result<()> {
    let case = round.case("end to end");
    let target = Target::start(round.far).await?;
    let stage = round.parts.stage(round.backend).await?;
    configure(stage.server.address(), target.port()).await?;
    let mut processes = stage.processes();
    processes.load.push(target.sink.pid());

    let mails = Mails::default();
    let limit = round.queue_limit();
    let queue = Arc::new(Queue { accepted: AtomicU64::new(0), arrived: target.sink.counter(), limit });
    let make = |channel| {
        let mailer = Mailer::new(channel, &mails)?;
        Ok(QueueCaller { mailer, queue: Arc::clone(&queue), held_back: Duration::ZERO })
    };
    let makers = callers(stage.server.address(), CALLERS, make).await?;

    // The warm-up opens the connections and drains; the measurement begins with nothing under way.
    let (mut makers, _) = closed_loop(makers, WARM_UP).await?;
    target.sink.drained(queue.accepted(), DRAIN_LIMIT).await;
    let warm_up = target.sink.counters().messages;
    if warm_up != queue.accepted() {
        return Err(format!("{warm_up} of {} mails of the warm-up arrived", queue.accepted()).into());
    }
    for maker in &mut makers {
        maker.held_back = Duration::ZERO;
    }

    let before = Usage::now(&processes);
    let (makers, mut calls) = closed_loop(makers, round.time).await?;
    let under_way = queue.under_way();
    let last = target.sink.drained(queue.accepted(), DRAIN_LIMIT).await;
    let spent = before.spent(&processes);

    let arrived = target.sink.counters().messages - warm_up;
    let accepted = queue.accepted() - warm_up;
    let whole = (last - calls.begin).max(round.time);
    let rate = arrived as f64 / whole.as_secs_f64();
    let held_back: Duration = makers.iter().map(|maker| maker.held_back).sum();
    let mut figures = vec![Figure::spread("messages/s", rate)];
    figures.extend(rivals.ratios(rate));
    figures.push(Figure::spread("accepted/s", calls.per_second * BATCH as f64));
    figures.extend(faults(accepted, arrived));
    figures.extend([
        Figure::median("p50 ms", quantile(&mut calls.latencies, 0.5)),
        Figure::median("p99 ms", quantile(&mut calls.latencies, 0.99)),
        Figure::median("connections", target.sink.connections() as f64),
        Figure::median("under way at the end", under_way as f64),
        Figure::median(
            "held back %",
            held_back.as_secs_f64() / round.time.as_secs_f64() / CALLERS as f64 * 100.0,
        ),
    ]);
    figures.extend(stage.costs(spent, arrived as usize));
    report.add("email", &case, round.backend.name(), &figures);
    stage.stop().await?;
    target.stop().await;
    Ok(())
}
