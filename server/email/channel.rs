//! One attempt: render, then hand over, or capture while no SMTP host is set.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::compose;
use super::config::{EmailConfig, SharedConfig};
use super::model::{Content, Mail, Priority};
use super::store;
use super::template::{self, RenderError};
use super::transport::{Message, Report, Transport, Verdict};
use crate::clock::{SharedClock, Timestamp};
use crate::db::{Conn, Db};
use crate::delivery::{Attempt, Channel, Leased, Outcome, Policy, Table};
use crate::error::Result;

/// The email channel of the delivery engine.
pub struct EmailChannel {
    db: Db,
    config: SharedConfig,
    transport: Arc<dyn Transport>,
    clock: SharedClock,
    policy: Arc<Policy>,
}

impl EmailChannel {
    /// A channel that follows these settings.
    pub fn new(db: Db, config: SharedConfig, transport: Arc<dyn Transport>, clock: SharedClock) -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let schedule = vec![
            Duration::from_secs(30),
            minutes(2),
            minutes(10),
            minutes(30),
            minutes(60),
            minutes(2 * 60),
            minutes(4 * 60),
            minutes(8 * 60),
        ];
        let policy = Arc::new(Policy { schedule, longest_wait: minutes(4 * 60) });
        Self { db, config, transport, clock, policy }
    }

    async fn capture(&self, mail: &Mail, content: Content, config: &EmailConfig) -> Attempt {
        let from = compose::sender(config).map_or_else(|_| String::new(), |sender| sender.to_string());
        match store::capture(&self.db, mail.id.clone(), from, content, self.clock.now()).await {
            Ok(()) => Attempt { response_body: Some("captured".into()), ..Attempt::new(Outcome::Succeeded) },
            Err(error) => Attempt::failed(
                Outcome::Retry { after: None },
                format!("the mail could not be captured: {}", error.message()),
            ),
        }
    }
}

impl Channel for EmailChannel {
    type Payload = Arc<Mail>;

    fn table(&self) -> Table {
        Table::EmailQueue
    }

    fn policy(&self, _job: &Leased<Arc<Mail>>) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    async fn attempt(&self, job: &Leased<Arc<Mail>>) -> Attempt {
        let mail = &*job.payload;
        let config = self.config.load_full();
        if mail.to.is_empty() && mail.cc.is_empty() && mail.bcc.is_empty() {
            return Attempt::failed(
                Outcome::Refused,
                "the mail has no recipient: the event's data has no mail address where the route looks for it",
            );
        }
        let content = match render(mail, &config) {
            Ok(content) => content,
            Err(error) => {
                return Attempt::failed(
                    Outcome::Refused,
                    format!("the template {} can not be rendered: {error}", mail.template),
                );
            }
        };
        if !config.sends() {
            return self.capture(mail, content, &config).await;
        }
        match compose::message(mail, &content, &config) {
            Ok(message) => {
                let envelope = message.envelope();
                let message = Message {
                    from: envelope.from().map(ToString::to_string).unwrap_or_default(),
                    to: envelope.to().iter().map(ToString::to_string).collect(),
                    content: message.formatted().into(),
                    urgent: mail.priority == Priority::Transactional,
                };
                judge(self.transport.send(message).await, self.clock.now())
            }
            // Settings can be mended.
            Err(error) if compose::sender(&config).is_err() => {
                Attempt::failed(Outcome::Retry { after: None }, error)
            }
            Err(error) => Attempt::failed(Outcome::Refused, error),
        }
    }

    fn load<'a>(
        &'a self,
        conn: &'a mut Conn,
        ids: Vec<String>,
    ) -> BoxFuture<'a, Result<Vec<(String, Arc<Mail>)>>> {
        store::load(conn, ids).boxed()
    }
}

fn render(mail: &Mail, config: &EmailConfig) -> Result<Content, RenderError> {
    if mail.template.is_empty() {
        let Mail { subject, html_body, plain_body, .. } = mail.clone();
        return Ok(Content { subject, html: html_body, text: plain_body });
    }
    let template::Rendered { subject, html, text } =
        template::render(&mail.template, &mail.variables, &config.branding)?;
    Ok(Content { subject, html, text })
}

/// What a report means for the mail.
fn judge(report: Report, now: Timestamp) -> Attempt {
    let outcome = match &report.recipients[0] {
        Verdict::Accepted => Outcome::Succeeded,
        Verdict::Deferred { after, .. } => Outcome::Retry { after: *after },
        Verdict::Refused { .. } => Outcome::Refused,
        Verdict::Unknown { .. } => Outcome::Unknown,
        Verdict::Held { retry_in, .. } => Outcome::Held { until: now + *retry_in },
    };
    let error = (outcome != Outcome::Succeeded).then(|| report.summary.clone());
    Attempt {
        response_status: report.code.map(i32::from),
        response_body: Some(report.summary),
        error,
        transcript: report.transcript,
        ..Attempt::new(outcome)
    }
}
