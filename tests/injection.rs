//! Injection: whatever somebody writes into a field that reaches a header or a page is refused, or arrives as text.
//!
//! What arrives is read by Python's `email` package, which shares nothing with what wrote it: many mails at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use switchboard::clock::Timestamp;
use switchboard::email::EmailConfig;
use switchboard::email::address;
use switchboard::email::compose::{
    check_content_id, check_content_type, check_filename, check_header, compose,
};
use switchboard::email::inline::with_preheader;
use switchboard::email::model::{Attachment, Content, Mail};
use switchboard::email::template::{self, Branding};
use switchboard::rpc::convert::from_json;
use switchboard_client::email::v1::{EmailAttachment, SendEmailRequest};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::server::Server;
use crate::harness::smtp::SmtpSink;
use crate::harness::tools::{run, tool};
use crate::harness::{SOON, on_both};
use crate::settings::{change, set};

/// What comes between the innocent and the evil part of a payload.
const BREAKS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\n\r",
    "\r\r\n",
    "\r\n\r\n",
    "\n\n",
    "\r\n ",
    "\r\n\t",
    "\0",
    "\0\r\n",
    "\u{b}",
    "\u{c}",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "%0d%0a",
    "\\r\\n",
    "\u{560a}\u{560d}",
    "\u{10d}\u{10a}",
    "\u{1b}[2J",
    "\u{7f}",
];
/// What would do harm on a line of its own.
const EVILS: &[&str] = &[
    "Bcc: evil@example.net",
    "X-Evil: 1",
    "Content-Type: text/html\r\n\r\n<script>alert(1)</script>",
    ".\r\nMAIL FROM:<evil@example.net>\r\nRCPT TO:<evil@example.net>\r\nDATA\r\nSubject: evil\r\n\r\n.\r\n",
];
/// What does harm in its own way.
const OTHERS: &[&str] = &[
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</title><script>alert(1)</script>",
    "\"><script>alert(1)</script>",
    "'><img src=x>",
    "<!--<script>-->",
    "--></div><script>",
    "<scr<script>ipt>",
    "\u{ff1c}script\u{ff1e}",
    "&lt;script&gt;",
    "&#60;script&#62;",
    "javascript:alert(1)",
    "{{7*7}}",
    "{% for x in range(9) %}<script>{% endfor %}",
    "{{ self }}",
    "${7*7}",
    "=?utf-8?q?evil=0D=0ABcc:_evil@example.net?=",
    "=?utf-8?b?ZXZpbA0KQmNjOiBldmlsQGV4YW1wbGUubmV0?=",
    "=?utf-8?q?=00?=",
    "=?utf-8?q?unfinished",
    "=?x-unknown?b?AAAA?=",
    "a, evil@example.net",
    "a; evil@example.net",
    "a <evil@example.net>",
    "a <evil@example.net>, b",
    "\"a\" <evil@example.net>, \"b",
    "\\\" <evil@example.net>, \\\"",
    "\\",
    "\"",
    "a\\\"b",
    "(comment",
    "a) <evil@example.net>",
    "group: evil@example.net;",
    "undisclosed-recipients:;",
    "@evil.example.net:a",
    ": Bcc: evil@example.net",
    "; boundary=evil",
    "\"; boundary=\"evil",
    "; name=\"evil.html\"",
    "evil.html\"; filename=\"evil2.html",
    "../../etc/passwd",
    "..\\..\\evil.exe",
    "evil.pdf\u{202e}fdp.exe",
    "multipart/mixed; boundary=x",
    "message/rfc822",
    "text/html",
    "--=_em_alt--",
    "--boundary",
    "From evil",
    ".",
    "..",
    "Bcc",
    "Content-Transfer-Encoding",
    "DKIM-Signature",
    "List-Unsubscribe",
    "Resent-Bcc",
    "Bcc:",
    "Bcc ",
    "*",
    "en-US\r\nBcc: evil@example.net",
    "../templates",
    "topic/../../evil",
    "\u{1f4a9}\u{200d}\u{feff}",
    "e\u{301}\u{301}\u{301}\u{301}",
];

/// Every payload: more than a hundred.
fn payloads() -> Vec<String> {
    let mut all: Vec<String> = OTHERS.iter().map(|&text| text.to_owned()).collect();
    for (number, line_end) in BREAKS.iter().enumerate() {
        for evil in [EVILS[0], EVILS[1 + number % (EVILS.len() - 1)]] {
            all.push(format!("innocent{line_end}{evil}"));
        }
    }
    all.extend(["\r\n".repeat(100), "a".repeat(2_000), "ä".repeat(600), "=?".repeat(100), "<".repeat(500)]);
    assert!(all.len() >= 100, "{} payloads", all.len());
    all
}

/// Headers that every mail has, once.
const ALWAYS: &[&str] = &["date", "from", "to", "subject", "message-id", "mime-version", "content-type"];

/// What a mail has to look like.
#[derive(Debug, Default, Clone)]
struct Expected {
    what: String,
    /// Headers beside those of every mail, in lower case.
    headers: BTreeSet<String>,
    recipients: Vec<String>,
    /// Media types of the parts.
    parts: Vec<String>,
}

/// Has Python read the mails, and compares each with what it has to look like.
async fn assert_clean(mails: &[(Expected, Vec<u8>)]) {
    let raw: Vec<_> = mails.iter().map(|(_, raw)| json!({"raw": STANDARD.encode(raw)})).collect();
    let input = Value::Array(raw).to_string();
    let said = run(tool("python"), [tool("mail_many.py")], input.as_bytes()).await.expect_success();
    let read: Vec<Value> = serde_json::from_str(&said).unwrap();
    assert_eq!(read.len(), mails.len());
    for ((expected, raw), read) in mails.iter().zip(&read) {
        let show = || format!("{:?}\n{expected:?}\n{read}\n{}", expected.what, String::from_utf8_lossy(raw));
        let list = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let mut names: Vec<_> = read["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|header| header[0].as_str().unwrap().to_ascii_lowercase())
            .collect();
        let mut due: Vec<_> =
            expected.headers.iter().cloned().chain(ALWAYS.iter().map(|&name| name.to_owned())).collect();
        due.sort();
        names.sort();
        assert_eq!(names, due, "other headers: {}", show());
        assert_eq!(read["controls"], json!([]), "control characters: {}", show());
        let recipients: BTreeSet<_> = list(&read["recipients"]).into_iter().collect();
        let due: BTreeSet<_> = expected.recipients.iter().cloned().collect();
        assert_eq!(recipients, due, "other recipients: {}", show());
        let parts = read["parts"].as_array().unwrap();
        let kinds: Vec<_> = parts.iter().map(|part| part["type"].as_str().unwrap().to_owned()).collect();
        assert_eq!(kinds, expected.parts, "other parts: {}", show());
        for part in parts.iter().filter(|part| part["type"] == "text/html" && part["filename"] == "") {
            let html = part["text"].as_str().unwrap().to_ascii_lowercase();
            for tag in ["<script", "<img", "<scr<"] {
                assert!(!html.contains(tag), "a tag: {}", show());
            }
        }
        let raw = String::from_utf8_lossy(raw);
        assert!(
            !raw.contains("\nMAIL FROM:") && !raw.contains("\n.\n") && !raw.contains("\n.\r\n"),
            "{}",
            show()
        );
    }
}

fn config(from_name: &str) -> EmailConfig {
    let branding = Branding {
        company_name: from_name.into(),
        site_url: "https://example.com".into(),
        support_email: "support@example.com".into(),
        logo_url: None,
        colour: "#336699".into(),
    };
    EmailConfig {
        providers: Vec::new(),
        capture: false,
        from_address: "desk@example.com".into(),
        from_name: from_name.into(),
        branding,
        dkim: Vec::new(),
        hourly_limit: 0,
        domain_limits: HashMap::new(),
        public_url: String::new(),
        track_opens: false,
        track_clicks: false,
    }
}

/// The variables of a ticket, with the payload wherever text can be.
fn ticket(payload: &str) -> Value {
    json!({"ticket_id": 42, "ticket_title": payload, "user_name": payload, "description": payload, "priority": payload})
}

/// An address whose name, or whose self, is the payload.
fn addresses(payload: &str) -> [String; 4] {
    let escaped = payload.replace('\\', "\\\\").replace('"', "\\\"");
    [
        format!("\"{escaped}\" <jo@example.com>"),
        format!("{payload} <sam@example.com>"),
        format!("{payload}@example.com"),
        format!("kim@{payload}"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_composed_of_any_text_is_one_clean_mail() {
    let mut mails = Vec::new();
    let mut refused = BTreeMap::<&str, usize>::new();
    for (number, payload) in payloads().iter().enumerate() {
        let mut expected = Expected { what: payload.clone(), ..Expected::default() };
        let mut note = |field: &'static str, result: Result<(), String>| {
            *refused.entry(field).or_default() += usize::from(result.is_err());
            result.is_ok()
        };
        let mut mail =
            Mail { id: format!("em_{number}"), to: vec!["first@example.com".into()], ..Mail::default() };
        for text in addresses(payload) {
            let parsed = address::parse(&text);
            if note("address", parsed.as_ref().map(drop).map_err(Clone::clone)) {
                mail.to.push(parsed.as_ref().unwrap().to_string());
                mail.cc.push(parsed.as_ref().unwrap().to_string());
                mail.reply_to = parsed.unwrap().to_string();
                expected.headers.extend(["cc".into(), "reply-to".into()]);
            }
        }
        expected.recipients =
            mail.to.iter().chain(&mail.cc).filter_map(|text| address::envelope_address(text)).collect();
        if note("header name", check_header(payload, "1")) {
            mail.options.headers.insert(payload.clone(), "1".into());
            expected.headers.insert(payload.to_ascii_lowercase());
        }
        if note("header value", check_header("X-Test", payload)) {
            mail.options.headers.insert("X-Test".into(), payload.clone());
            expected.headers.insert("x-test".into());
        }
        let mut files = Vec::new();
        let mut file = |filename: &str, content_type: &str, content_id: &str| {
            let attachment = Attachment {
                filename: filename.into(),
                content_type: content_type.into(),
                content_id: content_id.into(),
                size: 1,
                blob_id: String::new(),
            };
            files.push((attachment, bytes::Bytes::from_static(b"x")));
        };
        expected.parts = vec!["text/plain".into(), "text/html".into()];
        if note("content id", check_content_id(payload)) {
            file("a.png", "image/png", payload);
            expected.parts.push("image/png".into());
        }
        if note("file name", check_filename(payload)) {
            file(payload, "application/pdf", "");
            expected.parts.push("application/pdf".into());
        }
        if note("content type", check_content_type(payload)) {
            file("a", payload, "");
            expected.parts.push(payload.to_ascii_lowercase());
        }
        let config = config(payload);
        let ticket = ticket(payload);
        // A template may refuse a variable.
        let content = match template::render("ticket_created", ticket.as_object().unwrap(), &config.branding)
        {
            Ok(rendered) => Content { subject: rendered.subject, html: rendered.html, text: rendered.text },
            Err(_) => Content { subject: payload.clone(), html: "<p>H".into(), text: "T".into() },
        };
        let content = Content { html: with_preheader(&content.html, payload), ..content };
        for content in [content.clone(), Content { subject: payload.clone(), ..content }] {
            let composed =
                compose(&mail, &content, &files, &[], &config, &[], Timestamp::from_micros(1)).unwrap();
            mails.push((expected.clone(), composed.content.to_vec()));
        }
    }
    assert!(mails.len() >= 200);
    assert!(
        refused.values().all(|count| *count > 20),
        "every field refuses what it can not carry: {refused:?}"
    );
    let (one, other) = mails.split_at(mails.len() / 2);
    tokio::join!(assert_clean(one), assert_clean(other));
}

/// A request with the payload in every field that takes text.
fn request(payload: &str, with_template: bool) -> SendEmailRequest {
    let [named, bare_name, local, domain] = addresses(payload);
    let attachment = |filename: &str, content_type: &str, content_id: &str| EmailAttachment {
        filename: filename.into(),
        content_type: content_type.into(),
        content: b"x".to_vec(),
        content_id: content_id.into(),
        ..Default::default()
    };
    let request = SendEmailRequest {
        to: vec!["first@example.com".into(), named.clone(), bare_name.clone(), local.clone(), domain.clone()],
        // Others than in `to`: an address gets a mail once.
        cc: [&named, &bare_name, &local, &domain]
            .map(|text| text.replace("@example.com", "@copy.example.com").replace("kim@", "lee@"))
            .into(),
        reply_to: named,
        headers: HashMap::from([
            (payload.to_owned(), "1".to_owned()),
            ("X-Test".to_owned(), payload.to_owned()),
        ]),
        attachments: vec![
            attachment("a.png", "image/png", payload),
            attachment(payload, "application/pdf", ""),
            attachment("a", payload, ""),
        ],
        preheader: payload.to_owned(),
        topic: payload.to_owned(),
        ..Default::default()
    };
    if with_template {
        let Value::Object(variables) = ticket(payload) else { unreachable!() };
        let (template, variables) = ("ticket_created".to_owned(), Some(from_json(variables)));
        return SendEmailRequest { template, variables, locale: payload.to_owned(), ..request };
    }
    let (html_body, plain_body) = ("<p>Hello.</p>".to_owned(), "Hello.".to_owned());
    SendEmailRequest { subject: payload.to_owned(), html_body, plain_body, ..request }
}

/// Takes what was refused out of a request; answers whether anything was.
fn without(request: &mut SendEmailRequest, field: &str) -> bool {
    let index = || field.split(['[', ']']).nth(1).and_then(|index| index.parse::<usize>().ok());
    let remove = |list: &mut Vec<String>| match index() {
        Some(index) if index < list.len() => {
            list[index].clear();
            true
        }
        _ => false,
    };
    match field.split(['[', '.']).next().unwrap() {
        "to" => remove(&mut request.to),
        "cc" => remove(&mut request.cc),
        "reply_to" => !std::mem::take(&mut request.reply_to).is_empty(),
        "subject" => std::mem::replace(&mut request.subject, "Safe".into()) != "Safe",
        "headers" => {
            let key =
                field.strip_prefix("headers[").and_then(|rest| rest.strip_suffix(']')).map(ToOwned::to_owned);
            match key.filter(|key| request.headers.contains_key(key)) {
                Some(key) => request.headers.remove(&key).is_some(),
                None => !std::mem::take(&mut request.headers).is_empty(),
            }
        }
        "attachments" => match index().filter(|index| *index < request.attachments.len()) {
            Some(index) => {
                request.attachments[index].filename.clear();
                request.attachments[index].content.clear();
                true
            }
            None => !std::mem::take(&mut request.attachments).is_empty(),
        },
        "preheader" => !std::mem::take(&mut request.preheader).is_empty(),
        "topic" => !std::mem::take(&mut request.topic).is_empty(),
        "locale" => !std::mem::take(&mut request.locale).is_empty(),
        "variables" => {
            let safe = json!({"ticket_id": 42, "ticket_title": "Safe"});
            let safe = safe.as_object().map(|safe| from_json(safe.clone()));
            std::mem::replace(&mut request.variables, safe.clone()) != safe
        }
        _ => false,
    }
}

/// Sends a request, without whatever of it is refused; answers the mail's id and what it has to look like.
async fn send(server: &Server, mut request: SendEmailRequest) -> (String, Expected) {
    let payload = request.preheader.clone();
    // One-click unsubscribe is for one recipient, and needs an address that this server is reached at.
    request.topic.clear();
    for _ in 0..10 {
        let refused = match server.client.emails().send_email(request.clone()).await {
            Ok(sent) => return (sent.into_inner().email_id, expected(&request, payload)),
            Err(refused) => refused,
        };
        assert_eq!(refused.code(), Code::InvalidArgument, "{payload:?}: {refused:?}");
        let details = refused.get_error_details();
        let violations = &details.bad_request().expect("the fields").field_violations;
        let mut changed = false;
        for violation in violations {
            changed |= without(&mut request, &violation.field);
        }
        assert!(changed, "{payload:?} is refused for what is not in it: {violations:?}");
        request.to.retain(|text| !text.is_empty());
        request.cc.retain(|text| !text.is_empty());
        request.attachments.retain(|file| !file.content.is_empty());
    }
    panic!("{payload:?} is refused again and again");
}

fn expected(request: &SendEmailRequest, what: String) -> Expected {
    let mut headers: BTreeSet<_> = request.headers.keys().map(|name| name.to_ascii_lowercase()).collect();
    headers.extend((!request.cc.is_empty()).then(|| "cc".to_owned()));
    headers.extend((!request.reply_to.is_empty()).then(|| "reply-to".to_owned()));
    let recipients =
        request.to.iter().chain(&request.cc).filter_map(|text| address::envelope_address(text)).collect();
    let mut parts = vec!["text/plain".to_owned(), "text/html".to_owned()];
    let (inline, attached): (Vec<_>, Vec<_>) =
        request.attachments.iter().partition(|file| !file.content_id.is_empty());
    let kind = |file: &EmailAttachment| file.content_type.split(';').next().unwrap().to_ascii_lowercase();
    parts.extend(inline.into_iter().chain(attached).map(kind));
    Expected { what, headers, recipients, parts }
}

on_both! {
    async fn nothing_is_injected_over_the_wire(server: Server) {
        let sink = SmtpSink::start().await;
        set(&server.client, json!({
            "email.smtp_host": "127.0.0.1", "email.smtp_port": sink.port(), "email.smtp_tls": "none", "email.hourly_limit": 0,
            "email.public_url": "https://mail.example.com",
        })).await;
        let mut sent = HashMap::new();
        for payload in payloads() {
            // Mails under way get the name that is set when they are sent: whichever it is, it has to be harmless.
            let named = server.client.settings().update_settings(change(&json!({"email.from_name": payload}))).await;
            if let Err(refused) = named {
                assert_eq!(refused.code(), Code::InvalidArgument, "{payload:?}: {refused:?}");
            }
            for with_template in [false, true] {
                let (id, expected) = send(&server, request(&payload, with_template)).await;
                sent.insert(format!("<{id}@example.com>"), expected);
            }
            // The topic and the locale on their own, because of what else they ask for.
            for field in ["topic", "locale"] {
                let mut request = SendEmailRequest { to: vec!["first@example.com".into()], ..request(&payload, true) };
                request.variables = json!({"ticket_id": 42, "ticket_title": "Safe"}).as_object().map(|safe| from_json(safe.clone()));
                (request.cc, request.reply_to, request.headers, request.attachments) = Default::default();
                request.preheader.clear();
                if field == "topic" { request.locale.clear() } else { request.topic.clear() }
                match server.client.emails().send_email(request.clone()).await {
                    Ok(answer) => {
                        let mut expected = expected(&request, payload.clone());
                        if field == "topic" {
                            expected.headers.extend(["list-unsubscribe".into(), "list-unsubscribe-post".into()]);
                        }
                        sent.insert(format!("<{}@example.com>", answer.into_inner().email_id), expected);
                    }
                    Err(refused) => assert_eq!(refused.code(), Code::InvalidArgument, "{field} {payload:?}: {refused:?}"),
                }
            }
        }
        let mails = sink.wait_for(sent.len(), 3 * SOON).await;
        assert_eq!(mails.len(), sent.len(), "no mail makes another");
        let mut pairs = Vec::new();
        for mail in mails {
            let id = mail.header("Message-ID").unwrap_or_default();
            let expected = sent.remove(&id).unwrap_or_else(|| panic!("{id} was not sent: {}", mail.raw));
            assert!(mail.mail_from.starts_with("<switchboard@example.com>"), "{mail:?}");
            let envelope: BTreeSet<_> = mail.rcpt_to.iter().map(|text| text.trim_matches(['<', '>']).to_owned()).collect();
            assert_eq!(envelope, expected.recipients.iter().cloned().collect(), "{expected:?}");
            pairs.push((expected, mail.raw.into_bytes()));
        }
        let (one, other) = pairs.split_at(pairs.len() / 2);
        tokio::join!(assert_clean(one), assert_clean(other));
    }
}
