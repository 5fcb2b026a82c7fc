//! From a mail to the message on the wire.
//!
//! Every line end is brought to CRLF before the message is built: the transport doubles the dots at the start of lines, and
//! takes only CRLF for the end of one (RUSTSEC-2026-0561).  A mail has no bare CR or LF, whatever the caller wrote.

use lettre::message::header::ContentType;
use lettre::message::{Body, Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};

use super::address;
use super::config::EmailConfig;
use super::model::{Content, Mail};

/// Builds the message.
///
/// # Errors
/// What can not be sent, in words.
pub fn message(mail: &Mail, content: &Content, config: &EmailConfig) -> Result<Message, String> {
    let from = sender(config)?;
    let message_id = format!("<{}@{}>", mail.id, from.email.domain());
    let mut builder = Message::builder()
        .from(from)
        .subject(single_line(&content.subject))
        .message_id(Some(message_id))
        .date(
            std::time::SystemTime::UNIX_EPOCH
                + std::time::Duration::from_micros(mail.created_at.micros().unsigned_abs()),
        );
    for to in &mail.to {
        builder = builder.to(address::parse(to)?);
    }
    for cc in &mail.cc {
        builder = builder.cc(address::parse(cc)?);
    }
    for bcc in &mail.bcc {
        builder = builder.bcc(address::parse(bcc)?);
    }
    if !mail.reply_to.is_empty() {
        builder = builder.reply_to(address::parse(&mail.reply_to)?);
    }
    let (text, html) =
        (part(&content.text, ContentType::TEXT_PLAIN), part(&content.html, ContentType::TEXT_HTML));
    let built = match (content.text.is_empty(), content.html.is_empty()) {
        (false, false) => builder.multipart(MultiPart::alternative().singlepart(text).singlepart(html)),
        (true, false) => builder.singlepart(html),
        (_, true) => builder.singlepart(text),
    };
    built.map_err(|error| format!("the mail can not be built: {error}"))
}

/// The sender that the settings name.
///
/// # Errors
/// When they name none that can be used.
pub fn sender(config: &EmailConfig) -> Result<Mailbox, String> {
    let address: Address = config
        .from_address
        .parse()
        .map_err(|_| "the setting email.from_address is not a mail address".to_owned())?;
    let name = (!config.from_name.is_empty()).then(|| single_line(&config.from_name));
    Ok(Mailbox::new(name, address))
}

fn part(body: &str, kind: ContentType) -> SinglePart {
    SinglePart::builder().header(kind).body(Body::new(with_crlf(body)))
}

/// A header's value: without anything that could end it.
fn single_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Every line end as CRLF.
fn with_crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::email::template::Branding;

    fn config() -> EmailConfig {
        let branding = Branding {
            company_name: "Example".into(),
            site_url: "https://example.com".into(),
            support_email: "support@example.com".into(),
            logo_url: None,
            colour: "#336699".into(),
        };
        EmailConfig {
            providers: Vec::new(),
            capture: false,
            dkim: Vec::new(),
            hourly_limit: 0,
            domain_limits: std::collections::HashMap::new(),
            public_url: String::new(),
            track_opens: false,
            track_clicks: false,
            from_address: "from@example.com".into(),
            from_name: "Ex \r\nample".into(),
            branding,
        }
    }

    fn mail() -> Mail {
        let to = vec!["Jo <jo@example.com>".to_owned()];
        Mail { id: "em_1".into(), to, created_at: Timestamp::from_micros(1), ..Mail::default() }
    }

    proptest! {
        #[test]
        fn nothing_that_a_caller_writes_reaches_the_wire_raw(
            subject in "(?s).{0,60}",
            text in "(?s)(.|\r|\n|\r\n|\n\\.\n|\r\n\\.\r\n){0,60}",
            html in "(?s)(.|\r|\n|\r\n\\.\r\n){0,60}",
        ) {
            let content = Content { subject, html, text };
            let bytes = message(&mail(), &content, &config()).unwrap().formatted();
            for (at, pair) in bytes.windows(2).enumerate() {
                prop_assert!(pair[1] != b'\n' || pair[0] == b'\r', "a bare LF at {}", at);
                prop_assert!(pair[0] != b'\r' || pair[1] == b'\n', "a bare CR at {}", at);
            }
        }
    }

    #[test]
    fn the_message_id_is_the_same_on_every_attempt_and_hidden_recipients_are_hidden() {
        let mut mail = mail();
        mail.bcc = vec!["hidden@example.com".into()];
        let content = Content { subject: "S".into(), html: "<p>H</p>".into(), text: "T".into() };
        let one = message(&mail, &content, &config()).unwrap();
        let text = String::from_utf8(one.formatted()).unwrap();
        assert!(text.contains("Message-ID: <em_1@example.com>"), "{text}");
        assert!(text.contains("multipart/alternative") && !text.contains("hidden@"), "{text}");
        assert_eq!(one.envelope().to().len(), 2);
    }
}
