//! Requests about mail.

use std::collections::HashMap;

use mail_parser::MessageParser;

use super::{NewEmail, address, pb};
use crate::clock::Timestamp;
use crate::email::compose::compose;
use crate::email::config::EmailConfig;
use crate::email::intake::Arrival;
use crate::email::library;
use crate::email::model::Content;
use crate::email::recipient;
use crate::email::template::Branding;
use crate::error::Violations;
use crate::fuzz::wire::{choose, decode, decode_as};
use crate::rpc::convert::{from_json, json};

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn config() -> EmailConfig {
    let branding = Branding {
        company_name: "Example".into(),
        site_url: "https://example.com".into(),
        support_email: "help@example.com".into(),
        logo_url: None,
        colour: "#336699".into(),
    };
    EmailConfig {
        providers: Vec::new(),
        capture: false,
        from_address: "desk@example.com".into(),
        from_name: "Desk".into(),
        branding,
        dkim: Vec::new(),
        hourly_limit: 0,
        domain_limits: HashMap::new(),
        public_url: String::new(),
        track_opens: false,
        track_clicks: false,
    }
}

fn send(request: pb::SendEmailRequest) {
    let id = "em_01jd0000000000000000000000".to_owned();
    let Ok(Arrival { mail, files, .. }) = NewEmail::from(request).check(id, NOW, |_| Ok(())) else { return };
    assert!((1..=50).contains(&mail.recipients().count()));
    let reply_to = Some(mail.reply_to.as_str()).filter(|text| !text.is_empty());
    for recipient in mail.recipients().chain(reply_to) {
        let read = address::parse(recipient).expect("a recipient is an address");
        assert_eq!(read.to_string(), recipient, "it is kept in its one written form");
    }
    assert!(mail.options.headers.len() <= 50 && mail.attachments.len() <= 50);
    let subject = if mail.template.is_empty() { mail.subject.clone() } else { "s".into() };
    let nothing = mail.html_body.is_empty() && mail.plain_body.is_empty();
    let text = if nothing { "t".into() } else { mail.plain_body.clone() };
    let content = Content { subject, html: mail.html_body.clone(), text };
    let with_content = |file: &crate::email::model::Attachment| {
        let found = files.iter().find(|(id, _)| *id == file.blob_id);
        (file.clone(), found.expect("its content is there").1.clone())
    };
    let files: Vec<_> = mail.attachments.iter().map(with_content).collect();
    let composed = compose(&mail, &content, &files, &[], &config(), &[], NOW);
    let composed = composed.unwrap_or_else(|wrong| panic!("what was accepted can not be written: {wrong}"));
    let raw = &composed.content[..];
    let is_line_end = |at: usize| raw[at] != b'\n' || (at > 0 && raw[at - 1] == b'\r');
    assert!((0..raw.len()).all(is_line_end), "a line ends in a bare LF");
    assert!(raw.windows(2).all(|two| two[0] != b'\r' || two[1] == b'\n'), "a CR stands alone");
    assert!(raw.split(|byte| *byte == b'\n').all(|line| line.len() <= 999), "a line is too long");
    let parsed = MessageParser::default().parse(raw).expect("it is a mail");
    let names: Vec<String> =
        parsed.headers().iter().map(|header| header.name().to_ascii_lowercase()).collect();
    for name in ["bcc", "sender", "return-path", "resent-to"] {
        let asked_for = mail.options.headers.keys().any(|asked| asked.eq_ignore_ascii_case(name));
        assert!(asked_for || !names.iter().any(|one| one == name), "a header {name} was not asked for");
    }
    for name in ["from", "to", "subject", "message-id", "date", "mime-version"] {
        assert!(names.iter().filter(|one| *one == name).count() <= 1, "{name} stands there twice");
    }
}

fn template(template: pb::Template) {
    let variables = library::rpc::variables(template.variables);
    let mut violations = Violations::default();
    library::check_declaration(&template.description, &variables, &mut violations);
    if violations.finish().is_ok() {
        assert!(variables.len() <= 100);
        assert!(variables.iter().all(|variable| (1..=64).contains(&variable.name.len())));
    }
}

/// A request, and which one it is.
pub fn email_requests(data: &[u8]) {
    let Some((which, message)) = choose(data, 8) else { return };
    match which {
        0 | 1 => decode(message).into_iter().for_each(send),
        2 => {
            if let Some(batch) = decode::<pb::BatchSendEmailsRequest>(message) {
                batch.emails.into_iter().take(20).for_each(send);
            }
        }
        3 => {
            if let Some(pb::CreateTemplateRequest { template: Some(new) }) = decode(message) {
                template(new);
            }
        }
        4 => {
            if let Some(pb::CreateRecipientListRequest { recipient_list: Some(list) }) = decode(message) {
                recipient::fuzz(list.description, list.addresses);
            }
        }
        5 => {
            if let Some(pb::PreviewTemplateRequest { variables: Some(values), .. }) = decode(message) {
                // What comes as numbers that are none is nothing, and the rest stays what it is.
                let read = json(values);
                assert_eq!(json(from_json(read.clone())), read);
            }
        }
        _ => decode_as!(message;
            GetEmailRequest ListEmailsRequest GetEmailStatsRequest CancelEmailRequest RetryEmailRequest
            RetryFailedEmailsRequest TestSmtpRequest ReportBounceRequest CreateSuppressionRequest
            GetSuppressionRequest ListSuppressionsRequest UpdateSuppressionRequest DeleteSuppressionRequest
            ListTemplatesRequest GetTemplateRequest UpdateTemplateRequest DeleteTemplateRequest
            ListTemplateVersionsRequest RollbackTemplateRequest GetRecipientListRequest
            ListRecipientListsRequest UpdateRecipientListRequest DeleteRecipientListRequest
        ),
    }
}
