use proptest::prelude::*;

use super::*;

const EMAIL: &str = "em_01jd0000000000000000000000";

/// A report of these parts, in a message of its own.
fn report(kind: &str, parts: &[(&str, &str)]) -> String {
    let mut text = format!(
        "From: MAILER-DAEMON@mx.example.net\r\nTo: switchboard@example.com\r\nSubject: Returned\r\n\
         Message-ID: <report-1@mx.example.net>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type={kind}; boundary=\"=_b\"\r\n\r\n"
    );
    for (content_type, body) in parts {
        text.push_str(&format!("--=_b\r\nContent-Type: {content_type}\r\n\r\n{body}\r\n"));
    }
    text + "--=_b--\r\n"
}

fn headers() -> String {
    format!(
        "Message-ID: <{EMAIL}@example.com>\r\nFrom: switchboard@example.com\r\nTo: Jo <jo@example.org>\r\nSubject: Hi\r\n"
    )
}

fn one(report: Report) -> Reported {
    assert_eq!(report.email_ids, [EMAIL]);
    let [one] = report.recipients.try_into().unwrap();
    one
}

#[test]
fn a_notification_with_the_headers_of_the_mail_is_read() {
    let status = "Reporting-MTA: dns; mx.example.net\r\nX-Queue-ID: 4F2\r\nArrival-Date: Mon, 1 Jun 2026 10:00:00 +0000\r\n\r\n\
        Final-Recipient: rfc822; jo@example.org\r\nOriginal-Recipient: rfc822;Jo@Example.org\r\nAction: failed\r\n\
        Status: 5.1.1\r\nRemote-MTA: dns; mail.example.org\r\n\
        Diagnostic-Code: smtp; 550 5.1.1 <jo@example.org>: Recipient address\r\n    rejected: not known here\r\n";
    let text = report(
        "delivery-status",
        &[
            ("text/plain; charset=us-ascii", "It could not be delivered."),
            ("message/delivery-status", status),
            ("text/rfc822-headers", &headers()),
        ],
    );
    let one = one(parse(text.as_bytes()).unwrap());
    assert_eq!(one.addresses, ["jo@example.org", "jo@example.org"]);
    assert_eq!((one.kind, one.status.as_str(), one.is_gone), (ActivityKind::Bounced, "5.1.1", true));
    assert_eq!(one.diagnostic, "550 5.1.1 <jo@example.org>: Recipient address rejected: not known here");
}

#[test]
fn a_notification_with_the_whole_mail_is_read() {
    let status = "Reporting-MTA: dns;BN01.mail.example.net\nReceived-From-MTA: dns;hub.example.net\n\n\
        Final-Recipient: RFC822;jo@example.org\nAction: failed\nStatus: 5.0.0\n\
        Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found by SMTP address lookup\n\
        X-Display-Name: Jo\n";
    let mail = headers() + "Content-Type: text/plain\r\n\r\nHello.\r\n";
    let text = report(
        "delivery-status",
        &[("text/html", "<p>No.</p>"), ("message/delivery-status", status), ("message/rfc822", &mail)],
    );
    let one = one(parse(text.as_bytes()).unwrap());
    assert_eq!((one.status.as_str(), one.is_gone), ("5.1.10", true));
}

#[test]
fn a_notification_that_only_replies_to_the_mail_is_read() {
    let status = "Reporting-MTA: dns; mx.example.net\n\nFinal-Recipient: rfc822; jo@example.org\nAction: failed\nStatus: 5.2.2\n\
        Diagnostic-Code: smtp; 552-5.2.2 The account is out of storage space.\n";
    let text = report("delivery-status", &[("message/delivery-status", status)]);
    let text = format!("In-Reply-To: <{EMAIL}@example.com>\r\n{text}");
    let one = one(parse(text.as_bytes()).unwrap());
    assert_eq!((one.status.as_str(), one.is_gone), ("5.2.2", false));
}

#[test]
fn a_notification_that_was_forwarded_is_read() {
    let status = "Final-Recipient: rfc822; jo@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n";
    let inner = report(
        "delivery-status",
        &[("message/delivery-status", status), ("text/rfc822-headers", &headers())],
    );
    let text = format!(
        "From: a@example.com\r\nContent-Type: multipart/mixed; boundary=outer\r\n\r\n--outer\r\n\r\nSee below.\r\n\
         --outer\r\nContent-Type: message/rfc822\r\n\r\n{inner}\r\n--outer--\r\n"
    );
    assert!(one(parse(text.as_bytes()).unwrap()).is_gone);
}

#[test]
fn only_what_failed_is_answered() {
    let status = "Reporting-MTA: dns; mx.example.net\r\n\r\n\
        Final-Recipient: rfc822; late@example.org\r\nAction: delayed\r\nStatus: 4.4.1\r\n\r\n\
        Final-Recipient: rfc822; well@example.org\r\nAction: delivered\r\nStatus: 2.0.0\r\n\r\n\
        Final-Recipient: rfc822; old@example.org\r\nAction: failed\r\nStatus: 4.4.7\r\n";
    let text = report(
        "delivery-status",
        &[("message/delivery-status", status), ("text/rfc822-headers", &headers())],
    );
    let one = one(parse(text.as_bytes()).unwrap());
    assert_eq!(
        (one.addresses[0].as_str(), one.status.as_str(), one.is_gone),
        ("old@example.org", "4.4.7", false)
    );
}

#[test]
fn complaints_are_read() {
    let abuse = "Feedback-Type: abuse\r\nUser-Agent: Loop/1.0\r\nVersion: 1\r\nOriginal-Rcpt-To: <jo@example.org>\r\n";
    let mail = headers() + "\r\nHello.\r\n";
    let text = report("feedback-report", &[("message/feedback-report", abuse), ("message/rfc822", &mail)]);
    let complaint = one(parse(text.as_bytes()).unwrap());
    assert_eq!(
        (complaint.kind, complaint.is_gone, complaint.diagnostic.as_str()),
        (ActivityKind::Complained, true, "abuse Loop/1.0")
    );
    assert_eq!(complaint.addresses, ["jo@example.org"]);

    let text = report(
        "feedback-report",
        &[("message/feedback-report", "Feedback-Type: abuse\r\nVersion: 1\r\n"), ("message/rfc822", &mail)],
    );
    assert_eq!(one(parse(text.as_bytes()).unwrap()).addresses, ["jo@example.org"], "from the mail itself");

    let text = report(
        "feedback-report",
        &[("message/feedback-report", "Feedback-Type: not-spam\r\n"), ("message/rfc822", &mail)],
    );
    assert_eq!(parse(text.as_bytes()).unwrap().recipients, []);
}

#[test]
fn what_is_no_report_is_refused() {
    let no_recipient = report(
        "delivery-status",
        &[("message/delivery-status", "Reporting-MTA: dns; x\r\n\r\nAction: failed\r\n")],
    );
    let no_type = report("feedback-report", &[("message/feedback-report", "Version: 1\r\n")]);
    for text in [
        "",
        "hello",
        "Subject: Hi\r\n\r\nFinal-Recipient: rfc822; jo@example.org\r\nAction: failed\r\n",
        &no_recipient,
        &no_type,
    ] {
        assert!(parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn a_message_that_nests_for_ever_is_refused() {
    for line in ["Content-Type: message/rfc822\r\n\r\n", "content-type:message/rfc822\n\n"] {
        assert!(parse(line.repeat(1_000_000 / line.len()).as_bytes()).is_err());
    }
    // As deep as is let through.
    assert!(parse("Content-Type: message/rfc822\r\n\r\n".repeat(PART_LIMIT).as_bytes()).is_err());
}

#[test]
fn a_report_that_names_many_mails_is_looked_up_for_a_few() {
    let ids: String = (0..1_000).map(|n| format!(" <em_{n:026}@example.com>\r\n")).collect();
    let status = "Final-Recipient: rfc822; jo@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n";
    let text =
        format!("References:{ids}{}", report("delivery-status", &[("message/delivery-status", status)]));
    assert_eq!(parse(text.as_bytes()).unwrap().email_ids.len(), MAIL_LIMIT);
}

#[test]
fn a_report_about_everybody_is_refused() {
    let block = "Final-Recipient: rfc822; jo@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n";
    let text = report("delivery-status", &[("message/delivery-status", &block.repeat(RECIPIENT_LIMIT + 1))]);
    assert!(parse(text.as_bytes()).unwrap_err().contains("recipients"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_report_makes_it_panic(status in "[ -~\r\n:;<>@.]{0,400}", original in ".{0,200}") {
        let text = report("delivery-status", &[("message/delivery-status", &status), ("message/rfc822", &original)]);
        let _ = parse(text.as_bytes());
        let text = report("feedback-report", &[("message/feedback-report", &status), ("text/rfc822-headers", &original)]);
        let _ = parse(text.as_bytes());
    }
}
