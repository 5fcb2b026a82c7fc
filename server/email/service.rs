//! The use cases of sending.

use std::collections::HashSet;
use std::sync::Arc;

use super::enqueue::{EnqueueWrite, Enqueued};
use super::intake::Arrival;
use super::library::Library;
use super::send::NewEmail;
use crate::clock::SharedClock;
use crate::db::group::Lane;
use crate::error::{Error, Result, Violations};
use crate::event::request::RequestKey;
use crate::id::{IdGenerator, Kind as IdKind};

/// How many mails a batch has at most.
const BATCH_LIMIT: usize = 500;

/// The use cases.
pub struct EmailService {
    /// The way into the queue.
    pub enqueue: Lane<EnqueueWrite>,
    /// The templates.
    pub library: Arc<Library>,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
}

impl EmailService {
    /// Queues a mail, and answers once it is durable.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with everything that is wrong with it.
    pub async fn send(&self, principal: &str, email: NewEmail) -> Result<Enqueued> {
        let mail = self.check(principal, email)?;
        let mut answers = self.enqueue.write(EnqueueWrite { mails: vec![mail], strict: false }).await??;
        answers.pop().unwrap_or_else(|| Err(Error::internal("the queue gave no answer")))
    }

    /// Queues many mails in one commit; answers for each, in their order, once they are durable.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when there are none or too many, or, when `strict`, with everything that is wrong with any:
    /// then none is queued.
    pub async fn send_batch(
        &self,
        principal: &str,
        emails: Vec<NewEmail>,
        strict: bool,
    ) -> Result<Vec<Result<Enqueued>>> {
        if !(1..=BATCH_LIMIT).contains(&emails.len()) {
            return Err(Error::field("emails", "must have 1 to 500 entries"));
        }
        let mut used = HashSet::new();
        let mut violations = Violations::default();
        let (mut mails, mut answers) = (Vec::with_capacity(emails.len()), Vec::with_capacity(emails.len()));
        for (index, email) in emails.into_iter().enumerate() {
            let again = !email.request_id.is_empty() && !used.insert(email.request_id.clone());
            let checked = if again {
                Err(Error::field("request_id", "must be another for each mail of a batch"))
            } else {
                self.check(principal, email)
            };
            match checked {
                Ok(mail) => {
                    mails.push(mail);
                    answers.push(None);
                }
                Err(error) => {
                    for violation in error.violations() {
                        violations
                            .add(format!("emails[{index}].{}", violation.field), &violation.description);
                    }
                    answers.push(Some(error));
                }
            }
        }
        if strict {
            violations.finish()?;
        }
        let queued = if mails.is_empty() {
            Vec::new()
        } else {
            self.enqueue.write(EnqueueWrite { mails, strict }).await??
        };
        let mut queued = queued.into_iter();
        let answer = |refused: Option<Error>| match refused {
            Some(error) => Err(error),
            None => queued.next().unwrap_or_else(|| Err(Error::internal("the queue gave no answer"))),
        };
        Ok(answers.into_iter().map(answer).collect())
    }

    fn check(&self, principal: &str, email: NewEmail) -> Result<(Arrival, Option<RequestKey>)> {
        let key = email.request_key(principal);
        let arrival = email.check(self.ids.next(IdKind::Email), self.clock.now(), |email| {
            self.library.check(&email.template, &email.locale, &email.variables)
        })?;
        Ok((arrival, key))
    }
}
