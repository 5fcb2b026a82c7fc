//! A provider: a server, its connections, and whether it is tried.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::breaker::{Breaker, Change};
use super::deadlines::Deadlines;
use super::explain::explain;
use super::fault::Fault;
use super::pool::Pool;
use super::session::Target;
use super::task::{Job, Left, Outcome, Task};
use crate::clock::SharedClock;
use crate::email::config::Smtp;
use crate::email::transport::Hold;
use crate::secret::SharedRandom;

/// A provider of the settings.
pub(super) struct Provider {
    /// The server.
    pub target: Target,
    /// Its connections and what waits for them.
    pub pool: Pool,
    /// Ends its connections when they have no work.
    pub closing: CancellationToken,
    breaker: Mutex<Breaker>,
    clock: SharedClock,
    random: SharedRandom,
}

impl Provider {
    /// A provider without connections.
    pub(super) fn new(
        smtp: Smtp,
        deadlines: Deadlines,
        clock: SharedClock,
        random: SharedRandom,
    ) -> Arc<Self> {
        Arc::new(Self {
            pool: Pool::new(smtp.connections.max(1)),
            target: Target::new(smtp, deadlines, clock.clone()),
            closing: CancellationToken::new(),
            breaker: Mutex::default(),
            clock,
            random,
        })
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a message through, or says why not.
    pub(super) fn admit(&self) -> Result<(), Hold> {
        self.breaker().admit(self.clock.steady()).map_err(|(why, retry_in)| Hold { why, retry_in })
    }

    /// Why a message would not be let through.
    pub(super) fn hold(&self) -> Option<Hold> {
        self.breaker().hold(self.clock.steady()).map(|(why, retry_in)| Hold { why, retry_in })
    }

    /// Carries a message; `None` when the task that had it in hand died, so that nobody knows.
    pub(super) async fn carry(self: &Arc<Self>, task: Box<Task>) -> Option<Outcome> {
        let (job, outcome) = Job::new(task);
        self.submit(job);
        // It may have been shut since this message was let through.
        if self.is_shut() {
            self.send_away();
        }
        outcome.await.ok()
    }

    /// It did its work.
    pub(super) fn works(&self) {
        if self.breaker().success() == Change::Open {
            tracing::info!(server = self.target.name(), "the SMTP server is used again");
        }
    }

    /// It did not do its work.
    pub(super) fn fails(&self, fault: &Fault) {
        let now = self.clock.steady();
        let server = self.target.name();
        let advice = explain(fault, &self.target.smtp);
        let why = format!("{server}: {fault}. {advice}");
        let (change, shut) = {
            let mut breaker = self.breaker();
            let change = if fault.is_login() {
                breaker.pause(now, &why)
            } else {
                breaker.fault(now, &why, self.jitter())
            };
            (change, breaker.is_shut(now))
        };
        if change == Change::Shut {
            tracing::warn!(server, %fault, "the SMTP server is left alone for a while");
        }
        if shut {
            self.send_away();
        }
    }

    fn is_shut(&self) -> bool {
        self.breaker().is_shut(self.clock.steady())
    }

    fn send_away(&self) {
        for job in self.pool.drain() {
            job.leave(Left::Shut);
        }
    }

    /// Takes no more messages.  What is under way ends, what waits goes elsewhere, and idle connections are closed.
    pub(super) fn close(&self) {
        for job in self.pool.close() {
            job.leave(Left::Moved);
        }
        self.closing.cancel();
    }

    /// Chance in 0..=1.
    fn jitter(&self) -> f64 {
        let mut byte = [0];
        self.random.fill(&mut byte);
        f64::from(byte[0]) / 255.0
    }
}
