//! Mail: rendered, handed over to a real SMTP server, kept and retried when it refuses, captured when there is none.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard::rpc::convert::{from_json, json as to_json};
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::{
    Email, GetEmailRequest, GetEmailResponse, GetTemplateRequest, ListEmailsRequest, ListTemplatesRequest,
    PreviewTemplateRequest, SendEmailRequest, SendEmailResponse,
};
use tonic::{Code, Status};

use crate::harness::server::Server;
use crate::harness::smtp::{Mail, SmtpSink};
use crate::harness::tools::{free_port, run, tool};
use crate::harness::{SOON, eventually, on_both, status};
use crate::settings::set;

const TICKET: &str = r#"{"ticket_id":42,"title":"<b>Pump & co</b>","priority":"critical","created_by":"jo"}"#;

/// Longer than the first wait of a retry, and shorter than the second.
const FIRST_WAIT: Duration = Duration::from_secs(60);

/// Hands mails over to a server on this machine from now on.
pub async fn send_to(server: &Server, port: u16) {
    let smtp = json!({"email.smtp_host": "127.0.0.1", "email.smtp_port": port, "email.smtp_tls": "none"});
    set(&server.client, smtp).await;
}

pub fn raw(to: &str, subject: &str) -> SendEmailRequest {
    SendEmailRequest {
        to: vec![to.into()],
        subject: subject.into(),
        plain_body: "Hello.".into(),
        ..Default::default()
    }
}

pub fn templated(to: &str, template: &str, variables: &Value) -> SendEmailRequest {
    let variables = variables.as_object().map(|variables| from_json(variables.clone()));
    SendEmailRequest { to: vec![to.into()], template: template.into(), variables, ..Default::default() }
}

pub async fn try_send(server: &Server, request: SendEmailRequest) -> Result<SendEmailResponse, Status> {
    Ok(server.client.emails().send_email(request).await?.into_inner())
}

pub async fn send(server: &Server, request: SendEmailRequest) -> String {
    try_send(server, request).await.unwrap().email_id
}

pub async fn get(server: &Server, email_id: &str) -> GetEmailResponse {
    let request = GetEmailRequest { email_id: email_id.into() };
    server.client.emails().get_email(request).await.unwrap().into_inner()
}

/// The mail once it is in this state after so many attempts.
pub async fn wait(
    server: &Server,
    email_id: &str,
    state: DeliveryState,
    attempts: i32,
) -> (Email, GetEmailResponse) {
    let what = format!("{email_id} is {state:?} after {attempts} attempts");
    eventually(&what, async || {
        let got = get(server, email_id).await;
        let email = got.email.clone().unwrap();
        (email.state() == state && email.attempts == attempts).then_some((email, got))
    })
    .await
}

pub async fn list(server: &Server, request: ListEmailsRequest) -> Vec<Email> {
    server.client.emails().list_emails(request).await.unwrap().into_inner().emails
}

/// The one mail that an event caused.
async fn mail_of(server: &Server, event_id: &str) -> String {
    let request = ListEmailsRequest { event_id: event_id.into(), ..Default::default() };
    let [email] = list(server, request).await.try_into().unwrap();
    email.id
}

/// A mail as Python's `email` package reads it.
pub struct Read(pub Value);

impl Read {
    pub async fn of(mail: &Mail) -> Self {
        let json = run(tool("python"), [tool("mail.py")], mail.raw.as_bytes()).await.expect_success();
        Self(serde_json::from_str(&json).unwrap())
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let headers = self.0["headers"].as_array().unwrap().iter();
        let named = headers.filter(|header| header[0].as_str().unwrap().eq_ignore_ascii_case(name));
        named.map(|header| header[1].as_str().unwrap()).collect()
    }

    pub fn header(&self, name: &str) -> &str {
        let [value] = self.all(name).try_into().unwrap_or_else(|found| panic!("{name} is {found:?}"));
        value
    }

    pub fn part(&self, kind: &str) -> &str {
        let mut parts = self.0["parts"].as_array().unwrap().iter();
        let part = parts.find(|part| part["type"] == kind);
        part.unwrap_or_else(|| panic!("no {kind}: {}", self.0))["text"].as_str().unwrap()
    }
}

on_both! {
    async fn a_routed_mail_arrives_as_text_and_html(server: Server) {
        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        set(&server.client, json!({"general.site_url": "https://desk.example.com/", "general.company_name": "Pumps & more"})).await;
        server.put_on_list("tickets_all", &["Jo Doe <jo@example.com>"]).await;
        let published = server.publish("ticket.created", TICKET).await;

        let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
        assert!(mail.mail_from.starts_with("<switchboard@example.com>"), "{mail:?}");
        assert_eq!(mail.rcpt_to, ["<jo@example.com>"]);
        let read = Read::of(&mail).await;
        assert_eq!((&read.0["type"], &read.0["defects"]), (&json!("multipart/alternative"), &json!([])));
        assert_eq!(read.0["parts"].as_array().unwrap().len(), 2, "text and HTML");
        assert_eq!(read.header("From"), "Switchboard <switchboard@example.com>");
        assert_eq!(read.header("To"), "Jo Doe <jo@example.com>");
        assert_eq!(read.header("Subject"), "Ticket 42: <b>Pump & co</b>");
        let email_id = mail_of(&server, &published.event_id).await;
        assert_eq!(read.header("Message-ID"), format!("<{email_id}@example.com>"));
        let text = read.part("text/plain");
        for piece in ["Jo Doe", "Title: <b>Pump & co</b>", "Ticket: 42", "https://desk.example.com/tickets/42", "Pumps & more"] {
            assert!(text.contains(piece), "{piece} is not in the text: {text}");
        }
        let html = read.part("text/html");
        for piece in ["Jo Doe", "&#60;b&#62;Pump &#38; co&#60;/b&#62;", "https://desk.example.com/tickets/42", "Pumps &#38; more"] {
            assert!(html.contains(piece), "{piece} is not in the HTML: {html}");
        }
        assert!(!html.contains("<b>Pump"), "the title is text, not HTML: {html}");

        let (email, got) = wait(&server, &email_id, DeliveryState::Succeeded, 1).await;
        assert!(!email.captured && email.last_error.is_empty() && email.next_attempt_time.is_none(), "{email:?}");
        assert!(got.attempts[0].reply.starts_with("250"), "{:?}", got.attempts);
        assert!(got.html_body.is_empty(), "a sent mail is not kept");
    }

    async fn without_a_server_mails_are_captured_and_nothing_leaves(server: Server) {
        let sink = SmtpSink::start().await;
        server.put_on_list("tickets_all", &["jo@example.com"]).await;
        let published = server.publish("ticket.created", TICKET).await;
        let email_id = mail_of(&server, &published.event_id).await;
        let (email, got) = wait(&server, &email_id, DeliveryState::Succeeded, 1).await;
        assert!(email.captured);
        assert_eq!(email.from, "Switchboard <switchboard@example.com>");
        assert_eq!((email.subject.as_str(), &email.to[..]), ("Ticket 42: <b>Pump & co</b>", &["jo@example.com".to_owned()][..]));
        assert_eq!((email.template.as_str(), email.event_id), ("ticket_created", published.event_id));
        assert!(email.route_id.starts_with("rt_"));
        assert_eq!(to_json(email.variables.unwrap())["ticket_title"], "<b>Pump & co</b>");
        assert!(got.html_body.contains("&#60;b&#62;Pump &#38; co&#60;/b&#62;") && got.html_body.starts_with("<!"), "{}", got.html_body);
        assert!(got.plain_body.contains("Title: <b>Pump & co</b>"), "{}", got.plain_body);
        assert_eq!((got.attempts.len(), got.attempts[0].reply.as_str()), (1, "captured"));

        // What was captured stays here when a server is set later.
        send_to(&server, sink.port()).await;
        send(&server, raw("late@example.com", "Late")).await;
        let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
        assert_eq!(mail.rcpt_to, ["<late@example.com>"]);
    }

    async fn a_mail_waits_for_a_server_that_is_down(server: Server) {
        send_to(&server, free_port()).await;
        let email_id = send(&server, raw("jo@example.com", "Patience")).await;
        let (email, got) = wait(&server, &email_id, DeliveryState::Retrying, 1).await;
        assert!(!email.last_error.is_empty() && email.last_error == got.attempts[0].error, "{email:?}");
        assert!(email.next_attempt_time.is_some(), "{email:?}");

        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        server.advance(FIRST_WAIT);
        let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
        assert_eq!(mail.header("Subject").as_deref(), Some("Patience"));
        let (email, got) = wait(&server, &email_id, DeliveryState::Succeeded, 2).await;
        assert_eq!((email.last_error.as_str(), email.next_attempt_time), ("", None));
        assert_eq!(got.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
        assert!(got.attempts[0].reply.is_empty() && got.attempts[1].error.is_empty(), "{:?}", got.attempts);
    }

    async fn a_refusal_for_good_fails_at_once(server: Server) {
        let sink = SmtpSink::start_with(&["-f", "RCPT"]).await;
        send_to(&server, sink.port()).await;
        let email_id = send(&server, raw("jo@example.com", "Unwanted")).await;
        let (email, got) = wait(&server, &email_id, DeliveryState::Failed, 1).await;
        assert!(email.last_error.contains("5.3.0 Error: command failed"), "{email:?}");
        assert_eq!((email.next_attempt_time, got.attempts.len()), (None, 1));
        server.advance(FIRST_WAIT);
        send_to(&server, SmtpSink::start().await.port()).await;
        assert_eq!(get(&server, &email_id).await.email.unwrap().state(), DeliveryState::Failed);
    }

    async fn a_refusal_for_now_is_retried_under_the_same_message_id(server: Server) {
        // Refuses at the very end, when it has the whole message.
        let sink = SmtpSink::start_with(&["-r", "."]).await;
        send_to(&server, sink.port()).await;
        let email_id = send(&server, raw("jo@example.com", "Twice")).await;
        let (email, _) = wait(&server, &email_id, DeliveryState::Retrying, 1).await;
        assert!(email.last_error.contains("4.3.0 Error: command failed"), "{email:?}");
        server.advance(FIRST_WAIT);
        wait(&server, &email_id, DeliveryState::Retrying, 2).await;
        let mails = sink.wait_for(2, SOON).await;
        let ids: Vec<_> = mails.iter().map(|mail| mail.header("Message-ID").unwrap()).collect();
        assert_eq!(ids, [format!("<{email_id}@example.com>"), format!("<{email_id}@example.com>")]);
    }

    async fn a_mail_has_copies_and_hidden_copies(server: Server) {
        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        let request = SendEmailRequest {
            cc: vec!["\"Roe, Kim\" <kim@example.com>".into()],
            bcc: vec!["hidden@example.com".into()],
            reply_to: "desk@example.com".into(),
            html_body: "<p>Grüße</p>".into(),
            ..raw("Jo Dœ <jo@example.com>", "Grüße an alle 🎉")
        };
        send(&server, request).await;
        let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
        assert_eq!(mail.rcpt_to, ["<jo@example.com>", "<kim@example.com>", "<hidden@example.com>"]);
        assert!(!mail.raw.contains("hidden"), "{}", mail.raw);
        let read = Read::of(&mail).await;
        assert_eq!(read.header("Subject"), "Grüße an alle 🎉");
        assert_eq!(read.header("To"), "Jo Dœ <jo@example.com>");
        assert_eq!(read.header("Cc"), "\"Roe, Kim\" <kim@example.com>");
        assert_eq!(read.header("Reply-To"), "desk@example.com");
        assert_eq!((read.part("text/plain").trim(), read.part("text/html").trim()), ("Hello.", "<p>Grüße</p>"));

        let html_only = SendEmailRequest { plain_body: String::new(), html_body: "<p>Only</p>".into(), ..raw("jo@example.com", "Only") };
        send(&server, html_only).await;
        let mails = sink.wait_for(2, SOON).await;
        let only = mails.iter().find(|mail| mail.header("Subject").as_deref() == Some("Only")).unwrap();
        assert_eq!(Read::of(only).await.part("text/html").trim(), "<p>Only</p>");
    }

    async fn a_repeat_with_the_same_request_id_sends_nothing(server: Server) {
        let variables = json!({"user_name": "Jo", "reset_url": "https://example.com/reset?t=1", "expires_in": "1 hour"});
        let request = SendEmailRequest { request_id: "reset-1".into(), ..templated("jo@example.com", "password_reset", &variables) };
        let first = try_send(&server, request.clone()).await.unwrap();
        let again = try_send(&server, request.clone()).await.unwrap();
        assert_eq!((first.replayed, again.replayed), (false, true));
        assert_eq!(first.email_id, again.email_id);
        let other = SendEmailRequest { to: vec!["sam@example.com".into()], ..request };
        status::expect(&try_send(&server, other).await.unwrap_err(), Code::InvalidArgument, "REQUEST_ID_REUSED");
        let (email, got) = wait(&server, &first.email_id, DeliveryState::Succeeded, 1).await;
        assert_eq!((email.template.as_str(), email.event_id.as_str()), ("password_reset", ""));
        assert!(got.plain_body.contains("https://example.com/reset?t=1"), "{}", got.plain_body);
        assert_eq!(list(&server, ListEmailsRequest::default()).await.len(), 1);
    }

    async fn mails_are_listed_newest_first_by_filter_and_page(server: Server) {
        let mut sent = Vec::new();
        for n in 0..5 {
            sent.push(send(&server, raw("jo@example.com", &format!("Raw {n}"))).await);
            server.advance(Duration::from_secs(1));
        }
        sent.push(send(&server, templated("jo@example.com", "welcome", &json!({"user_name": "Jo"}))).await);
        sent.reverse();
        for email_id in &sent {
            wait(&server, email_id, DeliveryState::Succeeded, 1).await;
        }
        let ids = |emails: Vec<Email>| emails.into_iter().map(|email| email.id).collect::<Vec<_>>();
        let all = list(&server, ListEmailsRequest::default()).await;
        let times: Vec<_> = all.iter().map(|email| email.create_time.unwrap()).collect();
        assert_eq!(ids(all), sent);

        let by_template = ListEmailsRequest { template: "welcome".into(), ..Default::default() };
        assert_eq!(ids(list(&server, by_template).await), sent[..1]);
        let between = ListEmailsRequest { created_after: Some(times[4]), created_before: Some(times[1]), ..Default::default() };
        assert_eq!(ids(list(&server, between).await), sent[2..5]);
        let in_state = |state: DeliveryState| ListEmailsRequest { states: vec![state.into()], ..Default::default() };
        assert_eq!(list(&server, in_state(DeliveryState::Failed)).await, []);
        assert_eq!(list(&server, in_state(DeliveryState::Succeeded)).await.len(), 6);
        assert_eq!(list(&server, in_state(DeliveryState::Unspecified)).await.len(), 6, "any state");

        let (mut token, mut paged) = (String::new(), Vec::new());
        loop {
            let request = ListEmailsRequest { page_size: 4, page_token: token, ..Default::default() };
            let page = server.client.emails().list_emails(request).await.unwrap().into_inner();
            paged.extend(ids(page.emails));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(paged, sent);
    }

    async fn every_template_can_be_previewed_with_its_samples(server: Server) {
        let templates = server.client.templates().list_templates(ListTemplatesRequest {}).await.unwrap().into_inner().templates;
        let names: Vec<_> = templates.iter().map(|template| template.name.as_str()).collect();
        assert_eq!(names, [
            "application_follow_up", "application_status_update", "job_alert", "job_recommendations", "low_stock_alert",
            "notification", "password_reset", "system_alert", "ticket_created", "ticket_updated", "user_welcome", "webhook_disabled",
            "webhook_failing", "welcome",
        ]);
        set(&server.client, json!({"general.company_name": "Pumps & more", "general.colour": "#123456"})).await;
        for template in &templates {
            let name = &template.name;
            assert!(template.built_in && !template.description.is_empty(), "{name}");
            assert!(template.variables.iter().all(|variable| variable.sample.is_some() && !variable.description.is_empty()), "{name}");
            let request = GetTemplateRequest { name: name.clone(), ..Default::default() };
            let one = server.client.templates().get_template(request).await.unwrap().into_inner().template;
            assert_eq!(one.as_ref(), Some(template));
            let request = PreviewTemplateRequest { name: name.clone(), ..Default::default() };
            let preview = server.client.templates().preview_template(request).await.unwrap().into_inner();
            assert!(!preview.subject.is_empty() && !preview.subject.contains('\n'), "{name}: {}", preview.subject);
            assert!(preview.html_body.contains("Pumps &#38; more") && preview.html_body.contains("#123456"), "{name}: {}", preview.html_body);
            assert!(preview.html_body.trim_end().ends_with("</html>"), "{name}: {}", preview.html_body);
            assert!(preview.plain_body.contains("Pumps & more") && !preview.plain_body.contains("</"), "{name}: {}", preview.plain_body);

            // Without its variables, each that it can not do without is named.
            let required = template.variables.iter().filter(|variable| variable.required);
            let fields: Vec<_> = required.map(|variable| format!("variables.{}", variable.name)).collect();
            let request = PreviewTemplateRequest { name: name.clone(), variables: Some(prost_types::Struct::default()), ..Default::default() };
            match server.client.templates().preview_template(request).await {
                Ok(_) => assert!(fields.is_empty(), "{name}"),
                Err(refused) => status::expect_violations(&refused, &fields.iter().map(String::as_str).collect::<Vec<_>>()),
            }
        }
        let unknown = PreviewTemplateRequest { name: "nope".into(), ..Default::default() };
        let refused = server.client.templates().preview_template(unknown).await.unwrap_err();
        status::expect(&refused, Code::NotFound, "NOT_FOUND");
    }

    async fn nobody_adds_a_header_or_ends_a_mail(server: Server) {
        const EVIL: &str = "\r\nBcc: evil@example.com\r\n\r\nand a body";
        let address = format!("jo@example.com{EVIL}");
        let named = format!("\"Jo{EVIL}\" <jo@example.com>");
        let request = SendEmailRequest {
            to: vec![address.clone(), named.clone()],
            cc: vec![named.clone()],
            bcc: vec![address.clone()],
            reply_to: named.clone(),
            ..raw("", &format!("Hello{EVIL}"))
        };
        let refused = try_send(&server, request).await.unwrap_err();
        status::expect_violations(&refused, &["to[0]", "to[1]", "cc[0]", "bcc[0]", "reply_to", "subject"]);

        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        server.put_on_list("tickets_all", &["jo@example.com"]).await;
        let ticket = json!({"ticket_id": 42, "title": format!("Pump{EVIL}"), "user_name": format!("Jo{EVIL}"), "priority": EVIL, "created_by": "x"});
        server.publish("ticket.created", &ticket.to_string()).await;
        let smuggled = "One\r\n.\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<evil@example.com>\r\nDATA\r\nSubject: Two\n.\nThree\r.\rFour";
        send(&server, SendEmailRequest { plain_body: smuggled.into(), ..raw("jo@example.com", "Smuggler") }).await;

        let mails = sink.wait_for(2, SOON).await;
        assert_eq!(mails.len(), 2, "nothing in a body starts another mail");
        for mail in &mails {
            assert!(mail.mail_from.starts_with("<switchboard@example.com>"), "{mail:?}");
            assert_eq!(mail.rcpt_to, ["<jo@example.com>"]);
            let read = Read::of(mail).await;
            assert!(read.all("Bcc").is_empty() && read.all("Cc").is_empty(), "{}", mail.raw);
            assert_eq!(read.0["defects"], json!([]), "{}", mail.raw);
            match read.header("Subject") {
                "Smuggler" => assert!(read.part("text/plain").contains("MAIL FROM:<evil@example.com>"), "it is only text"),
                subject => assert!(subject.starts_with("Ticket 42: Pump Bcc: evil@example.com"), "{subject}"),
            }
        }
    }
}
