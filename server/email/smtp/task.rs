//! A message on its way: what was settled for whom, and whom to tell.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::ehlo::Extensions;
use super::fault::Fault;
use super::{dot, envelope};
use crate::clock::Stopwatch;
use crate::email::transport::{Message, Report, Verdict};

/// A message, made safe for the wire, with the verdicts that are known.
pub(super) struct Task {
    /// The sender.
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
    /// The content without the dot behind it.
    pub body: Bytes,
    /// Whether the content has more than ASCII.
    pub eight_bit: bool,
    /// Whether an address has more than ASCII.
    pub utf8: bool,
    /// Whether somebody waits for it.
    pub urgent: bool,
    /// The verdict on each recipient, once there is one.  What is settled by one provider is not asked of another.
    pub settled: Vec<Option<Verdict>>,
    /// How often it was begun again after a link broke.
    pub repeats: u8,
}

impl Task {
    /// Makes a message safe.  What is no address is refused here, and never gets onto the wire.
    pub(super) fn new(message: Message) -> Self {
        let Message { from, to, content, urgent } = message;
        let refused = |what: &str, address: &str, why: &str, bad_address| Verdict::Refused {
            reply: format!("{what} {address:?} is not an address: {why}"),
            code: 553,
            bad_address,
        };
        let bad_sender = envelope::check(&from).err();
        let settled = to
            .iter()
            .map(|address| match (bad_sender, envelope::check(address)) {
                (Some(why), _) => Some(refused("the sender", &from, why, false)),
                (None, Err(why)) => Some(refused("the recipient", address, why, true)),
                (None, Ok(())) => None,
            })
            .collect();
        Self {
            utf8: !from.is_ascii() || to.iter().any(|address| !address.is_ascii()),
            eight_bit: !content.is_ascii(),
            body: dot::stuff(&content),
            from,
            to,
            urgent,
            settled,
            repeats: 0,
        }
    }

    /// The recipients without a verdict.
    pub(super) fn open(&self) -> usize {
        self.settled.iter().filter(|verdict| verdict.is_none()).count()
    }

    /// Settles all that are open.
    pub(super) fn settle(&mut self, verdict: &Verdict) {
        for open in self.settled.iter_mut().filter(|settled| settled.is_none()) {
            *open = Some(verdict.clone());
        }
    }

    /// Settles what this server can not take, before anything is sent to it.
    pub(super) fn check(&mut self, server: &Extensions) {
        if server.size_limit > 0 && self.body.len() as u64 > server.size_limit {
            let (size, limit) = (self.body.len(), server.size_limit);
            let reply =
                format!("the mail has {size} bytes, and the server takes {limit} at most (552 5.3.4)");
            self.settle(&Verdict::Refused { reply, code: 552, bad_address: false });
        }
        if self.utf8 && !server.utf8 {
            let refused = || Verdict::Refused {
                reply: "the server does not take addresses with other letters than ASCII (553 5.6.7)".into(),
                code: 553,
                bad_address: false,
            };
            if !self.from.is_ascii() {
                self.settle(&refused());
            }
            for (address, settled) in self.to.iter().zip(&mut self.settled) {
                if !address.is_ascii() && settled.is_none() {
                    *settled = Some(refused());
                }
            }
        }
    }

    /// The report, when all is settled; what is not would be a mistake of ours, and nothing is known of it then.
    pub(super) fn report(self, summary: Option<(String, Option<u16>)>, transcript: Option<String>) -> Report {
        let unknown = || Verdict::Unknown { error: "nothing was said about this recipient".into() };
        let recipients: Vec<Verdict> =
            self.settled.into_iter().map(|verdict| verdict.unwrap_or_else(unknown)).collect();
        let (summary, code) = summary.unwrap_or_else(|| first_word(&recipients));
        let all_accepted = recipients.iter().all(|verdict| *verdict == Verdict::Accepted);
        Report { recipients, summary, code, transcript: transcript.filter(|_| !all_accepted) }
    }
}

/// What was said to the first that was not accepted.
fn first_word(recipients: &[Verdict]) -> (String, Option<u16>) {
    let said = recipients.iter().find_map(|verdict| match verdict {
        Verdict::Accepted => None,
        Verdict::Deferred { reply, .. } => Some((reply.clone(), code_of(reply))),
        Verdict::Refused { reply, code, .. } => Some((reply.clone(), Some(*code))),
        Verdict::Unknown { error } => Some((error.clone(), None)),
        Verdict::Held { why, .. } => Some((why.clone(), None)),
    });
    said.unwrap_or_default()
}

fn code_of(reply: &str) -> Option<u16> {
    let code = reply.get(..3)?.parse().ok()?;
    (200..600).contains(&code).then_some(code)
}

/// What became of a message at one provider.
pub(super) enum Outcome {
    /// All is settled.
    Done(Report),
    /// The provider could not take it.
    Failed {
        /// The message.
        task: Box<Task>,
        /// Why.
        fault: Arc<Fault>,
        /// What was said.
        transcript: Option<String>,
    },
    /// The provider did not try.
    Left {
        /// The message.
        task: Box<Task>,
        /// Why.
        why: Left,
    },
}

/// Why a provider did not try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The settings have changed.
    Moved,
    /// It is left alone since something went wrong with others.
    Shut,
    /// All its connections were busy for too long.
    Busy,
}

/// A message in a provider's queue or on one of its connections.
pub(super) struct Job {
    /// The message.
    pub task: Box<Task>,
    /// Since when it waits.
    pub since: Stopwatch,
    answer: oneshot::Sender<Outcome>,
}

impl Job {
    /// A message, and where its outcome comes out.
    pub(super) fn new(task: Box<Task>) -> (Self, oneshot::Receiver<Outcome>) {
        let (answer, outcome) = oneshot::channel();
        (Self { task, since: Stopwatch::start(), answer }, outcome)
    }

    /// Whether nobody waits for the outcome any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.answer.is_closed()
    }

    /// Tells what became of it; who does not wait any more does not want to know.
    pub(super) fn done(self, summary: Option<(String, Option<u16>)>, transcript: Option<String>) {
        let _ = self.answer.send(Outcome::Done(self.task.report(summary, transcript)));
    }

    /// Gives it back with the provider's fault.
    pub(super) fn fail(self, fault: Arc<Fault>, transcript: Option<String>) {
        let _ = self.answer.send(Outcome::Failed { task: self.task, fault, transcript });
    }

    /// Gives it back untried.
    pub(super) fn leave(self, why: Left) {
        let _ = self.answer.send(Outcome::Left { task: self.task, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(from: &str, to: &[&str], content: &'static str) -> Task {
        let to = to.iter().map(ToString::to_string).collect();
        Task::new(Message { from: from.into(), to, content: content.into(), urgent: true })
    }

    #[test]
    fn what_is_no_address_is_settled_and_the_others_are_not() {
        let to = ["a@example.com", "b@example.com\r\nDATA"];
        let own = task("s@example.com", &to, "x\r\n");
        assert_eq!(own.open(), 1);
        assert!(matches!(&own.settled[1], Some(Verdict::Refused { bad_address: true, .. })));
        let own = task("s@exa mple.com", &to, "x\r\n");
        assert_eq!(own.open(), 0);
        assert!(own.settled.iter().all(|v| matches!(v, Some(Verdict::Refused { bad_address: false, .. }))));
    }

    #[test]
    fn what_a_server_can_not_take_is_not_sent_to_it() {
        let small = Extensions { size: true, size_limit: 2, ..Default::default() };
        let mut own = task("s@example.com", &["a@example.com"], "abc\r\n");
        own.check(&small);
        let report = own.report(None, None);
        assert_eq!((report.code, report.summary.contains("5 bytes")), (Some(552), true), "{report:?}");

        let to = ["ü@example.com", "a@example.com"];
        let mut own = task("s@example.com", &to, "abc\r\n");
        own.check(&Extensions { utf8: true, ..Default::default() });
        assert_eq!(own.open(), 2);
        own.check(&Extensions::default());
        assert_eq!((own.open(), own.settled[1].is_none()), (1, true));
        let mut own = task("ü@example.com", &["a@example.com"], "abc\r\n");
        own.check(&Extensions::default());
        assert_eq!(own.open(), 0);
    }
}
