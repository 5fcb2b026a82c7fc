//! Mails: how many a second leave, beside what others make of the same connections to the same SMTP server.
//!
//! Everything is measured against Postfix's `smtp-sink`, a new one each time, so that its counters tell what came. The
//! second half of the scenario puts 20 ms of round trip between client and server, as there is between data centres.

mod delay;
mod end_to_end;
mod exact;
mod lane;
mod lettre;
mod library;
mod memory;
mod message;
mod source;

use std::time::Duration;

use crate::error::Result;
use crate::options::Backend;
use crate::report::{Figure, Report};
use crate::smtp_sink::SmtpSink;
use crate::stage::Parts;

pub use memory::measure as memory;

use delay::DelayLine;

/// What is put between client and server in the second half, each way.
const ONE_WAY: Duration = Duration::from_millis(10);

/// How many mails may be queued and not yet arrived before callers wait.
const QUEUE_LIMIT: u64 = 20_000;
/// The same with the longer way, where a hundredth as many are sent.
const QUEUE_LIMIT_FAR: u64 = 2_000;

/// A sink, and the port at which it is reached: its own, or that of the delay line before it.
struct Target {
    sink: SmtpSink,
    delay: Option<DelayLine>,
}

impl Target {
    async fn start(far: bool) -> Result<Self> {
        let sink = SmtpSink::start().await?;
        let delay = far.then(|| DelayLine::start(sink.port(), ONE_WAY)).transpose()?;
        Ok(Self { sink, delay })
    }

    fn port(&self) -> u16 {
        self.delay.as_ref().map_or(self.sink.port(), DelayLine::port)
    }

    async fn stop(self) {
        drop(self.delay);
        self.sink.stop().await;
    }
}

/// What others make of as many connections, measured a moment before.
#[derive(Debug, Clone, Copy)]
struct Rivals {
    source: f64,
    lettre: f64,
}

impl Rivals {
    /// How many times theirs this rate is.
    fn ratios(self, rate: f64) -> [Figure; 2] {
        [Figure::spread("× smtp-source", rate / self.source), Figure::spread("× lettre", rate / self.lettre)]
    }
}

/// Measures everybody, near and far, and whether every mail arrives once.
pub async fn measure(parts: &Parts, backend: Backend, report: &mut Report) -> Result<()> {
    for far in [false, true] {
        let round = Round { parts, backend, time: parts.options.time(), far };
        let source = source::measure(&round, report).await?;
        let lettre = lettre::measure(&round, report).await?;
        let rivals = Rivals { source, lettre };
        lane::measure(&round, rivals, report).await?;
        end_to_end::measure(&round, rivals, report).await?;
    }
    exact::measure(parts, backend, report).await
}

/// What one half of the scenario has in common.
struct Round<'a> {
    parts: &'a Parts,
    backend: Backend,
    time: Duration,
    far: bool,
}

impl Round<'_> {
    /// The name of a case, said on standard error as well.
    fn case(&self, name: &str) -> String {
        let case = if self.far { format!("{name}, 20 ms") } else { name.to_owned() };
        super::say(&format!("email, {case}"));
        case
    }

    fn queue_limit(&self) -> u64 {
        if self.far { QUEUE_LIMIT_FAR } else { QUEUE_LIMIT }
    }
}

/// What must be 0 when messages are counted and not told apart.
fn faults(sent: u64, arrived: u64) -> [Figure; 2] {
    [
        Figure::sum("lost", sent.saturating_sub(arrived) as usize),
        Figure::sum("duplicates", arrived.saturating_sub(sent) as usize),
    ]
}
