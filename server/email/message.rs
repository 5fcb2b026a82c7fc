//! From a mail to what goes out: rendered, with links for its recipient, composed and signed.

use std::sync::Arc;

use bytes::Bytes;

use super::compose::{self, Composed};
use super::config::EmailConfig;
use super::dkim::{Signer, Signers};
use super::library::{Extras, Library};
use super::links::{self, Links};
use super::model::{Attachment, Content, Mail};
use super::template::{RenderError, Rendered};
use super::{address, inline, text};
use crate::clock::Timestamp;
use crate::delivery::Outcome;

/// Makes messages.
pub struct Composer {
    library: Arc<Library>,
    links: Links,
    signers: Signers,
}

/// A mail as its recipients see it, with the headers that the server adds.
pub(super) struct Written {
    pub content: Content,
    pub headers: Vec<(String, String)>,
}

impl Composer {
    /// One that takes texts from this library and signs links with this key.
    pub fn new(library: Arc<Library>, links: Links) -> Self {
        Self { library, links, signers: Signers::default() }
    }

    /// Renders a mail.
    ///
    /// # Errors
    /// When its template can not be rendered.
    pub(super) fn write(&self, mail: &Mail, config: &EmailConfig) -> Result<Written, RenderError> {
        let links = self.links.at(&config.public_url);
        // A link knows who follows it only where nobody else has the same mail.
        let mut recipients = mail.recipients().filter_map(address::suppression_key);
        let alone = recipients.next().filter(|_| recipients.next().is_none() && links.are_reachable());
        let unsubscribe = match &alone {
            Some(address) if !mail.options.topic.is_empty() => {
                Some(links.unsubscribe_url(&mail.id, address, &mail.options.topic))
            }
            _ => None,
        };
        let mut content = self.content(mail, config, unsubscribe.as_deref())?;
        if content.text.is_empty() {
            content.text = text::from_html(&content.html);
        }
        if let Some(address) = alone.filter(|_| !mail.options.without_tracking) {
            if config.track_clicks {
                content.html = links::rewrite_links(&content.html, &links, &mail.id, &address);
            }
            if config.track_opens {
                content.html = links::add_open_picture(&content.html, &links.open_url(&mail.id, &address));
            }
        }
        let headers = unsubscribe.map(|url| links::list_unsubscribe_headers(&url).to_vec());
        Ok(Written { content, headers: headers.unwrap_or_default() })
    }

    fn content(
        &self,
        mail: &Mail,
        config: &EmailConfig,
        unsubscribe_url: Option<&str>,
    ) -> Result<Content, RenderError> {
        let options = &mail.options;
        if mail.template.is_empty() {
            let styled = styled(&mail.html_body);
            let html = if mail.html_body.is_empty() {
                String::new()
            } else {
                inline::with_preheader(&styled, &options.preheader)
            };
            return Ok(Content { subject: mail.subject.clone(), html, text: mail.plain_body.clone() });
        }
        let extras = Extras { preheader: &options.preheader, unsubscribe_url };
        let Rendered { subject, html, text } = self.library.render(
            &mail.template,
            &options.locale,
            &mail.variables,
            &config.branding,
            &extras,
        )?;
        let html = match inline::inline_css(&html) {
            Ok(std::borrow::Cow::Owned(styled)) => styled,
            // Styles that can not be moved stay where they are.
            Ok(std::borrow::Cow::Borrowed(_)) | Err(_) => html,
        };
        Ok(Content { subject, html, text })
    }

    /// Composes and signs what was written.
    ///
    /// # Errors
    /// What it means for the attempt, and why.
    pub(super) async fn compose(
        &self,
        mail: &Arc<Mail>,
        written: Written,
        files: Vec<(Attachment, Bytes)>,
        config: &Arc<EmailConfig>,
        now: Timestamp,
    ) -> Result<Composed, (Outcome, String)> {
        // Settings can be mended.
        let later = |error| (Outcome::Retry { after: None }, error);
        compose::sender(config).map_err(later)?;
        let signers = self.signers.of(config).map_err(later)?;
        let slow = signers.1.iter().any(Signer::is_slow);
        let (mail, config) = (Arc::clone(mail), Arc::clone(config));
        let compose = move || {
            let Written { content, headers } = written;
            compose::compose(&mail, &content, &files, &headers, &config, &signers.1, now)
        };
        let composed = if slow {
            // RSA would hold up everything else that this thread carries.
            tokio::task::spawn_blocking(compose).await.unwrap_or_else(|error| Err(error.to_string()))
        } else {
            compose()
        };
        composed.map_err(|error| (Outcome::Refused, error))
    }
}

fn styled(html: &str) -> std::borrow::Cow<'_, str> {
    inline::inline_css(html).unwrap_or(std::borrow::Cow::Borrowed(html))
}
