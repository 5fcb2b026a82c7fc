use mail_parser::{MessageParser, MimeHeaders};
use proptest::prelude::*;

use super::*;
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
        from_address: "From@Example.com".into(),
        from_name: "Ex \r\nample, Inc.".into(),
        branding,
    }
}

fn mail() -> Mail {
    let to = vec!["Jo <jo@example.com>".to_owned()];
    Mail { id: "em_1".into(), to, created_at: Timestamp::from_parts(1_790_000_000, 0), ..Mail::default() }
}

fn content() -> Content {
    Content { subject: "S".into(), html: "<p>H</p>".into(), text: "T".into() }
}

fn written(mail: &Mail, content: &Content, files: &[(Attachment, Bytes)]) -> String {
    let composed = compose(mail, content, files, &[], &config(), &[], Timestamp::default()).unwrap();
    assert_eq!(composed.from, "From@example.com");
    String::from_utf8(composed.content.to_vec()).unwrap()
}

fn file(filename: &str, content_type: &str, content_id: &str, bytes: &'static [u8]) -> (Attachment, Bytes) {
    let attachment = Attachment {
        filename: filename.into(),
        content_type: content_type.into(),
        content_id: content_id.into(),
        size: bytes.len() as u64,
        blob_id: String::new(),
    };
    (attachment, Bytes::from_static(bytes))
}

fn assert_safe(bytes: &[u8]) -> Result<(), TestCaseError> {
    prop_assert!(bytes.is_ascii() && bytes.ends_with(b"\r\n"));
    for (at, pair) in bytes.windows(2).enumerate() {
        prop_assert!(pair[1] != b'\n' || pair[0] == b'\r', "a bare LF at {}", at);
        prop_assert!(pair[0] != b'\r' || pair[1] == b'\n', "a bare CR at {}", at);
    }
    prop_assert!(bytes.split(|byte| *byte == b'\n').all(|line| line.len() <= 999));
    Ok(())
}

#[test]
fn a_mail_of_two_bodies_is_written_in_one_form() {
    let mut mail = mail();
    mail.cc = vec!["\"Doe, Sam\" <Sam@Example.com>".into(), "Zoë <zoe@bücher.example>".into()];
    mail.bcc = vec!["hidden@example.com".into()];
    mail.reply_to = "desk@example.com".into();
    mail.options.headers.insert("X-Ticket".into(), "42".into());
    insta::assert_snapshot!(written(&mail, &content(), &[]).replace("\r\n", "\n"), @r#"
    Date: Mon, 21 Sep 2026 14:13:20 +0000
    From: "Ex   ample, Inc." <From@example.com>
    To: Jo <jo@example.com>
    Cc: "Doe, Sam" <Sam@example.com>,
     =?utf-8?B?Wm/Dqw==?= <zoe@xn--bcher-kva.example>
    Reply-To: desk@example.com
    Subject: S
    Message-ID: <em_1@example.com>
    X-Ticket: 42
    MIME-Version: 1.0
    Content-Type: multipart/alternative;
     boundary="=_em1_alt"

    --=_em1_alt
    Content-Type: text/plain; charset=utf-8
    Content-Transfer-Encoding: 7bit

    T
    --=_em1_alt
    Content-Type: text/html; charset=utf-8
    Content-Transfer-Encoding: 7bit

    <p>H</p>
    --=_em1_alt--
    "#);
    mail.to.clear();
    mail.cc.clear();
    assert!(written(&mail, &content(), &[]).contains("\r\nTo: undisclosed-recipients:;\r\n"));
}

#[test]
fn files_and_pictures_are_where_programs_look_for_them() {
    let files = [
        file("invoice.pdf", "application/pdf", "", b"%PDF"),
        file("logo.png", "image/png", "logo@example.com", b"PNG"),
        file("Rechnung „neu“.txt", "text/plain; charset=utf-8", "", b"a\nb"),
    ];
    let text = written(&mail(), &content(), &files);
    let order = [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related; type=\"text/html\"",
        "text/html",
        "image/png",
        "Content-ID: <logo@example.com>",
        "application/pdf",
        "text/plain; charset=utf-8",
    ];
    let mut rest = text.as_str();
    for piece in order {
        rest = rest.split_once(piece).unwrap_or_else(|| panic!("{piece} is not in its place: {text}")).1;
    }
    let read = MessageParser::new().parse(text.as_bytes()).unwrap();
    let found: Vec<_> = read.attachments().map(|part| (part.attachment_name(), part.contents())).collect();
    assert_eq!(found[1], (Some("invoice.pdf"), &b"%PDF"[..]));
    assert_eq!(found[2], (Some("Rechnung „neu“.txt"), &b"a\nb"[..]));
    assert_eq!(found[0], (Some("logo.png"), &b"PNG"[..]));

    // Without HTML there is nothing to show a picture in.
    let plain = written(&mail(), &Content { html: String::new(), ..content() }, &files[1..2]);
    assert!(plain.contains("multipart/mixed") && !plain.contains("multipart/related"), "{plain}");
}

#[test]
fn what_can_not_be_sent_is_an_error() {
    let compose =
        |mail: &Mail, files: &[(Attachment, Bytes)], extra: &[(String, String)], config: &EmailConfig| {
            compose(mail, &content(), files, extra, config, &[], Timestamp::default())
        };
    let none: &[(String, String)] = &[];
    assert!(compose(&mail(), &[], none, &EmailConfig { from_address: "nobody".into(), ..config() }).is_err());
    assert!(compose(&Mail { to: vec!["nobody".into()], ..mail() }, &[], none, &config()).is_err());
    let mut forged = mail();
    forged.options.headers.insert("Bcc".into(), "x@example.com".into());
    assert!(compose(&forged, &[], none, &config()).is_err());
    assert!(compose(&mail(), &[], &[("A: b\r\nC".into(), "d".into())], &config()).is_err());
    for bad in [
        file("a/b", "text/plain", "", b""),
        file("a", "text/plain\r\nX: y", "", b""),
        file("a", "multipart/mixed", "", b""),
        file("a", "image/png", "a>\r\nX: y", b""),
    ] {
        assert!(compose(&mail(), std::slice::from_ref(&bad), none, &config()).is_err(), "{bad:?}");
    }
    let unsubscribe = ("List-Unsubscribe".to_owned(), format!("<https://example.com/{}>", "t".repeat(200)));
    let composed = compose(&mail(), &[], std::slice::from_ref(&unsubscribe), &config()).unwrap();
    let text = String::from_utf8(composed.content.to_vec()).unwrap();
    assert!(text.contains(&format!("\r\nList-Unsubscribe: {}\r\n", unsubscribe.1)), "{text}");
}

proptest! {
    #[test]
    fn nothing_that_a_caller_writes_reaches_the_wire_raw(
        subject in "(?s).{0,60}",
        text in "(?s)(.|\r|\n|\r\n|\n\\.\n|\r\n\\.\r\n|--=_em1_alt){0,60}",
        html in "(?s)(.|\r|\n|\r\n\\.\r\n|--=_em1_alt--\r\n){0,60}",
        from_name in "(?s).{0,30}",
        header in "(?s).{0,60}",
        name in "(?s).{1,40}",
    ) {
        let mut mail = mail();
        if check_header("X-A", &header).is_ok() {
            mail.options.headers.insert("X-A".into(), header);
        }
        let parts = usize::from(!text.is_empty()) + usize::from(!html.is_empty());
        let content = Content { subject, html, text };
        let mut files = Vec::new();
        if check_filename(&name).is_ok() {
            files.push(file(&name, "application/pdf", "", b"1"));
        }
        let config = EmailConfig { from_name, ..config() };
        let composed = compose(&mail, &content, &files, &[], &config, &[], Timestamp::default()).unwrap();
        assert_safe(&composed.content)?;
        let read = MessageParser::new().parse(&composed.content[..]).unwrap();
        prop_assert_eq!(read.attachment_count(), files.len());
        prop_assert_eq!(read.text_body_count().max(read.html_body_count()), 1);
        // Multiparts, bodies and files: nothing that a body says adds another.
        let bodies = parts.max(1);
        let multiparts = usize::from(bodies == 2) + files.len();
        prop_assert_eq!(read.parts.len(), bodies + files.len() + multiparts);
        prop_assert_eq!(read.headers().len(), 7 + mail.options.headers.len() + usize::from(multiparts == 0));
    }
}
