//! The commands for mail: `test-email` and `doctor`, run as the operator runs them, against a running server.

use serde_json::json;

use crate::command_line::{switchboard, switchboard_in};
use crate::harness::SOON;
use crate::harness::postfix::Postfix;
use crate::harness::server::{Backend, Server};
use crate::harness::smtp::SmtpSink;
use crate::harness::tools::{Output, free_port};
use crate::settings::set;

/// Runs a command against a server with its admin key.
async fn on(server: &Server, args: &[&str]) -> Output {
    switchboard(&[args, &["--server", &server.url(), "--key", server.key.reveal()]].concat()).await
}

/// What the doctor printed, with what differs from run to run made the same.
fn steady(output: &Output, server: &Server) -> String {
    output.stdout.replace(&server.url(), "http://SERVER")
}

fn lines_with<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(start)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_email_sends_every_template_with_its_samples() {
    let server = Server::start(Backend::Sqlite).await;
    let shown = on(&server, &["test-email", "--to", "jo@pumps.example", "--all"]).await.expect_success();
    assert_eq!(shown.lines().count(), 14, "{shown}");
    assert!(shown.lines().all(|line| line.contains("  captured   ")), "{shown}");
    let names: Vec<_> = shown.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"ticket_created") && names.is_sorted(), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_email_says_what_the_mail_server_said() {
    let (server, sink) = (Server::start(Backend::Sqlite).await, SmtpSink::start().await);
    let smtp =
        json!({"email.smtp_host": "127.0.0.1", "email.smtp_port": sink.port(), "email.smtp_tls": "none"});
    set(&server.client, smtp).await;
    let args = ["test-email", "--to", "Jo <jo@pumps.example>", "--template", "welcome"];
    let key = format!("SWITCHBOARD_API_KEY={}", server.key.reveal());
    let url = server.url();
    let shown = switchboard_in(&[&key], &[&args[..], &["--server", &url]].concat()).await.expect_success();
    assert!(shown.starts_with("welcome  sent       250 "), "{shown}");
    let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
    assert_eq!(mail.rcpt_to, ["<jo@pumps.example>"]);

    let refusing = SmtpSink::start_with(&["-f", "RCPT"]).await;
    set(&server.client, json!({"email.smtp_port": refusing.port()})).await;
    let refused = on(&server, &args).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stdout.starts_with("welcome  failed     "), "{refused:?}");
    assert!(refused.stdout.contains("500"), "{refused:?}");
    assert!(refused.stderr.contains("error: 1 of 1 mails did not go out"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_says_why_it_can_not_ask_the_server() {
    let server = Server::start(Backend::Sqlite).await;
    let url = server.url();
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let reader = key_that_may(&server, "tickets:read").await;
    let cases: [(&[&str], &str); 4] = [
        (&["--server", &nowhere, "--key", "swb_x"], "can not be reached"),
        (&["--server", &url], "SWITCHBOARD_API_KEY"),
        (&["--server", &url, "--key", "swb_nobodys"], "the key is refused"),
        (&["--server", &url, "--key", &reader], "the key may not do this"),
    ];
    for (options, words) in cases {
        let sent =
            switchboard(&[&["test-email", "--to", "jo@pumps.example", "--all"], options].concat()).await;
        assert_eq!((sent.code, sent.stdout.as_str()), (Some(1), ""), "{sent:?}");
        assert!(sent.stderr.starts_with("error: ") && sent.stderr.contains(words), "{sent:?}");
        let seen = switchboard(&[&["doctor"], options].concat()).await;
        assert_eq!(seen.code, Some(1), "{seen:?}");
        assert!(seen.stdout.starts_with("FAIL  server       ") && seen.stdout.contains(words), "{seen:?}");
        assert!(seen.stdout.ends_with("\n1 failure and 0 warnings\n"), "{seen:?}");
    }

    let unknown = on(&server, &["test-email", "--to", "jo@pumps.example", "--template", "nothing"]).await;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains(r#"there is no template "nothing""#), "{unknown:?}");
    assert!(unknown.stderr.contains("ticket_created, ticket_updated"), "{unknown:?}");
    let address = on(&server, &["test-email", "--to", "nobody", "--template", "welcome"]).await;
    assert_eq!(address.code, Some(1), "{address:?}");
    assert!(address.stdout.starts_with("welcome  refused    "), "{address:?}");
    for args in [&["test-email", "--to", "jo@pumps.example"][..], &["test-email", "--all"]] {
        assert_eq!(on(&server, args).await.code, Some(2));
    }
    let both = ["test-email", "--to", "jo@pumps.example", "--all", "--template", "welcome"];
    assert_eq!(on(&server, &both).await.code, Some(2));
}

/// A new key that has just this scope.
async fn key_that_may(server: &Server, scope: &str) -> String {
    let request = switchboard_client::apikey::v1::CreateApiKeyRequest {
        name: "test".into(),
        scopes: vec![scope.into()],
        ..Default::default()
    };
    server.client.api_keys().create_api_key(request).await.unwrap().into_inner().key
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_reads_a_new_server() {
    let server = Server::start(Backend::Sqlite).await;
    let output = on(&server, &["doctor"]).await;
    insta::assert_snapshot!(steady(&output, &server), @r"
    ok    server       http://SERVER answers, and knows the key
    warn  sending      no SMTP server is set: mails are captured, and nothing leaves
                       to send, set email.smtp_host (SMTP_HOST) or email.smtp_preset, and the login
    warn  sender       mails are from switchboard@example.com, which is only an example
                       set email.from_address (FROM_EMAIL) to an address of your own domain
    warn  dkim         mails are not signed: large providers refuse such mail, or call it spam
                       make a key with `openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:2048`, set it as
                       email.dkim_private_key, and publish its public half at <selector>._domainkey.example.com
    warn  site         mails link to http://localhost:8080, which no recipient reaches
                       set general.site_url (SITE_URL)
    warn  unsubscribe  recipients can not reach this server: no mail can be unsubscribed from
                       set email.public_url (EMAIL_PUBLIC_URL); mail to many needs it, and tracking does
    ok    limit        100 mails an hour go out at most; mail beyond it waits
    ok    queue        in the last 24 hours: no mails

    it works, with 5 warnings
    ");
    assert_eq!(output.code, Some(0), "warnings are no failures");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_tries_the_mail_server() {
    let (server, postfix) = (Server::start(Backend::Sqlite).await, Postfix::start().await);
    set(&server.client, postfix.settings()).await;
    let good = on(&server, &["doctor"]).await;
    let smtp = format!("ok    smtp         localhost:{} takes mail", postfix.port());
    assert!(good.stdout.contains(&smtp), "{}", good.stdout);
    for step in ["resolve", "connect", "tls", "login", "sender"] {
        let line = format!("{:19}{step:8}  ok after ", "");
        assert_eq!(lines_with(&good.stdout, &line).len(), 1, "{}", good.stdout);
    }
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(postfix.mailbox("jo").is_empty(), "nothing is sent");

    let dangerous = json!({
        "email.smtp_password": "wrong",
        "email.smtp2_host": "192.0.2.1",
        "email.smtp2_tls": "none",
        "email.smtp2_user": "jo",
        "email.capture": true,
        "email.hourly_limit": 0,
        "email.public_url": "http://mail.pumps.io",
        "general.site_url": "https://pumps.io",
        "email.from_address": "desk@pumps.io",
        "email.dkim_domain": "letters.io",
    });
    set(&server.client, dangerous).await;
    let captured = on(&server, &["doctor"]).await;
    for line in [
        "warn  sending      email.capture is on: mails are captured, and nothing leaves",
        "warn  protection   email.smtp2_tls is none: the login and mails travel to 192.0.2.1 in the clear",
        "ok    sender       mails are from Switchboard <desk@pumps.io>",
        "ok    site         mails link to https://pumps.io",
        "warn  unsubscribe  the links to unsubscribe lead to http://mail.pumps.io, without TLS",
        "ok    limit        no limit to the mails of an hour",
    ] {
        assert!(captured.stdout.lines().any(|shown| shown == line), "{line}\n{}", captured.stdout);
    }
    assert!(
        lines_with(&captured.stdout, "FAIL  smtp").is_empty(),
        "nobody is asked while mails are captured"
    );

    set(
        &server.client,
        json!({"email.capture": false, "email.smtp2_host": "", "email.smtp2_tls": "starttls"}),
    )
    .await;
    let wrong = on(&server, &["doctor"]).await;
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    let smtp = format!("FAIL  smtp         localhost:{} takes no mail: login failed", postfix.port());
    assert!(wrong.stdout.contains(&smtp), "{}", wrong.stdout);
    assert!(wrong.stdout.contains("it said: 535 5.7.8"), "{}", wrong.stdout);
    assert!(!wrong.stdout.contains(postfix.password()), "{}", wrong.stdout);
}
