//! A message on the wire: its envelope, its content, and what the server says to them.
//!
//! With PIPELINING (RFC 2920) the envelope is one write, and it goes out with the content of the message before it: one
//! round trip a message.

use std::sync::Arc;

use super::classify;
use super::deadlines::{Deadline, Deadlines};
use super::ehlo::Extensions;
use super::fault::{self, Cause, Fault, Stage};
use super::reply::Reply;
use super::session::Talk;
use super::stream::Stream;
use super::task::Job;
use super::transcript::Transcript;
use super::{dot, envelope};
use crate::email::transport::Verdict;

/// The most recipients in one write: a server's answers to them have to fit into the buffers on the way while nobody
/// reads them.
const GROUP: usize = 100;

/// A message in hand.
pub(super) struct Transaction {
    job: Job,
    log: Transcript,
    deadline: Deadline,
    /// The reply to the dot.
    last: Option<Reply>,
    /// Whether RSET was sent in front of its envelope.
    reset: bool,
    /// How many recipients it was asked about at once.
    asked: usize,
    /// Whether there is nobody to send the content for.
    lone_dot: bool,
    /// Whether the server took leave with its answer.
    farewell: bool,
}

impl Transaction {
    /// Whether somebody waits for it.
    pub(super) fn is_urgent(&self) -> bool {
        self.job.task.urgent
    }

    /// How often it was begun again.
    pub(super) fn repeats(&self) -> u8 {
        self.job.task.repeats
    }

    /// Whether there is a verdict for everybody.
    pub(super) fn is_settled(&self) -> bool {
        self.job.task.open() == 0
    }

    /// Whether the server takes no more after it.
    pub(super) fn is_last_word(&self) -> bool {
        self.farewell
    }

    /// To be begun again.
    pub(super) fn again(mut self) -> Job {
        self.job.task.repeats += 1;
        self.job
    }

    /// Nobody knows whether the server has taken it.
    pub(super) fn unknown(&mut self, server: &str, fault: &Fault) {
        let error = format!("{server}: {fault}; the server has all of the mail and may have taken it");
        self.log.note(&error);
        self.job.task.settle(&Verdict::Unknown { error });
    }

    fn body(&self) -> &[u8] {
        if self.lone_dot { b"" } else { &self.job.task.body }
    }

    fn heard_mail(&mut self, said: Said) -> Result<bool, Fault> {
        match said {
            Said::Yes => Ok(true),
            Said::No(reply) => {
                self.job.task.settle(&classify::verdict(Stage::Mail, &reply));
                Ok(false)
            }
            Said::GoOn => Err(out_of_turn(Stage::Mail)),
        }
    }

    fn heard_recipient(&mut self, at: usize, said: Said) -> Result<(), Fault> {
        match said {
            Said::Yes => Ok(()),
            Said::No(reply) => {
                self.job.task.settled[at] = Some(classify::verdict(Stage::Rcpt, &reply));
                Ok(())
            }
            Said::GoOn => Err(out_of_turn(Stage::Rcpt)),
        }
    }
}

/// A session's wire.
pub(super) struct Wire {
    stream: Stream,
    extensions: Extensions,
    deadlines: Deadlines,
    /// What was said at the beginning.
    beginning: String,
    /// What is written next.
    group: Vec<u8>,
    /// Memory of a transcript that ended.
    spare: Option<Transcript>,
    /// Whether the server still has an envelope that no content followed.
    stale: bool,
}

impl Wire {
    /// The wire of a session.
    pub(super) fn new(talk: Talk, extensions: Extensions, deadlines: Deadlines) -> Self {
        Self {
            stream: talk.stream,
            extensions,
            deadlines,
            beginning: talk.transcript.show(""),
            group: Vec::with_capacity(512),
            spare: None,
            stale: false,
        }
    }

    /// What the server can do.
    pub(super) fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Takes a message in hand.
    pub(super) fn begin(&mut self, job: Job) -> Transaction {
        let log = self.spare.take().unwrap_or_default();
        let deadline = Deadline::after(self.deadlines.message);
        Transaction {
            job,
            log,
            deadline,
            last: None,
            reset: false,
            asked: 0,
            lone_dot: false,
            farewell: false,
        }
    }

    /// Tells what became of a message.
    pub(super) fn end(&mut self, transaction: Transaction) {
        let Transaction { job, mut log, last, .. } = transaction;
        let accepted = job.task.settled.iter().all(|verdict| *verdict == Some(Verdict::Accepted));
        let transcript = (!accepted).then(|| log.show(&self.beginning));
        job.done(last.map(|last| (last.to_string(), Some(last.code))), transcript);
        log.clear();
        self.spare = Some(log);
    }

    /// Gives a message back.
    pub(super) fn fail(&self, transaction: Transaction, fault: Arc<Fault>) {
        let Transaction { job, mut log, .. } = transaction;
        log.note(&fault.to_string());
        job.fail(fault, Some(log.show(&self.beginning)));
    }

    /// Whether the last write may have brought all of the content to the server.
    pub(super) fn may_have_all(&self, transaction: &Transaction) -> bool {
        // The end is the line end before the dot, the dot, and the line end behind it.
        let sent = self.stream.handed_over();
        sent > 0 && sent + 2 > transaction.body().len()
    }

    /// Ends when the server says something, or closes.
    pub(super) async fn speaks(&mut self) {
        // Whatever it is, the connection is of no more use.
        let _ = self.stream.fill().await;
    }

    /// Takes leave.
    pub(super) async fn quit(&mut self) {
        let deadline = Deadline::after(self.deadlines.quit);
        if self.stream.write(b"QUIT\r\n", b"", deadline).await.is_ok() {
            let _ = self.stream.reply(deadline).await;
        }
    }

    /// The next reply.
    ///
    /// # Errors
    /// When there is none, or it is about the connection and not about this message.
    async fn reply(
        &mut self,
        stage: Stage,
        own: &mut Transaction,
        deadline: Deadline,
    ) -> Result<Said, Fault> {
        let answer = self.stream.reply(deadline).await.map_err(|cause| Fault::new(stage, cause))?;
        own.log.server(self.stream.bytes(answer));
        match answer.code {
            200..300 => Ok(Said::Yes),
            300..400 => Ok(Said::GoOn),
            code => {
                let reply = self.stream.read(answer);
                if code == 421 || fault::is_login(&reply) {
                    return Err(Fault::new(stage, Cause::Reply(reply)));
                }
                Ok(Said::No(reply))
            }
        }
    }

    async fn ask(&mut self, stage: Stage, own: &mut Transaction) -> Result<Said, Fault> {
        let deadline = Deadline::within(self.deadlines.commands, own.deadline);
        self.write_group(own, deadline).await?;
        self.reply(stage, own, deadline).await
    }

    async fn write_group(&mut self, own: &mut Transaction, deadline: Deadline) -> Result<(), Fault> {
        own.log.client(&self.group);
        let written = self.stream.write(&self.group, b"", deadline).await;
        written.map_err(|cause| Fault::new(Stage::Mail, cause))
    }

    /// Adds an envelope to what is written next.
    fn add_envelope(&mut self, own: &mut Transaction) {
        if std::mem::take(&mut self.stale) {
            self.group.extend_from_slice(b"RSET\r\n");
            own.reset = true;
        }
        self.add_mail(own);
        let task = &own.job.task;
        for (to, _) in task.to.iter().zip(&task.settled).filter(|(_, settled)| settled.is_none()) {
            envelope::recipient(&mut self.group, to);
            own.asked += 1;
        }
        self.group.extend_from_slice(b"DATA\r\n");
    }

    fn add_mail(&mut self, own: &Transaction) {
        let task = &own.job.task;
        envelope::mail(
            &mut self.group,
            &task.from,
            task.body.len(),
            task.eight_bit,
            task.utf8,
            &self.extensions,
        );
    }

    /// Sends an envelope; says whether the content is to follow.
    ///
    /// # Errors
    /// When the link broke or the server ended it: the message may be begun again.
    pub(super) async fn envelope(&mut self, own: &mut Transaction) -> Result<bool, Fault> {
        if !self.goes_at_once(own) {
            return self.envelope_by_steps(own).await;
        }
        self.group.clear();
        self.add_envelope(own);
        let deadline = Deadline::within(self.deadlines.commands, own.deadline);
        self.write_group(own, deadline).await?;
        self.envelope_replies(own).await
    }

    fn goes_at_once(&self, own: &Transaction) -> bool {
        self.extensions.pipelining && own.job.task.open() <= GROUP
    }

    /// Reads what the server says to an envelope that was sent; says whether the content is to follow.
    async fn envelope_replies(&mut self, own: &mut Transaction) -> Result<bool, Fault> {
        let deadline = Deadline::within(self.deadlines.commands, own.deadline);
        if std::mem::take(&mut own.reset) {
            self.reply(Stage::Mail, own, deadline).await?;
        }
        let mail = self.reply(Stage::Mail, own, deadline).await?;
        let mailed = own.heard_mail(mail)?;
        if mailed {
            for at in 0..own.job.task.settled.len() {
                if own.job.task.settled[at].is_none() {
                    let said = self.reply(Stage::Rcpt, own, deadline).await?;
                    own.heard_recipient(at, said)?;
                }
            }
        } else {
            // They say the same in other words.
            for _ in 0..own.asked {
                self.reply(Stage::Rcpt, own, deadline).await?;
            }
        }
        own.asked = 0;
        let data = self.reply(Stage::Data, own, deadline).await?;
        self.heard_data(own, data, mailed)
    }

    /// Command by command, for those who do not know PIPELINING and for many recipients.
    async fn envelope_by_steps(&mut self, own: &mut Transaction) -> Result<bool, Fault> {
        if std::mem::take(&mut self.stale) {
            self.group.clear();
            self.group.extend_from_slice(b"RSET\r\n");
            self.ask(Stage::Mail, own).await?;
        }
        self.group.clear();
        self.add_mail(own);
        let mail = self.ask(Stage::Mail, own).await?;
        if !own.heard_mail(mail)? {
            return Ok(false);
        }
        let size = if self.extensions.pipelining { GROUP } else { 1 };
        let open: Vec<usize> =
            (0..own.job.task.to.len()).filter(|at| own.job.task.settled[*at].is_none()).collect();
        for group in open.chunks(size) {
            self.group.clear();
            for at in group {
                envelope::recipient(&mut self.group, &own.job.task.to[*at]);
            }
            let deadline = Deadline::within(self.deadlines.commands, own.deadline);
            self.write_group(own, deadline).await?;
            for at in group {
                let said = self.reply(Stage::Rcpt, own, deadline).await?;
                own.heard_recipient(*at, said)?;
            }
        }
        if own.is_settled() {
            self.stale = true;
            return Ok(false);
        }
        self.group.clear();
        self.group.extend_from_slice(b"DATA\r\n");
        let data = self.ask(Stage::Data, own).await?;
        self.heard_data(own, data, true)
    }

    fn heard_data(&mut self, own: &mut Transaction, said: Said, mailed: bool) -> Result<bool, Fault> {
        match said {
            Said::GoOn => {
                // Sent ahead, and taken although nobody is to get it: the dot ends it (RFC 2920, section 3.1).
                own.lone_dot = own.is_settled();
                Ok(true)
            }
            Said::No(reply) => {
                own.job.task.settle(&classify::verdict(Stage::Data, &reply));
                self.stale = mailed;
                Ok(false)
            }
            Said::Yes => Err(out_of_turn(Stage::Data)),
        }
    }

    /// Sends the content and, right behind it, the next message's envelope; then reads what the server says to the
    /// content.
    ///
    /// # Errors
    /// When the link broke; [`Wire::may_have_all`] says whether the server may have all of the content.
    pub(super) async fn content(
        &mut self,
        own: &mut Transaction,
        next: Option<&mut Transaction>,
    ) -> Result<(), Fault> {
        self.group.clear();
        self.group.extend_from_slice(dot::END);
        if let Some(next) = next {
            self.add_envelope(next);
            next.log.client(&self.group[dot::END.len()..]);
        }
        own.log.client(if own.lone_dot { b"." } else { b"(the content)\n." });
        let broken = |cause| Fault::new(Stage::Content, cause);
        let body = own.body();
        let deadline = Deadline::within(self.deadlines.content_of(body.len()), own.deadline);
        self.stream.write(body, &self.group, deadline).await.map_err(broken)?;

        let deadline = Deadline::within(self.deadlines.dot, own.deadline);
        let answer = self.stream.reply(deadline).await.map_err(broken)?;
        own.log.server(self.stream.bytes(answer));
        let reply = self.stream.read(answer);
        own.farewell = reply.code == 421;
        let verdict = match reply.code {
            200..300 => Verdict::Accepted,
            300..400 => return Err(out_of_turn(Stage::Content)),
            _ => classify::verdict(Stage::Content, &reply),
        };
        if !own.lone_dot {
            own.job.task.settle(&verdict);
            own.last = Some(reply);
        }
        Ok(())
    }

    /// Reads what the server says to the envelope that went out behind a content.
    ///
    /// # Errors
    /// As [`Wire::envelope`].
    pub(super) async fn envelope_behind(&mut self, own: &mut Transaction) -> Result<bool, Fault> {
        self.envelope_replies(own).await
    }

    /// Whether a message's envelope can go out behind a content.
    pub(super) fn can_follow(&self, own: &Transaction) -> bool {
        self.goes_at_once(own)
    }
}

/// What a server said to a command.
enum Said {
    Yes,
    GoOn,
    No(Reply),
}

fn out_of_turn(stage: Stage) -> Fault {
    Fault::new(stage, Cause::Protocol("the server gave an answer that does not belong there".into()))
}
