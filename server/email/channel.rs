//! One attempt: render, then hand over, or capture while no SMTP host is set.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::compose;
use super::config::{EmailConfig, SharedConfig};
use super::model::{Content, Mail};
use super::store;
use super::template::{self, RenderError};
use super::transport::Transport;
use crate::clock::SharedClock;
use crate::db::{Conn, Db};
use crate::delivery::{Attempt, Channel, Leased, Outcome, Policy, Table};
use crate::error::Result;

/// The email channel of the delivery engine.
pub struct EmailChannel {
    db: Db,
    config: SharedConfig,
    transport: Transport,
    clock: SharedClock,
    policy: Arc<Policy>,
}

impl EmailChannel {
    /// A channel that follows these settings.
    pub fn new(db: Db, config: SharedConfig, clock: SharedClock) -> Self {
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
        Self { db, config, transport: Transport::default(), clock, policy }
    }

    async fn capture(&self, mail: &Mail, content: Content, config: &EmailConfig) -> Attempt {
        let from = compose::sender(config).map_or_else(|_| String::new(), |sender| sender.to_string());
        match store::capture(&self.db, mail.id.clone(), from, content, self.clock.now()).await {
            Ok(()) => Attempt {
                outcome: Outcome::Succeeded,
                response_status: None,
                response_body: Some("captured".into()),
                error: None,
            },
            Err(error) => failed(
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
            return failed(Outcome::Refused, "the mail has no recipient: the event's data has no mail address where the route looks for it".into());
        }
        let content = match render(mail, &config) {
            Ok(content) => content,
            Err(error) => {
                return failed(
                    Outcome::Refused,
                    format!("the template {} can not be rendered: {error}", mail.template),
                );
            }
        };
        let Some(smtp) = &config.smtp else {
            return self.capture(mail, content, &config).await;
        };
        match compose::message(mail, &content, &config) {
            Ok(message) => self.transport.send(smtp, message).await,
            // Settings can be mended.
            Err(error) if compose::sender(&config).is_err() => failed(Outcome::Retry { after: None }, error),
            Err(error) => failed(Outcome::Refused, error),
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

fn failed(outcome: Outcome, error: String) -> Attempt {
    Attempt { outcome, response_status: None, response_body: None, error: Some(error) }
}
