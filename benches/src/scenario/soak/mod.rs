//! A server at half of what it can do, for long: whether it holds more memory, files or tasks the longer it runs.
//!
//! A [`round`] is an event for two endpoints and twenty subscribers, a verification, and every eighth time a mail. First callers
//! make rounds as fast as they go, which is the peak; then rounds are due at half of that rate, whatever the server does. Beside
//! them everything comes and goes that an application makes and ends: connections, streams, keys, endpoints ([`churn`]). The
//! [`watch`] looks at the server's process meanwhile, and the [`book`] sees to it that nothing is lost in all that time.

mod book;
mod churn;
mod round;
mod subscribers;
mod watch;

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::say;
use crate::client::{callers, connections};
use crate::error::{Context, Error, Result};
use crate::load::{closed_loop, pace};
use crate::mail::configure;
use crate::options::Backend;
use crate::report::{Curve, Figure, Report};
use crate::smtp_sink::SmtpSink;
use crate::stage::{Parts, Stage};
use crate::usage::Usage;
use book::Book;
use churn::Churn;
use round::{HeldBack, Round, Rounds};
use subscribers::Subscribers;
use watch::Watch;

/// How many endpoints want each event.
pub const ENDPOINTS: u32 = 2;
/// How many subscribers get each event.
const SUBSCRIBERS: u64 = 20;
/// How many callers find out what the server can do.
const CALLERS: usize = 64;
/// Calls that may be under way at once when they are due at a rate: whoever is behind by more than that makes no more.
const UNDER_WAY: usize = 1_024;
/// How often the server is looked at, and what has arrived is taken.
const LOOK: Duration = Duration::from_secs(5);
/// How long the last deliveries, mails and live events may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// Soaks one server for so long.
pub async fn measure(parts: &Parts, backend: Backend, time: Duration, report: &mut Report) -> Result<()> {
    let mails = SmtpSink::start().await?;
    let stage = parts.stage(backend).await?;
    configure(stage.server.address(), mails.port()).await?;
    stage.add_endpoints(ENDPOINTS).await?;
    let subscribers = Subscribers::start(stage.server.address(), SUBSCRIBERS as usize).await?;
    let soak = Soak { stage: &stage, mails: &mails, subscribers: &subscribers, rounds: Rounds::default() };

    say("soak, the peak");
    let peak = soak.peak(parts.options.time()).await?;
    let figures = [Figure::spread("rounds/s", peak)];
    report.add("soak", &format!("the peak, {CALLERS} callers"), backend.name(), &figures);
    say(&format!("soak, {:.0} of {peak:.0} rounds a second for {} minutes", peak / 2.0, time.as_secs() / 60));
    let (figures, points) = soak.at(peak / 2.0, time).await?;
    let case = format!("half of it, {} minutes", time.as_secs() / 60);
    report.add("soak", &case, backend.name(), &figures);
    let (name, over) = ("RSS MiB", "minutes");
    report.curves.push(Curve { scenario: "soak", case, backend: backend.name(), name, over, points });
    subscribers.stop();
    stage.stop().await?;
    mails.stop().await;
    Ok(())
}

struct Soak<'a> {
    stage: &'a Stage<'a>,
    mails: &'a SmtpSink,
    subscribers: &'a Subscribers,
    rounds: Rounds,
}

impl Soak<'_> {
    /// How many rounds a second the server can do, the arrival of their deliveries included.
    async fn peak(&self, time: Duration) -> Result<f64> {
        let sink = self.stage.sink.counter();
        let makers = callers(self.stage.server.address(), CALLERS, |channel| {
            Ok(HeldBack::new(Round::new(channel, &self.rounds)?, &sink))
        });
        let began = Instant::now();
        closed_loop(makers.await?, time).await?;
        let made = self.rounds.acknowledged();
        if !self.stage.drained(made * u64::from(ENDPOINTS), DRAIN_LIMIT).await {
            return Err("not everything that was published for the peak arrived".into());
        }
        let last = self.stage.sink.take().iter().map(|arrival| arrival.at).max().unwrap_or(began);
        self.rounds.take();
        Ok(made as f64 / (last - began).as_secs_f64())
    }

    /// Makes rounds at a rate, and watches.
    async fn at(&self, rate: f64, time: Duration) -> Result<(Vec<Figure>, Vec<(f64, f64)>)> {
        let processes = self.stage.processes();
        let (mut book, mut watch) = (Book::new(ENDPOINTS, time), Watch::new(self.stage));
        let round = Round::new(connections(self.stage.server.address(), 1).await?.remove(0), &self.rounds)?;
        let churn = Churn::start(self.stage).await?;
        let usage = Usage::now(&processes);
        let count = (rate * time.as_secs_f64()) as u32;
        let mut ticks = pace(time / count.max(1), count);
        let (mut calls, mut looks) = (JoinSet::new(), tokio::time::interval(LOOK));
        let mut met = Met::default();
        loop {
            tokio::select! {
                due = ticks.recv(), if calls.len() < UNDER_WAY => {
                    let Some(due) = due else { break };
                    let mut round = round.clone();
                    calls.spawn(async move { round.make(due).await });
                }
                Some(call) = calls.join_next() => met.note(call.context("a round")?),
                _ = looks.tick() => {
                    self.take(&mut book);
                    watch.look().await?;
                }
            }
        }
        while let Some(call) = calls.join_next().await {
            met.note(call.context("a round")?);
        }
        let spent = usage.spent(&processes);
        met.churned = churn.stop().await?;
        let end = Instant::now() + DRAIN_LIMIT;
        // What is under way arrives, or is lost.
        while self.take(&mut book) > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // A moment more for those that should not come.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let lost = self.take(&mut book);
        let mut figures = book.figures(lost, time);
        figures.push(Figure::sum("failed", met.failed));
        figures.extend(watch.figures());
        figures.push(Figure::median("came and went", met.churned as f64));
        figures.extend(self.stage.costs(spent, met.made));
        Ok((figures, watch.memory()))
    }

    /// Has the book know what happened, and answers how much of what is due has not come.
    fn take(&self, book: &mut Book) -> u64 {
        // First what arrived: none of it belongs to a round that is noted later than it is taken.
        let (arrived, events, mails) =
            (self.stage.sink.take(), self.subscribers.events(), self.mails.counters().messages);
        let made = self.rounds.take();
        book.note(made, arrived);
        book.lost()
            + self.rounds.mails().saturating_sub(mails)
            + (self.rounds.acknowledged() * SUBSCRIBERS).saturating_sub(events)
    }
}

/// What became of the calls.
#[derive(Debug, Default)]
struct Met {
    made: usize,
    churned: usize,
    failed: usize,
}

impl Met {
    fn note(&mut self, round: Result<()>) {
        match round {
            Ok(()) => self.made += 1,
            Err(error) => self.fail(&error),
        }
    }

    /// The first of them is shown: the others are like it, or follow from it.
    fn fail(&mut self, error: &Error) {
        if self.failed == 0 {
            eprintln!("  failed: {error}");
        }
        self.failed += 1;
    }
}
