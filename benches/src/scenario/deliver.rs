//! Publishing to endpoints: how many webhooks a second arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::reconcile::{Reconciled, Sent};
use super::{Ceilings, callers_in_words, say};
use crate::client::{Events, PublishCaller, WANTED, callers};
use crate::error::Result;
use crate::load::{Caller, WARM_UP, closed_loop};
use crate::report::{Figure, Report};
use crate::stage::Stage;
use crate::stats::quantile;
use crate::usage::Usage;

/// How many endpoints want each event, and how many callers publish at once.
pub const CASES: [(u32, usize); 5] = [(1, 64), (1, 256), (10, 64), (10, 256), (100, 64)];
/// How many callers publish where only the rate matters.
pub const CALLERS: usize = 64;

/// Deliveries that may be under way before publishers wait. It bounds the load: what a server accepts and cannot deliver
/// would otherwise grow for as long as the measurement lasts.
const BACKLOG_LIMIT: u64 = 20_000;
/// How long the last deliveries may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// Publishes and remembers what was answered.
struct DeliverCaller {
    publisher: PublishCaller,
    backlog: Arc<Backlog>,
    sent: Vec<Sent>,
    held_back: Duration,
}

/// What is under way, as far as publishers and sink know.
struct Backlog {
    endpoints: u64,
    published: AtomicU64,
    arrived: Arc<AtomicU64>,
}

impl Backlog {
    fn deliveries(&self) -> u64 {
        self.due().saturating_sub(self.arrived.load(Ordering::Relaxed))
    }

    fn due(&self) -> u64 {
        self.published.load(Ordering::Relaxed) * self.endpoints
    }
}

impl Caller for DeliverCaller {
    async fn call(&mut self) -> Result<()> {
        let asked = Instant::now();
        let mut at = asked;
        while self.backlog.deliveries() > BACKLOG_LIMIT {
            tokio::time::sleep(Duration::from_millis(1)).await;
            at = Instant::now();
        }
        self.held_back += at - asked;
        let event = self.publisher.publish(WANTED).await?;
        self.sent.push(Sent { event, at, acknowledged: Instant::now() });
        self.backlog.published.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Measures one number of endpoints with one number of callers, on a server that has done nothing else.
pub async fn measure(
    stage: &Stage<'_>,
    endpoints: u32,
    count: usize,
    ceilings: &Ceilings,
    time: Duration,
    report: &mut Report,
) -> Result<()> {
    let plural = if endpoints == 1 { "" } else { "s" };
    let case = format!("{endpoints} endpoint{plural}, {}", callers_in_words(count));
    say(&format!("deliver, {case}"));
    stage.add_endpoints(endpoints).await?;
    let (_, figures) = deliveries(stage, endpoints, count, ceilings, time).await?;
    report.add("deliver", &case, stage.backend.name(), &figures);
    Ok(())
}

/// Publishes for endpoints that are there, and answers how many deliveries a second that makes, with all figures.
pub async fn deliveries(
    stage: &Stage<'_>,
    endpoints: u32,
    count: usize,
    ceilings: &Ceilings,
    time: Duration,
) -> Result<(f64, Vec<Figure>)> {
    let (events, sink) = (Events::default(), stage.sink);
    let backlog = Arc::new(Backlog {
        endpoints: u64::from(endpoints),
        published: AtomicU64::new(0),
        arrived: sink.counter(),
    });
    let make = |channel| {
        let publisher = PublishCaller::new(channel, &events)?;
        Ok(DeliverCaller {
            publisher,
            backlog: Arc::clone(&backlog),
            sent: Vec::new(),
            held_back: Duration::ZERO,
        })
    };
    let makers = callers(stage.server.address(), count, make).await?;

    // The warm-up fills the pools of connections and drains; the measurement begins with nothing under way.
    let (mut makers, _) = closed_loop(makers, WARM_UP).await?;
    if !stage.drained(backlog.due(), DRAIN_LIMIT).await {
        return Err(
            format!("{} of {} deliveries of the warm-up arrived", sink.arrived(), backlog.due()).into()
        );
    }
    sink.take();
    backlog.published.store(0, Ordering::Relaxed);
    for maker in &mut makers {
        maker.sent.clear();
        maker.held_back = Duration::ZERO;
    }

    let before = Usage::now(&stage.processes());
    let (makers, calls) = closed_loop(makers, time).await?;
    let under_way = backlog.deliveries();
    stage.drained(backlog.due(), DRAIN_LIMIT).await;
    let spent = before.spent(&stage.processes());

    let held_back: Duration = makers.iter().map(|maker| maker.held_back).sum();
    let sent: Vec<Sent> = makers.into_iter().flat_map(|maker| maker.sent).collect();
    let mut found = Reconciled::new(&sent, &sink.take(), endpoints);
    let mut waits: Vec<Duration> = sent.iter().map(|sent| sent.acknowledged - sent.at).collect();
    let whole = found.last.map_or(Duration::ZERO, |last| last - calls.begin).max(time);
    let delivered = found.from_send.len() as f64 / whole.as_secs_f64();
    let mut figures = vec![
        Figure::spread("deliveries/s", delivered),
        ceilings.of_posts(delivered),
        Figure::spread("publishes/s", calls.per_second),
        ceilings.of_rpcs(count, calls.per_second),
        Figure::median("publish p50 ms", quantile(&mut waits, 0.5)),
        Figure::median("publish p99 ms", quantile(&mut waits, 0.99)),
        Figure::spread("arrival p50 ms", quantile(&mut found.from_send, 0.5)),
        Figure::spread("arrival p99 ms", quantile(&mut found.from_send, 0.99)),
        Figure::median("under way at the end", under_way as f64),
        Figure::median("held back %", held_back.as_secs_f64() / time.as_secs_f64() / count as f64 * 100.0),
    ];
    figures.extend(found.faults());
    figures.extend(stage.costs(spent, found.from_send.len()));
    Ok((delivered, figures))
}
