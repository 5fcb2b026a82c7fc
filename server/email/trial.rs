//! Trying an SMTP server, with what is set or with what somebody is about to set.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::config::EmailConfig;
use super::dkim::Signers;
use super::model::{Content, Mail};
use super::smtp::Deadlines;
use super::smtp::probe::{self, Probe};
use super::transport::Message;
use super::{address, compose};
use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};
use crate::id::{IdGenerator, Kind as IdKind};

/// What the settings would say about mail with these changes; checks them, and keeps nothing.
pub type Preview = Arc<dyn Fn(BTreeMap<String, Value>) -> Result<EmailConfig> + Send + Sync>;

/// The use case of TestSmtp.
pub struct SmtpTrial {
    /// The settings.
    pub preview: Preview,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
}

impl SmtpTrial {
    /// Tries a provider, 1 for the first, step by step; with an address in `to` it gets a test mail.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for bad settings, address or number; `FAILED_PRECONDITION` with the reason `SMTP_NOT_SET` when
    /// there is no such provider.  What a server answers is no error.
    pub async fn run(&self, to: &str, provider: i32, settings: BTreeMap<String, Value>) -> Result<Probe> {
        let config = Arc::new((self.preview)(settings)?);
        let number = match provider {
            0 => 1,
            1..=3 => provider as usize,
            _ => return Err(Error::field("provider", "must be 1 to 3")),
        };
        let smtp = config.providers.get(number - 1).ok_or_else(|| {
            let message = format!("there is no SMTP server number {number}: set its host (email.smtp_host)");
            Error::new(Kind::FailedPrecondition, "SMTP_NOT_SET", message)
        })?;
        let from =
            compose::sender(&config).map_err(|wrong| Error::field("settings[email.from_address]", wrong))?;
        let test = match to {
            "" => None,
            to => Some(self.mail(to, &config)?),
        };
        let from = from.email.to_string();
        Ok(probe::probe(smtp, &from, test, Deadlines::default(), Arc::clone(&self.clock)).await)
    }

    fn mail(&self, to: &str, config: &Arc<EmailConfig>) -> Result<Message> {
        let to = address::parse(to).map_err(|wrong| Error::field("to", wrong))?;
        let now = self.clock.now();
        let company = &config.branding.company_name;
        let mail = Mail {
            id: self.ids.next(IdKind::Email),
            to: vec![to.to_string()],
            created_at: now,
            ..Mail::default()
        };
        let content = Content {
            subject: format!("Test mail of {company}"),
            html: String::new(),
            text: format!(
                "This is a test of the mail settings of {company}.\nThat you can read it means that they work.\n"
            ),
        };
        let signers = Signers::default().of(config).map_err(|wrong| Error::field("settings", wrong))?;
        let composed = compose::compose(&mail, &content, &[], &[], config, &signers.1, now)
            .map_err(|wrong| Error::field("settings", wrong))?;
        Ok(Message {
            from: composed.from,
            to: vec![to.email.to_string()],
            content: composed.content,
            urgent: true,
        })
    }
}
