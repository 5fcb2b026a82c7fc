//! Mail from the call to a server that misbehaves, and from a link in a mail back to the queue.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use switchboard::rpc::convert::from_json_value;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::{
    CreateSuppressionRequest, EmailActivityKind, GetSuppressionRequest, RetryEmailRequest, SendEmailRequest,
    SmtpStep, Suppression, SuppressionReason, TestSmtpRequest,
};
use tonic::Code;

use crate::deliverability::{header, one_click};
use crate::emails::{Read, get, list, raw, send, send_to, templated, try_send, wait};
use crate::harness::hostile::{Hostile, Kind, Script};
use crate::harness::server::Server;
use crate::harness::smtp::{Mail, SmtpSink};
use crate::harness::tools::free_port;
use crate::harness::{SOON, eventually, on_both, status};
use crate::settings::set;

async fn retry(server: &Server, email_id: &str) {
    let request = RetryEmailRequest { email_id: email_id.into() };
    server.client.emails().retry_email(request).await.unwrap();
}

async fn one(sink: &SmtpSink, count: usize, subject: &str) -> Mail {
    let mails = sink.wait_for(count, SOON).await;
    mails.into_iter().find(|mail| mail.header("Subject").as_deref() == Some(subject)).unwrap()
}

/// The first link in an attribute of this name that leads to this path of the server.
fn link(html: &str, server: &Server, path: &str) -> String {
    let start = format!("{}{path}", server.url());
    let at = html.find(&start).unwrap_or_else(|| panic!("no {start} in {html}"));
    html[at..].split(['"', '\'', '>', '<', ' ', '\n']).next().unwrap().replace("&amp;", "&")
}

on_both! {
    async fn a_link_that_drops_after_the_dot_leaves_the_outcome_unknown(server: Server) {
        let dropping = Hostile::start(Script::new(Kind::DropAfterDot)).await;
        send_to(&server, dropping.port()).await;
        let email_id = send(&server, raw("jo@example.com", "Perhaps")).await;
        let (email, got) = wait(&server, &email_id, DeliveryState::Unknown, 1).await;
        assert!(!email.last_error.is_empty() && email.next_attempt_time.is_none(), "{email:?}");
        assert!(got.attempts[0].transcript.contains("DATA"), "{:?}", got.attempts);
        server.advance(Duration::from_secs(24 * 60 * 60));
        assert_eq!(get(&server, &email_id).await.attempts.len(), 1, "it is not repeated by itself");

        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        retry(&server, &email_id).await;
        wait(&server, &email_id, DeliveryState::Succeeded, 2).await;
        assert_eq!(sink.wait_for(1, SOON).await.len(), 1);
    }

    async fn one_bad_recipient_fails_alone_and_a_late_one_is_tried_again(server: Server) {
        let script = Script {
            recipients: [("bad@example.com", "550 5.1.1 No such user"), ("late@example.com", "450 4.2.0 Come back")].into(),
            ..Script::new(Kind::Healthy)
        };
        let picky = Hostile::start(script).await;
        send_to(&server, picky.port()).await;
        let request = SendEmailRequest {
            cc: vec!["bad@example.com".into(), "late@example.com".into()],
            ..raw("jo@example.com", "Three")
        };
        let email_id = send(&server, request).await;
        let (email, got) = wait(&server, &email_id, DeliveryState::Retrying, 1).await;
        let of = |address: &str| {
            let row = got.recipients.iter().find(|row| row.address == address).unwrap();
            (row.state(), row.reply.clone())
        };
        assert_eq!(of("jo@example.com").0, DeliveryState::Succeeded);
        assert_eq!(of("bad@example.com"), (DeliveryState::Failed, "550 5.1.1 No such user".to_owned()));
        assert_eq!(of("late@example.com").0, DeliveryState::Retrying);
        assert!(email.last_error.contains("450 4.2.0"), "{email:?}");

        // An address that does not exist gets nothing more.
        let request = GetSuppressionRequest { address: "bad@example.com".into(), topic: String::new() };
        let suppression = server.client.suppressions().get_suppression(request).await.unwrap().into_inner().suppression.unwrap();
        assert_eq!((suppression.reason(), suppression.origin.as_str()), (SuppressionReason::Bounce, "smtp"));
        assert_eq!((suppression.email_id.as_str(), suppression.detail.as_str()), (email_id.as_str(), "550 5.1.1 No such user"));
        let again = send(&server, raw("Bad <BAD@example.com>", "Again")).await;
        let (email, got) = wait(&server, &again, DeliveryState::Cancelled, 0).await;
        assert!(email.last_error.contains("suppressed") && got.attempts.is_empty(), "{email:?}");

        // Only the late one gets the mail with the second attempt.
        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        server.advance(Duration::from_secs(40));
        let (_, got) = wait(&server, &email_id, DeliveryState::Succeeded, 2).await;
        let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
        assert_eq!(mail.rcpt_to, ["<late@example.com>"]);
        assert!(mail.raw.contains("bad@example.com"), "the headers still name everybody");
        let states: Vec<_> = got.recipients.iter().map(|row| (row.address.as_str(), row.state())).collect();
        assert_eq!(states, [("bad@example.com", DeliveryState::Failed), ("jo@example.com", DeliveryState::Succeeded), ("late@example.com", DeliveryState::Succeeded)]);
    }

    async fn an_address_that_is_suppressed_while_its_mail_waits_gets_nothing(server: Server) {
        use switchboard::clock::Clock;
        let at = server.clock.now() + Duration::from_secs(3_600);
        let request = SendEmailRequest {
            cc: vec!["sam@example.com".into()],
            send_time: Some(prost_types::Timestamp { seconds: at.seconds(), nanos: 0 }),
            ..raw("jo@example.com", "Later")
        };
        let both = send(&server, request.clone()).await;
        let alone = send(&server, SendEmailRequest { cc: vec![], ..request }).await;
        let suppression = Suppression { address: "Jo@Example.com".into(), ..Default::default() };
        server.client.suppressions().create_suppression(CreateSuppressionRequest { suppression: Some(suppression) }).await.unwrap();
        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        server.advance(Duration::from_secs(3_601));
        let (_, got) = wait(&server, &both, DeliveryState::Succeeded, 1).await;
        let states: Vec<_> = got.recipients.iter().map(|row| (row.address.as_str(), row.state())).collect();
        assert_eq!(states, [("jo@example.com", DeliveryState::Cancelled), ("sam@example.com", DeliveryState::Succeeded)]);
        let (email, _) = wait(&server, &alone, DeliveryState::Cancelled, 0).await;
        assert!(!email.last_error.is_empty());
        let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
        assert_eq!(mail.rcpt_to, ["<sam@example.com>"]);
    }

    async fn a_fault_of_a_provider_is_not_the_mails_and_the_next_one_takes_it(server: Server) {
        let broken = Hostile::start(Script::new(Kind::Greets("421 4.3.2 Not today"))).await;
        let sink = SmtpSink::start().await;
        send_to(&server, broken.port()).await;
        set(&server.client, json!({"email.smtp2_host": "127.0.0.1", "email.smtp2_port": sink.port(), "email.smtp2_tls": "none"})).await;
        let email_id = send(&server, raw("jo@example.com", "Somehow")).await;
        wait(&server, &email_id, DeliveryState::Succeeded, 1).await;
        assert_eq!(sink.wait_for(1, SOON).await.len(), 1);

        // A refusal of the recipient is everybody's last word.
        let refusing = Hostile::start(Script::new(Kind::RefuseRecipients("550 5.7.1 Not wanted"))).await;
        send_to(&server, refusing.port()).await;
        let email_id = send(&server, raw("jo@example.com", "Unwanted")).await;
        let (email, _) = wait(&server, &email_id, DeliveryState::Failed, 1).await;
        assert!(email.last_error.contains("550 5.7.1"), "{email:?}");
        assert_eq!(sink.received().len(), 1);
        let request = GetSuppressionRequest { address: "jo@example.com".into(), topic: String::new() };
        let none = server.client.suppressions().get_suppression(request).await.unwrap_err();
        status::expect(&none, Code::NotFound, "NOT_FOUND");
    }

    async fn a_reader_unsubscribes_with_one_click_and_only_from_that_topic(server: Server) {
        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        set(&server.client, json!({"email.public_url": server.url()})).await;
        let news = |subject: &str, topic: &str| SendEmailRequest { topic: topic.into(), ..raw("Jo <jo@example.com>", subject) };
        send(&server, news("First", "news")).await;
        let mail = one(&sink, 1, "First").await;
        let read = Read::of(&mail).await;
        assert_eq!(read.header("List-Unsubscribe-Post"), "List-Unsubscribe=One-Click");
        let url = read.header("List-Unsubscribe").trim_matches(['<', '>']).to_owned();
        let page = crate::deliverability::get(&server, &url).await;
        assert_eq!(page.status(), StatusCode::OK);
        send(&server, news("Second", "news")).await;
        one(&sink, 2, "Second").await;

        assert_eq!(one_click(&server, &url).await.status(), StatusCode::OK);
        let third = send(&server, news("Third", "news")).await;
        let (email, _) = wait(&server, &third, DeliveryState::Cancelled, 0).await;
        assert!(email.last_error.contains("unsubscribe"), "{email:?}");
        send(&server, news("Other", "offers")).await;
        send(&server, raw("jo@example.com", "Invoice")).await;
        let mails = sink.wait_for(4, SOON).await;
        let mut subjects: Vec<_> = mails.iter().map(|mail| mail.header("Subject").unwrap()).collect();
        subjects.sort_unstable();
        assert_eq!(subjects, ["First", "Invoice", "Other", "Second"]);
        let invoice = Read::of(&one(&sink, 4, "Invoice").await).await;
        assert!(invoice.all("List-Unsubscribe").is_empty(), "a mail without a topic has none");

        let two = SendEmailRequest { cc: vec!["sam@example.com".into()], ..news("Two", "news") };
        status::expect_violations(&try_send(&server, two).await.unwrap_err(), &["topic"]);
    }

    async fn a_template_shows_the_link_to_unsubscribe(server: Server) {
        set(&server.client, json!({"email.public_url": server.url()})).await;
        let jobs = json!({"user_name": "Jo", "jobs": [{"title": "Welder", "company": "Pumps", "url": "https://example.com/1"}]});
        let request = SendEmailRequest { topic: "jobs".into(), ..templated("jo@example.com", "job_alert", &jobs) };
        let email_id = send(&server, request).await;
        let (_, got) = wait(&server, &email_id, DeliveryState::Succeeded, 1).await;
        let url = link(&got.html_body, &server, "/u/");
        assert!(got.plain_body.contains(&url), "{}", got.plain_body);
        assert_eq!(one_click(&server, &url).await.status(), StatusCode::OK);
    }

    async fn opens_and_clicks_are_counted_only_when_asked_for(server: Server) {
        set(&server.client, json!({"email.public_url": server.url()})).await;
        let html = r#"<p><a href="https://example.com/a?x=1&amp;y=2">Read</a></p>"#;
        let request = || SendEmailRequest { html_body: html.into(), ..raw("jo@example.com", "Tracked") };
        let plain = send(&server, request()).await;
        let (_, got) = wait(&server, &plain, DeliveryState::Succeeded, 1).await;
        assert_eq!(got.html_body, html, "tracking is off unless it is set");

        set(&server.client, json!({"email.open_tracking": true, "email.click_tracking": true})).await;
        let opted_out = send(&server, SendEmailRequest { without_tracking: true, ..request() }).await;
        let (_, got) = wait(&server, &opted_out, DeliveryState::Succeeded, 1).await;
        assert_eq!(got.html_body, html);
        let several = send(&server, SendEmailRequest { cc: vec!["sam@example.com".into()], ..request() }).await;
        let (_, got) = wait(&server, &several, DeliveryState::Succeeded, 1).await;
        assert_eq!(got.html_body, html, "nobody could tell who it was");

        let tracked = send(&server, request()).await;
        let (_, got) = wait(&server, &tracked, DeliveryState::Succeeded, 1).await;
        let click = crate::deliverability::get(&server, &link(&got.html_body, &server, "/c/")).await;
        assert_eq!((click.status(), header(&click, "location")), (StatusCode::FOUND, "https://example.com/a?x=1&y=2"));
        let open = crate::deliverability::get(&server, &link(&got.html_body, &server, "/o/")).await;
        assert_eq!((open.status(), header(&open, "content-type")), (StatusCode::OK, "image/gif"));
        let seen = eventually("both are counted", async || {
            let seen = get(&server, &tracked).await.activities;
            (seen.len() == 2).then_some(seen)
        }).await;
        let mut kinds: Vec<_> = seen.iter().map(|activity| (activity.kind(), activity.address.as_str())).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, [(EmailActivityKind::Opened, "jo@example.com"), (EmailActivityKind::Clicked, "jo@example.com")]);
    }

    async fn a_test_of_a_server_says_what_it_found_and_gives_no_secret_away(server: Server) {
        let sink = SmtpSink::start().await;
        let try_it = async |to: &str, settings: serde_json::Value| {
            let settings = settings.as_object().unwrap().clone();
            let settings = settings.into_iter().map(|(key, value)| (key, from_json_value(value))).collect();
            let request = TestSmtpRequest { to: to.into(), provider: 0, settings };
            server.client.emails().test_smtp(request).await.map(tonic::Response::into_inner)
        };
        let none = try_it("", json!({})).await.unwrap_err();
        status::expect(&none, Code::FailedPrecondition, "SMTP_NOT_SET");
        let here = json!({"email.smtp_host": "127.0.0.1", "email.smtp_port": sink.port(), "email.smtp_tls": "none"});
        let found = try_it("jo@example.com", here.clone()).await.unwrap();
        assert!(found.succeeded, "{found:?}");
        let steps: Vec<_> = found.steps.iter().map(|step| step.step()).collect();
        assert_eq!(steps, [SmtpStep::Resolve, SmtpStep::Connect, SmtpStep::Sender, SmtpStep::Delivery]);
        let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
        assert_eq!(mail.rcpt_to, ["<jo@example.com>"]);
        assert_eq!(list(&server, Default::default()).await, [], "it is no mail of the queue");
        let closed = try_it("", json!({"email.smtp_host": "127.0.0.1", "email.smtp_port": free_port(), "email.smtp_tls": "none"})).await.unwrap();
        let last = closed.steps.last().unwrap();
        assert_eq!((closed.succeeded, last.step(), last.succeeded), (false, SmtpStep::Connect, false));
        assert!(last.explanation.contains("refused"), "{last:?}");

        set(&server.client, here.clone()).await;
        set(&server.client, json!({"email.smtp_user": "postman", "email.smtp_password": "secret"})).await;
        // The password that is set must not be sent to whatever server somebody names.
        let elsewhere = json!({"email.smtp_host": "localhost"});
        status::expect_violations(&try_it("", elsewhere).await.unwrap_err(), &["settings[email.smtp_password]"]);
        let bad = try_it("nobody", json!({})).await.unwrap_err();
        status::expect_violations(&bad, &["to"]);
        let odd = try_it("", json!({"email.smtp_tls": "ssl", "nothing.like_it": 1})).await.unwrap_err();
        status::expect_violations(&odd, &["settings[email.smtp_password]"]);
    }

    async fn a_text_part_is_made_of_the_html_and_styles_are_moved_in(server: Server) {
        let html = "<html><head><style>p { color: #336699 }</style></head><body><h1>Hello</h1><p>See <a href=\"https://example.com/\">this</a>.</p></body></html>";
        let request = SendEmailRequest { html_body: html.into(), plain_body: String::new(), preheader: "In <short>".into(), ..raw("jo@example.com", "Page") };
        let email_id = send(&server, request).await;
        let (_, got) = wait(&server, &email_id, DeliveryState::Succeeded, 1).await;
        assert!(got.plain_body.contains("Hello") && got.plain_body.contains("https://example.com/"), "{}", got.plain_body);
        assert!(got.html_body.contains("style=\"color: #336699") || got.html_body.contains("style=\"color:#336699"), "{}", got.html_body);
        assert!(got.html_body.contains("In &lt;short&gt;"), "{}", got.html_body);
    }
}

/// Each of these ends at its deadline or with its answer, in the state that it should, while another server's mail goes
/// on; the kinds that only a connection sees are in `smtp_lane`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_server_costs_no_mail_and_no_other() {
    let server = Server::start(crate::harness::server::Backend::Sqlite).await;
    for (kind, state) in [
        (Kind::Greets("554 5.3.2 Go away"), DeliveryState::Retrying),
        (Kind::GarbageAfterStartTls, DeliveryState::Retrying),
        (Kind::EndlessLines, DeliveryState::Retrying),
        (Kind::EndlessLine, DeliveryState::Retrying),
        (Kind::RefuseMail("451 4.3.0 Later"), DeliveryState::Retrying),
        (Kind::RefuseMail("550 5.7.1 Not you"), DeliveryState::Failed),
        (Kind::RefuseRecipients("452 4.2.2 Full"), DeliveryState::Retrying),
        (Kind::RefuseContent("552 5.3.4 Too large"), DeliveryState::Failed),
        (Kind::RefuseContent("451 4.3.0 Later"), DeliveryState::Retrying),
        (Kind::DropAfterDot, DeliveryState::Unknown),
    ] {
        let hostile = Hostile::start(Script::new(kind.clone())).await;
        send_to(&server, hostile.port()).await;
        if kind == Kind::GarbageAfterStartTls {
            set(&server.client, json!({"email.smtp_tls": "starttls"})).await;
        }
        let email_id = send(&server, raw("jo@example.com", "Into the wild")).await;
        let (email, got) = wait(&server, &email_id, state, 1).await;
        assert!(!email.last_error.is_empty(), "{kind:?}: {email:?}");
        assert_eq!(got.attempts.len(), 1, "{kind:?}");
    }
    let sink = SmtpSink::start().await;
    send_to(&server, sink.port()).await;
    send(&server, raw("jo@example.com", "Home")).await;
    one(&sink, 1, "Home").await;
    // A server that drops connections every few mails costs none of them.
    let dropping = Hostile::start(Script::new(Kind::DropAfter(7, true))).await;
    send_to(&server, dropping.port()).await;
    set(&server.client, json!({"email.hourly_limit": 0, "email.smtp_connections": 2})).await;
    let mut sent = Vec::new();
    for n in 0..60 {
        sent.push(send(&server, raw(&format!("jo{n}@example.com"), "Many")).await);
    }
    for email_id in &sent {
        wait(&server, email_id, DeliveryState::Succeeded, 1).await;
    }
}
