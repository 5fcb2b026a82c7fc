//! The wire: EmailService.

#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::address;
use super::bounce::BounceService;
use super::enqueue::Enqueued;
use super::model::{Attachment, Priority};
use super::queue::{Detail, EmailFilter, QueueService, Queued, RecipientRow, RetryFilter, Stats};
use super::send::{NewAttachment, NewEmail};
use super::service::EmailService;
use super::smtp::probe::{Probe, ProbeStep, Step};
use super::trial::SmtpTrial;
use crate::delivery::attempt::AttemptRow;
use crate::delivery::{State, Table};
use crate::error::{Error, Result as Outcome};
use crate::pb::switchboard::email::v1 as pb;
use crate::rpc::Principal;
use crate::rpc::convert::{
    duration, from_json, from_timestamp, json, json_value, next_attempt, state, states, timestamp,
};
use crate::rpc::page::Page;

/// The greatest request, in bytes: files that take 25 MiB once they are encoded, and the bodies.
pub const MESSAGE_LIMIT: usize = 24 * 1024 * 1024;
/// How far back counts go when the caller does not say.
const STATS_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// The service.
#[derive(Clone)]
pub struct Rpc {
    /// Sends.
    pub emails: Arc<EmailService>,
    /// Shows and changes the queue.
    pub queue: Arc<QueueService>,
    /// Tries SMTP servers.
    pub trial: Arc<SmtpTrial>,
    /// Takes bounces and complaints.
    pub bounces: Arc<BounceService>,
}

#[tonic::async_trait]
impl pb::email_service_server::EmailService for Rpc {
    async fn send_email(
        &self,
        request: Request<pb::SendEmailRequest>,
    ) -> Result<Response<pb::SendEmailResponse>, Status> {
        let principal = Principal::of(&request)?.clone();
        let sent = self.emails.send(&principal.actor(), request.into_inner().into()).await?;
        Ok(Response::new(sent.into()))
    }

    async fn batch_send_emails(
        &self,
        request: Request<pb::BatchSendEmailsRequest>,
    ) -> Result<Response<pb::BatchSendEmailsResponse>, Status> {
        let principal = Principal::of(&request)?.clone();
        let request = request.into_inner();
        let strict = request.mode() != pb::BatchMode::Permissive;
        let emails = request.emails.into_iter().map(NewEmail::from).collect();
        let answers = self.emails.send_batch(&principal.actor(), emails, strict).await?;
        let results = answers.into_iter().map(pb::BatchSendEmailsResult::from).collect();
        Ok(Response::new(pb::BatchSendEmailsResponse { results }))
    }

    async fn get_email(
        &self,
        request: Request<pb::GetEmailRequest>,
    ) -> Result<Response<pb::GetEmailResponse>, Status> {
        let Detail { queued, html, text, attempts, recipients, activities } =
            self.queue.get(&request.get_ref().email_id).await?;
        let of_mail = queued.state();
        let recipient = |row: RecipientRow| pb::EmailRecipient {
            address: row.address,
            state: state(row.status.map_or(of_mail, |word| State::of_word(&word, Table::EmailQueue))).into(),
            reply: row.reply.unwrap_or_default(),
        };
        Ok(Response::new(pb::GetEmailResponse {
            email: Some(queued.into()),
            html_body: html,
            plain_body: text,
            attempts: attempts.into_iter().map(pb::EmailAttempt::from).collect(),
            recipients: recipients.into_iter().map(recipient).collect(),
            activities: activities.into_iter().map(pb::EmailActivity::from).collect(),
        }))
    }

    async fn list_emails(
        &self,
        request: Request<pb::ListEmailsRequest>,
    ) -> Result<Response<pb::ListEmailsResponse>, Status> {
        let request = request.into_inner();
        let page = Page::read(
            "emails",
            request.page_size,
            &request.page_token,
            &[
                &request.states,
                &request.event_id,
                &request.template,
                &request.created_after,
                &request.created_before,
                &request.recipient,
            ],
        )?;
        let recipient = match request.recipient.as_str() {
            "" => String::new(),
            text => address::parse(text)
                .map(|mailbox| mailbox.email.to_string().to_ascii_lowercase())
                .map_err(|wrong| Error::field("recipient", wrong))?,
        };
        let filter = EmailFilter {
            states: states(request.states()),
            event_id: request.event_id,
            template: request.template,
            recipient,
            created_after: request.created_after.map(from_timestamp),
            created_before: request.created_before.map(from_timestamp),
            before: page.after.clone(),
        };
        let mut emails = self.queue.list(&filter, page.limit() as i64).await?;
        let next_page_token = page.cut(&mut emails, |queued| queued.mail.id.clone());
        let emails = emails.into_iter().map(pb::Email::from).collect();
        Ok(Response::new(pb::ListEmailsResponse { emails, next_page_token }))
    }

    async fn get_email_stats(
        &self,
        request: Request<pb::GetEmailStatsRequest>,
    ) -> Result<Response<pb::GetEmailStatsResponse>, Status> {
        let pb::GetEmailStatsRequest { created_after, created_before } = request.into_inner();
        let now = self.queue.clock.now();
        let before = created_before.map_or(now + Duration::from_micros(1), from_timestamp);
        let after = created_after.map_or_else(|| before - STATS_WINDOW, from_timestamp);
        Ok(Response::new(self.queue.stats(after, before).await?.into()))
    }

    async fn cancel_email(
        &self,
        request: Request<pb::CancelEmailRequest>,
    ) -> Result<Response<pb::CancelEmailResponse>, Status> {
        let queued = self.queue.cancel(&request.get_ref().email_id).await?;
        Ok(Response::new(pb::CancelEmailResponse { email: Some(queued.into()) }))
    }

    async fn retry_email(
        &self,
        request: Request<pb::RetryEmailRequest>,
    ) -> Result<Response<pb::RetryEmailResponse>, Status> {
        let queued = self.queue.retry(&request.get_ref().email_id).await?;
        Ok(Response::new(pb::RetryEmailResponse { email: Some(queued.into()) }))
    }

    async fn retry_failed_emails(
        &self,
        request: Request<pb::RetryFailedEmailsRequest>,
    ) -> Result<Response<pb::RetryFailedEmailsResponse>, Status> {
        let request = request.into_inner();
        let now = self.queue.clock.now();
        let after = request.created_after.map(from_timestamp);
        let filter = RetryFilter {
            created_after: after.ok_or_else(|| Error::field("created_after", "is required"))?,
            created_before: request.created_before.map_or(now + Duration::from_micros(1), from_timestamp),
            template: request.template,
            include_unknown: request.include_unknown,
        };
        let count = self.queue.retry_failed(filter).await?;
        Ok(Response::new(pb::RetryFailedEmailsResponse { count }))
    }

    async fn test_smtp(
        &self,
        request: Request<pb::TestSmtpRequest>,
    ) -> Result<Response<pb::TestSmtpResponse>, Status> {
        let pb::TestSmtpRequest { to, provider, settings } = request.into_inner();
        let settings = settings.into_iter().map(|(key, value)| (key, json_value(value, 0))).collect();
        Ok(Response::new(self.trial.run(&to, provider, settings).await?.into()))
    }

    async fn report_bounce(
        &self,
        request: Request<pb::ReportBounceRequest>,
    ) -> Result<Response<pb::ReportBounceResponse>, Status> {
        let recipients = self.bounces.report(&request.get_ref().message).await?;
        let recipients = recipients.into_iter().map(pb::BouncedRecipient::from).collect();
        Ok(Response::new(pb::ReportBounceResponse { recipients }))
    }
}

impl From<pb::SendEmailRequest> for NewEmail {
    fn from(request: pb::SendEmailRequest) -> Self {
        let priority = match request.priority() {
            pb::EmailPriority::Bulk => Priority::Bulk,
            pb::EmailPriority::Unspecified | pb::EmailPriority::Transactional => Priority::Transactional,
        };
        let file = |file: pb::EmailAttachment| NewAttachment {
            filename: file.filename,
            content_type: file.content_type,
            content: file.content.into(),
            content_id: file.content_id,
        };
        Self {
            to: request.to,
            cc: request.cc,
            bcc: request.bcc,
            reply_to: request.reply_to,
            template: request.template,
            variables: request.variables.map(json).unwrap_or_default(),
            subject: request.subject,
            html_body: request.html_body,
            plain_body: request.plain_body,
            request_id: request.request_id,
            headers: request.headers.into_iter().collect(),
            attachments: request.attachments.into_iter().map(file).collect(),
            send_at: request.send_time.map(from_timestamp),
            expires_at: request.expire_time.map(from_timestamp),
            priority,
            locale: request.locale,
            preheader: request.preheader,
            topic: request.topic,
            without_tracking: request.without_tracking,
        }
    }
}

impl From<Enqueued> for pb::SendEmailResponse {
    fn from(sent: Enqueued) -> Self {
        Self { email_id: sent.email_id, replayed: sent.replayed }
    }
}

impl From<Outcome<Enqueued>> for pb::BatchSendEmailsResult {
    fn from(answer: Outcome<Enqueued>) -> Self {
        use pb::batch_send_emails_result::Result;
        let violation = |violation: &crate::error::Violation| pb::EmailViolation {
            field: violation.field.clone(),
            description: violation.description.clone(),
        };
        let result = match answer {
            Ok(sent) => Result::Sent(sent.into()),
            Err(error) => Result::Refused(pb::EmailRefusal {
                reason: error.reason().into(),
                message: error.message().into(),
                violations: error.violations().iter().map(violation).collect(),
            }),
        };
        Self { result: Some(result) }
    }
}

impl From<Probe> for pb::TestSmtpResponse {
    fn from(probe: Probe) -> Self {
        let step = |step: &ProbeStep| pb::SmtpTestStep {
            step: match step.step {
                Step::Resolve => pb::SmtpStep::Resolve,
                Step::Connect => pb::SmtpStep::Connect,
                Step::Tls => pb::SmtpStep::Tls,
                Step::Login => pb::SmtpStep::Login,
                Step::Sender => pb::SmtpStep::Sender,
                Step::Delivery => pb::SmtpStep::Delivery,
            }
            .into(),
            succeeded: step.succeeded,
            duration: Some(duration(step.duration)),
            reply: step.reply.clone(),
            explanation: step.explanation.clone(),
        };
        Self {
            succeeded: probe.succeeded(),
            steps: probe.steps.iter().map(step).collect(),
            server: probe.server,
            transcript: probe.transcript,
        }
    }
}

impl From<Stats> for pb::GetEmailStatsResponse {
    fn from(stats: Stats) -> Self {
        let count = |(known, count): &(State, i64)| pb::EmailStateCount {
            state: state(Some(*known)).into(),
            count: *count,
        };
        let hold = |hold: crate::delivery::Hold| pb::EmailHold {
            description: hold.why,
            until_time: Some(timestamp(hold.until)),
        };
        Self {
            total: stats.counts.iter().map(|(_, count)| count).sum(),
            counts: stats.counts.iter().map(count).collect(),
            oldest_due_time: stats.oldest_due.map(timestamp),
            holds: stats.holds.into_iter().map(hold).collect(),
        }
    }
}

impl From<Queued> for pb::Email {
    fn from(queued: Queued) -> Self {
        let known = queued.state();
        let Queued { mail, standing, captured } = queued;
        let is_captured = captured.is_some();
        let (from, subject) = captured.map_or((String::new(), mail.subject), |c| (c.from_address, c.subject));
        let priority = match mail.priority {
            Priority::Transactional => pb::EmailPriority::Transactional,
            Priority::Bulk => pb::EmailPriority::Bulk,
        };
        Self {
            id: mail.id,
            event_id: mail.event_id.unwrap_or_default(),
            route_id: mail.route_id.unwrap_or_default(),
            template: mail.template,
            variables: Some(from_json(mail.variables)),
            from,
            to: mail.to,
            cc: mail.cc,
            bcc: mail.bcc,
            reply_to: mail.reply_to,
            subject,
            state: state(known).into(),
            captured: is_captured,
            attempts: standing.attempts,
            last_error: standing.error_message.unwrap_or_default(),
            create_time: Some(timestamp(mail.created_at)),
            update_time: Some(timestamp(standing.updated_at)),
            next_attempt_time: next_attempt(known, standing.next_attempt_at),
            priority: priority.into(),
            locale: mail.options.locale,
            topic: mail.options.topic,
            expire_time: mail.expires_at.map(timestamp),
            headers: mail.options.headers.into_iter().collect(),
            preheader: mail.options.preheader,
            attachments: mail.attachments.into_iter().map(pb::EmailAttachment::from).collect(),
        }
    }
}

impl From<Attachment> for pb::EmailAttachment {
    fn from(file: Attachment) -> Self {
        Self {
            filename: file.filename,
            content_type: file.content_type,
            content: Vec::new(),
            content_id: file.content_id,
            size: file.size as i64,
        }
    }
}

impl From<AttemptRow> for pb::EmailAttempt {
    fn from(attempt: AttemptRow) -> Self {
        let micros = u64::try_from(attempt.duration_micros).unwrap_or_default();
        Self {
            number: attempt.number,
            start_time: Some(timestamp(attempt.started_at)),
            duration: Some(duration(Duration::from_micros(micros))),
            reply: attempt.response_body.unwrap_or_default(),
            error: attempt.error_message.unwrap_or_default(),
            transcript: attempt.transcript.unwrap_or_default(),
        }
    }
}
