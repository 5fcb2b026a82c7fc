//! The SMTP lane: our own client for servers that mail is handed over to (RFC 5321, RFC 6409).
//!
//! # Who is who
//! * A **provider** ([`provider`]) is a server of the settings, with its [`pool`] of connections and its [`breaker`].
//! * A **session** ([`session`]) is the way to a connection that takes mail: TCP, [`tls`], greeting, [`ehlo`], login
//!   ([`auth`], [`oauth`]).
//! * A **connection** ([`connection`]) takes one message after the other; a **transaction** ([`transaction`]) is one
//!   message on the wire, made safe by [`dot`] and [`envelope`].
//! * A **fault** ([`fault`]) is the server's: the next provider is tried.  A refusal is the message's, and
//!   [`classify`] says what it means.
//! * [`probe`] tries a server step by step and [`explain`]s what it finds.
//!
//! # Guarantees
//! * Every step ends at its deadline ([`Deadlines`]), and no answer is read beyond its bounds.
//! * A message is repeated by itself only when the server can not have had the end of its content.  When it may have, and
//!   did not say, the verdict is *unknown*.

mod auth;
mod breaker;
mod classify;
mod connection;
mod deadlines;
mod dot;
mod ehlo;
mod envelope;
mod explain;
mod fault;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod oauth;
mod pool;
pub mod probe;
mod provider;
mod reply;
mod session;
mod stream;
mod task;
mod tls;
mod transaction;
mod transcript;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::config::Smtp;
use super::transport::{Hold, Message, Report, Transport, Verdict};
use crate::clock::SharedClock;
use crate::secret::SharedRandom;
pub use deadlines::Deadlines;
use explain::explain;
use fault::Fault;
use provider::Provider;
use task::{Left, Outcome, Task};

/// When to look again while there is nobody to hand mail over to.
const NO_PROVIDER: Duration = Duration::from_secs(60);
/// When to look again after a refused login; the provider is paused for longer, and a change of settings ends that.
const LOGIN: Duration = Duration::from_secs(600);
/// When to look again when all connections are busy.
const BUSY: Duration = Duration::from_secs(30);
/// How often a message begins anew because the settings changed under it.
const ROUNDS: usize = 3;

/// The providers of the newest settings, with their connections.
pub struct SmtpTransport {
    providers: ArcSwap<Vec<Arc<Provider>>>,
    deadlines: Deadlines,
    clock: SharedClock,
    random: SharedRandom,
}

impl SmtpTransport {
    /// A transport without providers.
    pub fn new(clock: SharedClock, random: SharedRandom) -> Self {
        Self::with_deadlines(clock, random, Deadlines::default())
    }

    /// A transport without providers whose steps may take other times.
    pub fn with_deadlines(clock: SharedClock, random: SharedRandom, deadlines: Deadlines) -> Self {
        Self { providers: ArcSwap::default(), deadlines, clock, random }
    }

    /// Uses these providers from now on.  Those that stay the same keep their connections.
    pub fn reconfigure(&self, providers: &[Smtp]) {
        let old = self.providers.load_full();
        let kept = |smtp: &Smtp| old.iter().find(|provider| provider.target.smtp == *smtp).cloned();
        let made = |smtp: &Smtp| {
            Provider::new(smtp.clone(), self.deadlines.clone(), self.clock.clone(), self.random.clone())
        };
        let new: Vec<_> = providers.iter().map(|smtp| kept(smtp).unwrap_or_else(|| made(smtp))).collect();
        let gone: Vec<_> =
            old.iter().filter(|own| !new.iter().any(|other| Arc::ptr_eq(own, other))).cloned().collect();
        self.providers.store(Arc::new(new));
        gone.iter().for_each(|provider| provider.close());
    }

    async fn carry(&self, message: Message) -> Report {
        let mut task = Box::new(Task::new(message));
        if task.open() == 0 {
            return task.report(None, None);
        }
        let mut tried = Tried::default();
        for _ in 0..ROUNDS {
            let providers = self.providers.load_full();
            let mut moved = false;
            for provider in providers.iter() {
                if let Err(hold) = provider.admit() {
                    tried.holds.push(hold);
                    continue;
                }
                let recipients = task.to.len();
                match provider.carry(task).await {
                    Some(Outcome::Done(report)) => return report,
                    Some(Outcome::Failed { task: back, fault, transcript }) => {
                        task = back;
                        tried.fault(provider, &fault, transcript);
                    }
                    Some(Outcome::Left { task: back, why }) => {
                        task = back;
                        moved = why == Left::Moved;
                        match why {
                            Left::Moved => break,
                            Left::Shut => tried.holds.extend(provider.hold()),
                            Left::Busy => tried.holds.push(busy(provider)),
                        }
                    }
                    None => return lost(recipients),
                }
            }
            if !moved {
                break;
            }
        }
        tried.report(*task)
    }
}

impl Drop for SmtpTransport {
    fn drop(&mut self) {
        self.providers.load().iter().for_each(|provider| provider.close());
    }
}

impl Transport for SmtpTransport {
    fn send(&self, message: Message) -> BoxFuture<'_, Report> {
        self.carry(message).boxed()
    }

    fn holds(&self) -> Vec<Hold> {
        let providers = self.providers.load();
        let holds: Vec<Hold> = providers.iter().filter_map(|provider| provider.hold()).collect();
        if holds.len() < providers.len() { Vec::new() } else { holds }
    }
}

/// What the providers said so far.
#[derive(Default)]
struct Tried {
    holds: Vec<Hold>,
    /// Of what is no matter of the login: what it was, and when to try again.
    fault: Option<(String, Option<u16>, Option<Duration>)>,
    transcript: Option<String>,
}

impl Tried {
    fn fault(&mut self, provider: &Provider, fault: &Fault, transcript: Option<String>) {
        let server = provider.target.name();
        self.transcript = transcript;
        if fault.is_login() {
            let advice = explain(fault, &provider.target.smtp);
            self.holds.push(Hold { why: format!("{server}: {fault}. {advice}"), retry_in: LOGIN });
            return;
        }
        let reply = fault.reply();
        let after = reply.and_then(|reply| classify::after(fault.stage, reply));
        self.fault = Some((format!("{server}: {fault}"), reply.map(|reply| reply.code), after));
    }

    /// Nobody took it.
    fn report(self, mut task: Task) -> Report {
        let summary = match self.fault {
            Some((words, code, after)) => {
                task.settle(&Verdict::Deferred { reply: words.clone(), after });
                (words, code)
            }
            None => {
                let retry_in = self.holds.iter().map(|hold| hold.retry_in).min().unwrap_or(NO_PROVIDER);
                let mut whys: Vec<String> = self.holds.into_iter().map(|hold| hold.why).collect();
                whys.dedup();
                if whys.is_empty() {
                    whys.push("there is no provider: set an SMTP server".into());
                }
                let why = whys.join("; ");
                task.settle(&Verdict::Held { why: why.clone(), retry_in });
                (why, None)
            }
        };
        task.report(Some(summary), self.transcript)
    }
}

fn busy(provider: &Provider) -> Hold {
    let why = format!("{}: all connections are busy", provider.target.name());
    Hold { why, retry_in: BUSY }
}

/// The task that had it in hand died.
fn lost(recipients: usize) -> Report {
    let error = "the connection's task ended, and nobody knows what became of the mail".to_owned();
    let recipients = vec![Verdict::Unknown { error: error.clone() }; recipients];
    Report { recipients, summary: error, code: None, transcript: None }
}
