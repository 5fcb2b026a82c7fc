//! One connection: it opens, takes messages as long as it may, and closes.

use std::sync::Arc;

use tokio::time::sleep;

use super::fault::{Cause, Fault, Stage};
use super::pool::{Behind, Lease};
use super::session::{self, Progress, Session};
use super::task::Job;
use super::transaction::{Transaction, Wire};
use crate::clock::Stopwatch;

/// How often a message is begun again after the link broke before the server could have it.
const REPEATS: u8 = 2;

/// The connection's task.
pub(super) async fn run(mut lease: Lease) {
    let mut again: Vec<Job> = Vec::new();
    loop {
        if again.is_empty() && !lease.is_wanted() {
            return;
        }
        let mut progress = Progress::new();
        match session::open(&lease.provider.target, &mut progress).await {
            Ok(session) => {
                lease.opened();
                let mut connection = Connection::new(&mut lease, session, std::mem::take(&mut again));
                let worn = connection.serve().await;
                again = connection.again;
                if again.is_empty() && !(worn && lease.is_wanted()) {
                    return;
                }
                lease.reopens();
            }
            Err(fault) => {
                let transcript = progress.transcript.show("");
                return could_not_open(&mut lease, again, fault, &transcript);
            }
        }
    }
}

/// Tells those who waited for it, unless there are others that work.
fn could_not_open(lease: &mut Lease, again: Vec<Job>, fault: Fault, transcript: &str) {
    let provider = Arc::clone(&lease.provider);
    for job in &again {
        lease.give_back(job.task.urgent);
    }
    let waiting = lease.failed();
    if waiting.is_none() && !fault.is_login() {
        again.into_iter().for_each(|job| provider.put_back(job));
        return;
    }
    let fault = Arc::new(fault);
    let waiting = waiting.unwrap_or_else(|| provider.pool.drain());
    provider.fails(&fault);
    for job in again.into_iter().chain(waiting) {
        job.fail(Arc::clone(&fault), Some(transcript.to_owned()));
    }
}

struct Connection<'a> {
    lease: &'a mut Lease,
    wire: Wire,
    /// What has to be begun again on another connection.
    again: Vec<Job>,
    age: Stopwatch,
    begun: usize,
    /// Whether it has idled, or the server has said its last word on a message: then a broken link says little.
    used: bool,
}

/// The connection is of no use any more.
struct Ended;

impl<'a> Connection<'a> {
    fn new(lease: &'a mut Lease, session: Session, again: Vec<Job>) -> Self {
        let Session { talk, extensions } = session;
        let wire = Wire::new(talk, extensions, lease.provider.target.deadlines.clone());
        Self { lease, wire, again, age: Stopwatch::start(), begun: 0, used: false }
    }

    /// Carries messages until there are none, or the connection has done its share, which it says.
    async fn serve(&mut self) -> bool {
        while !self.is_worn() {
            let job = match self.again.pop() {
                Some(job) => job,
                None => match self.next().await {
                    Some(job) => job,
                    None => break,
                },
            };
            let Some(first) = self.accept(job) else {
                continue;
            };
            if self.carry(first).await.is_err() {
                return false;
            }
        }
        self.wire.quit().await;
        self.is_worn()
    }

    fn is_worn(&self) -> bool {
        let target = &self.lease.provider.target;
        self.begun >= target.smtp.messages_per_connection.max(1) || self.age.elapsed() >= target.deadlines.age
    }

    /// The next message; `None` when the connection is to be closed.
    async fn next(&mut self) -> Option<Job> {
        let provider = Arc::clone(&self.lease.provider);
        let deadlines = &provider.target.deadlines;
        loop {
            if let Some(job) = self.lease.take(Behind::Nothing) {
                return Some(job);
            }
            if provider.closing.is_cancelled() {
                return None;
            }
            let wire = &mut self.wire;
            let left = deadlines.age.saturating_sub(self.age.elapsed()).min(deadlines.idle);
            let ends = async {
                tokio::select! {
                    // A server that says something now says farewell.
                    () = wire.speaks() => {}
                    () = sleep(left) => {}
                    () = provider.closing.cancelled() => {}
                }
            };
            self.used = true;
            if self.lease.idle(ends).await.is_some() {
                return None;
            }
        }
    }

    /// Makes a message a transaction, unless the server can not take it.
    fn accept(&mut self, mut job: Job) -> Option<Transaction> {
        job.task.check(self.wire.extensions());
        if job.task.open() == 0 {
            self.lease.give_back(job.task.urgent);
            job.done(None, None);
            return None;
        }
        self.begun += 1;
        Some(self.wire.begin(job))
    }

    /// The message whose envelope goes out behind the content of `current`.
    fn following(&mut self, current: &Transaction) -> Option<Transaction> {
        while self.wire.extensions().pipelining && !self.is_worn() {
            let behind = if current.is_urgent() { Behind::Urgent } else { Behind::Bulk };
            let job = match self.again.pop() {
                Some(job) => job,
                None => self.lease.take(behind)?,
            };
            if let Some(next) = self.accept(job) {
                return Some(next);
            }
        }
        None
    }

    /// Carries a message, and those that come right behind it.
    async fn carry(&mut self, first: Transaction) -> Result<(), Ended> {
        let mut ready = self.envelope(first).await?;
        while let Some(mut current) = ready.take() {
            let mut next = self.following(&current);
            // One with very many recipients goes by steps.
            let behind = next.take_if(|next| self.wire.can_follow(next));
            let (mut behind, alone) = (behind, next);
            if let Err(fault) = self.wire.content(&mut current, behind.as_mut()).await {
                self.lost_content(current, &fault);
                behind.into_iter().chain(alone).for_each(|next| self.repeat(next, &fault));
                return Err(Ended);
            }
            let farewell = current.is_last_word();
            self.finish(current);
            if farewell {
                let fault = Fault::new(Stage::Mail, Cause::Closed);
                behind.into_iter().chain(alone).for_each(|next| self.repeat(next, &fault));
                return Err(Ended);
            }
            if let Some(mut next) = behind {
                let envelope = self.wire.envelope_behind(&mut next).await;
                ready = self.after_envelope(next, envelope)?;
            } else if let Some(next) = alone {
                ready = self.envelope(next).await?;
            }
        }
        Ok(())
    }

    async fn envelope(&mut self, mut transaction: Transaction) -> Result<Option<Transaction>, Ended> {
        let envelope = self.wire.envelope(&mut transaction).await;
        self.after_envelope(transaction, envelope)
    }

    /// Gives the transaction when its content is to follow.
    fn after_envelope(
        &mut self,
        transaction: Transaction,
        envelope: Result<bool, Fault>,
    ) -> Result<Option<Transaction>, Ended> {
        match envelope {
            Ok(true) => Ok(Some(transaction)),
            Ok(false) => {
                self.finish(transaction);
                Ok(None)
            }
            Err(fault) => {
                self.lost(transaction, fault);
                Err(Ended)
            }
        }
    }

    /// The server has said its last word on a message.
    fn finish(&mut self, transaction: Transaction) {
        self.used = true;
        self.lease.provider.works();
        self.lease.give_back(transaction.is_urgent());
        self.wire.end(transaction);
    }

    /// The link broke before the server could have all of the message.  On a link that was used before, that says
    /// little: servers close those when they like.
    fn lost(&mut self, transaction: Transaction, fault: Fault) {
        if self.used && !fault.is_login() {
            return self.repeat(transaction, &fault);
        }
        self.fail(transaction, fault);
    }

    fn fail(&mut self, transaction: Transaction, fault: Fault) {
        let fault = Arc::new(fault);
        self.lease.give_back(transaction.is_urgent());
        self.lease.provider.fails(&fault);
        self.wire.fail(transaction, fault);
    }

    /// Begins a message again at once, on another connection; but not for ever.
    fn repeat(&mut self, transaction: Transaction, fault: &Fault) {
        if transaction.repeats() < REPEATS {
            self.again.push(transaction.again());
        } else {
            self.fail(transaction, fault.clone());
        }
    }

    /// The link broke while the content went out, or before it was answered.
    fn lost_content(&mut self, mut transaction: Transaction, fault: &Fault) {
        if transaction.is_settled() {
            // Only the lone dot of a message that nobody gets.
            self.finish(transaction);
        } else if self.wire.may_have_all(&transaction) {
            self.used = true;
            self.lease.provider.fails(fault);
            transaction.unknown(&self.lease.provider.target.name(), fault);
            self.lease.give_back(transaction.is_urgent());
            self.wire.end(transaction);
        } else {
            self.lost(transaction, fault.clone());
        }
    }
}
