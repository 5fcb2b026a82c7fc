//! A server tried step by step, with what each step found in words that say what to do.

use std::time::Duration;

use super::deadlines::Deadlines;
use super::explain::explain;
use super::fault::{Cause, Fault, Stage};
use super::session::{self, Progress, Session, Target};
use super::task::Task;
use super::{dot, envelope};
use crate::clock::SharedClock;
use crate::email::config::{Smtp, TlsMode};
use crate::email::transport::Message;

/// The steps on the way to a delivered mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The host's name becomes addresses.
    Resolve,
    /// A connection is made, and the server greets.
    Connect,
    /// The connection is protected, and the certificate is checked.
    Tls,
    /// The login.
    Login,
    /// The server takes the sender's address.
    Sender,
    /// The server takes the recipient and the mail.
    Delivery,
}

/// One step of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeStep {
    /// Which step.
    pub step: Step,
    /// Whether it went well.
    pub succeeded: bool,
    /// How long it took.
    pub duration: Duration,
    /// The server's reply, if it came to one; else empty.
    pub reply: String,
    /// What the result means, and what to do when the step failed.
    pub explanation: String,
}

/// What a test found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The steps in their order, up to the one that failed.
    pub steps: Vec<ProbeStep>,
    /// The server, as host and port.
    pub server: String,
    /// What was said, one line each, secrets left out.
    pub transcript: String,
}

impl Probe {
    /// Whether every step that was made went well.
    pub fn succeeded(&self) -> bool {
        self.steps.iter().all(|step| step.succeeded)
    }
}

/// Tries a server: up to the sender's address `from`, and with `test` up to its delivery.  It takes no part in what
/// [`super::SmtpTransport`] knows of the server.
pub async fn probe(
    smtp: &Smtp,
    from: &str,
    test: Option<Message>,
    deadlines: Deadlines,
    clock: SharedClock,
) -> Probe {
    let target = Target::new(smtp.clone(), deadlines, clock);
    let mut progress = Progress::new();
    let mut found = Found { smtp, steps: Vec::new() };
    let opened = session::open(&target, &mut progress).await;
    let transcript = match opened {
        Err(fault) => {
            progress.end();
            found.opened(&progress, Some(&fault));
            progress.transcript.show("")
        }
        Ok(mut session) => {
            found.opened(&progress, None);
            let mut ended = Progress::new();
            ended.stage = Stage::Mail;
            let mail = try_mail(&target, &mut session, from, test, &mut ended).await;
            found.mailed(&ended, mail);
            let _ = session.talk.ask(b"QUIT\r\n", b"QUIT\r\n", target.deadlines.quit).await;
            session.talk.transcript.show("")
        }
    };
    Probe { steps: found.steps, server: target.name(), transcript }
}

/// The last reply of each stage that went well.
type Replies = Vec<(Stage, String)>;

/// Answers what was said, and what went wrong if anything did.
async fn try_mail(
    target: &Target,
    session: &mut Session,
    from: &str,
    test: Option<Message>,
    progress: &mut Progress,
) -> (Replies, Option<Fault>) {
    let mut said = Vec::new();
    let Session { talk, extensions } = session;
    let deadlines = &target.deadlines;
    let message = test.unwrap_or_else(|| Message {
        from: from.to_owned(),
        to: Vec::new(),
        content: bytes::Bytes::new(),
        urgent: true,
    });
    let task = Task::new(Message { from: from.to_owned(), ..message });
    if let Err(why) = envelope::check(from) {
        let cause = Cause::Settings(format!("the sender {from:?} is not an address: {why}"));
        return (said, Some(Fault::new(Stage::Mail, cause)));
    }
    let mut lines = vec![(Stage::Mail, Vec::new())];
    envelope::mail(&mut lines[0].1, from, task.body.len(), task.eight_bit, task.utf8, extensions);
    for to in &task.to {
        if let Err(why) = envelope::check(to) {
            let cause = Cause::Settings(format!("the recipient {to:?} is not an address: {why}"));
            return (said, Some(Fault::new(Stage::Rcpt, cause)));
        }
        let mut line = Vec::new();
        envelope::recipient(&mut line, to);
        lines.push((Stage::Rcpt, line));
    }
    if !task.to.is_empty() {
        lines.push((Stage::Data, b"DATA\r\n".to_vec()));
        lines.push((Stage::Content, [&task.body, dot::END].concat()));
    }
    for (stage, line) in lines {
        if stage != progress.stage {
            progress.enter(stage);
        }
        let (shown, deadline) = match stage {
            Stage::Content => (&b"(the content)\n."[..], deadlines.content_of(line.len()).max(deadlines.dot)),
            _ => (&line[..], deadlines.commands),
        };
        match talk.ask(&line, shown, deadline).await {
            Ok(reply) if reply.code / 100 == if stage == Stage::Data { 3 } else { 2 } => {
                said.retain(|(other, _)| *other != stage);
                said.push((stage, reply.to_string()));
            }
            Ok(reply) => return (said, Some(Fault::new(stage, Cause::Reply(reply)))),
            Err(cause) => return (said, Some(Fault::new(stage, cause))),
        }
    }
    (said, None)
}

struct Found<'a> {
    smtp: &'a Smtp,
    steps: Vec<ProbeStep>,
}

impl Found<'_> {
    fn add(&mut self, step: Step, duration: Duration, reply: String, explanation: String) {
        self.steps.push(ProbeStep { step, succeeded: true, duration, reply, explanation });
    }

    fn failed(&mut self, step: Step, duration: Duration, fault: &Fault) {
        let reply = fault.reply().map(ToString::to_string).unwrap_or_default();
        let explanation = format!("{} ({fault})", explain(fault, self.smtp));
        self.steps.push(ProbeStep { step, succeeded: false, duration, reply, explanation });
    }

    /// The steps up to the login.
    fn opened(&mut self, progress: &Progress, fault: Option<&Fault>) {
        let step_of = |stage: Stage| match stage {
            Stage::Resolve => Step::Resolve,
            Stage::StartTls | Stage::Tls => Step::Tls,
            Stage::Auth => Step::Login,
            // With implicit TLS these come under it.
            Stage::Greeting | Stage::Ehlo if self.smtp.tls == TlsMode::Implicit => Step::Tls,
            _ => Step::Connect,
        };
        let failing = fault.map(|fault| step_of(fault.stage));
        for step in [Step::Resolve, Step::Connect, Step::Tls, Step::Login] {
            let mut times = progress.times.iter().filter(|(stage, _)| step_of(*stage) == step).peekable();
            if times.peek().is_none() {
                continue;
            }
            let duration = times.map(|(_, time)| *time).sum();
            if let Some(fault) = fault.filter(|_| failing == Some(step)) {
                return self.failed(step, duration, fault);
            }
            let (reply, explanation) = self.well(step, progress);
            self.add(step, duration, reply, explanation);
        }
    }

    fn well(&self, step: Step, progress: &Progress) -> (String, String) {
        let Smtp { host, port, user, .. } = self.smtp;
        match step {
            Step::Resolve => {
                let addresses: Vec<_> = progress.addresses.iter().map(|at| at.ip().to_string()).collect();
                (String::new(), format!("{host} is {}.", addresses.join(", ")))
            }
            Step::Connect => {
                let greeting = progress.greeting.as_ref().map(ToString::to_string).unwrap_or_default();
                (greeting, format!("The server answers on port {port}."))
            }
            Step::Tls => {
                let version = progress.tls.as_deref().unwrap_or("TLS");
                (
                    String::new(),
                    format!("The connection is protected by {version}, and the certificate is good."),
                )
            }
            _ => {
                let how = progress.mechanism.map(|mechanism| mechanism.to_string()).unwrap_or_default();
                (String::new(), format!("Logged in as {user} by {how}."))
            }
        }
    }

    /// The steps of the mail.
    fn mailed(&mut self, progress: &Progress, (said, fault): (Replies, Option<Fault>)) {
        let mut progress_times = progress.times.clone();
        let last = (progress.stage, progress.elapsed());
        progress_times.push(last);
        let time = |sender: bool| {
            let own = progress_times.iter().filter(|(stage, _)| (*stage == Stage::Mail) == sender);
            own.map(|(_, time)| *time).sum::<Duration>()
        };
        let reply = |stage| said.iter().find(|(own, _)| *own == stage).map(|(_, reply)| reply.clone());
        if let Some(reply) = reply(Stage::Mail) {
            self.add(Step::Sender, time(true), reply, "The server takes mail from this sender.".into());
        }
        if let Some(reply) = reply(Stage::Content) {
            let words =
                "The server has taken the mail. Whether it arrives is up to it and to those behind it.";
            self.add(Step::Delivery, time(false), reply, words.into());
        }
        if let Some(fault) = fault {
            let step = if fault.stage == Stage::Mail { Step::Sender } else { Step::Delivery };
            self.failed(step, time(step == Step::Sender), &fault);
        }
    }
}
