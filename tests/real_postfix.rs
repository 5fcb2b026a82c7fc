//! Mail through a real server: Postfix, with STARTTLS, a login and recipients that it does not know.

use std::time::Duration;

use serde_json::{Map, Value, json};
use switchboard::clock::Clock;
use switchboard::rpc::convert::from_json_value;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::{
    EmailRecipient, GetEmailRequest, GetEmailResponse, SendEmailRequest, SmtpStep, SmtpTestStep,
    TestSmtpRequest, TestSmtpResponse,
};

use crate::harness::postfix::{Postfix, REFUSED_SENDER};
use crate::harness::server::{Backend, Server};
use crate::harness::tools::{run, tool};
use crate::harness::{eventually, on_both};
use crate::settings::set;

const GOOD: &str = "jo@example.test";
const UNKNOWN: &str = "nobody@example.test";

fn mail(to: &[&str], subject: &str) -> SendEmailRequest {
    SendEmailRequest {
        to: to.iter().map(|&address| address.into()).collect(),
        subject: subject.into(),
        html_body: "<p>Pump 3 has <b>stopped</b>.</p>".into(),
        // A line that begins with a dot, and one that a careless server takes for the end.
        plain_body: "Pump 3 has stopped.\n.\n..and does not start\nGrüße\n".into(),
        ..Default::default()
    }
}

async fn send(server: &Server, request: SendEmailRequest) -> String {
    server.client.emails().send_email(request).await.unwrap().into_inner().email_id
}

async fn get(server: &Server, email_id: &str) -> GetEmailResponse {
    let request = GetEmailRequest { email_id: email_id.into() };
    server.client.emails().get_email(request).await.unwrap().into_inner()
}

/// Runs a shell script on an input and gives what it prints.
async fn shell(script: &str, input: &str) -> String {
    run("sh", ["-c", script], input.as_bytes()).await.expect_success()
}

/// A private key as PKCS #8 PEM, and the DNS record that publishes it (RFC 6376, section 3.6.1; RFC 8463, section 4).
async fn signing_key(algorithm: &str) -> (String, String) {
    let private = shell(&format!("openssl genpkey -algorithm {algorithm}"), "").await;
    let (kind, part) = match algorithm {
        // Its record has the bare key: what follows the algorithm's name in the usual form.
        "ed25519" => ("ed25519", "tail -c 32"),
        _ => ("rsa", "cat"),
    };
    let public = format!("openssl pkey -pubout -outform DER | {part} | base64 -w 0");
    let public = shell(&public, &private).await;
    (private, format!("v=DKIM1; k={kind}; p={public}"))
}

/// A mail as Python's `email` package reads it.
async fn read(message: &str) -> Value {
    let read = run(tool("python"), [tool("mail.py")], message.as_bytes()).await.expect_success();
    serde_json::from_str(&read).unwrap()
}

/// Whether each DKIM signature of a message holds, as an independent program sees it.
async fn signatures(message: &str, records: &Value) -> Vec<bool> {
    let args = [tool("dkim_verify.py").into_os_string(), records.to_string().into()];
    let answer = run(tool("python"), args, message.as_bytes()).await.expect_success();
    let answer: Vec<Value> =
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer}: {error}"));
    answer.iter().map(|signature| signature["valid"] == true).collect()
}

on_both! {
    async fn a_bad_second_recipient_does_not_keep_the_mail_from_the_first(server: Server) {
        let postfix = Postfix::start().await;
        set(&server.client, postfix.settings()).await;
        let email_id = send(&server, mail(&[GOOD, UNKNOWN], "Pump 3")).await;

        let [arrived] = postfix.wait_for("jo", 1).await.try_into().unwrap();
        assert!(arrived.contains("\nSubject: Pump 3\n"), "{arrived}");
        let read = read(&arrived).await;
        assert_eq!(read["defects"], json!([]), "{read}");
        let text = read["parts"].as_array().unwrap().iter().find(|part| part["type"] == "text/plain").unwrap();
        let text = text["text"].as_str().unwrap();
        assert_eq!(text.trim_end(), "Pump 3 has stopped.\n.\n..and does not start\nGrüße");

        let what = "each recipient has an answer of its own";
        let recipients: Vec<EmailRecipient> = eventually(what, async || {
            let recipients = get(&server, &email_id).await.recipients;
            let ended = |one: &EmailRecipient| {
                matches!(one.state(), DeliveryState::Succeeded | DeliveryState::Failed)
            };
            (recipients.len() == 2 && recipients.iter().all(ended)).then_some(recipients)
        })
        .await;
        let of = |address: &str| recipients.iter().find(|one| one.address == address).unwrap();
        assert_eq!(of(GOOD).state(), DeliveryState::Succeeded, "{recipients:?}");
        assert_eq!(of(UNKNOWN).state(), DeliveryState::Failed, "{recipients:?}");
        assert!(of(UNKNOWN).reply.starts_with("550 5.1.1"), "{recipients:?}");
        server.stop().await;
        assert_eq!(postfix.mailbox("jo").len(), 1, "it came once");
    }

    async fn a_refused_login_costs_no_mail(server: Server) {
        let postfix = Postfix::start().await;
        set(&server.client, postfix.settings()).await;
        set(&server.client, json!({"email.smtp_password": "not this one"})).await;
        let email_id = send(&server, mail(&[GOOD], "Pump 4")).await;
        let held = eventually("the mail waits", async || {
            let email = get(&server, &email_id).await.email.unwrap();
            (email.state() == DeliveryState::Held).then_some(email)
        })
        .await;
        assert!(held.last_error.contains("535"), "it says what the server said: {}", held.last_error);
        assert!(postfix.mailbox("jo").is_empty());

        set(&server.client, json!({"email.smtp_password": postfix.password()})).await;
        // What it waits for may be the change, or the time at which the login is tried again.
        eventually("the mail goes out", async || {
            let email = get(&server, &email_id).await.email.unwrap();
            match (email.state(), email.next_attempt_time) {
                (DeliveryState::Succeeded, _) => Some(()),
                (DeliveryState::Held, Some(due)) => {
                    let now = server.clock.now().seconds();
                    let ahead = u64::try_from(due.seconds + 1 - now).unwrap_or_default();
                    server.advance(Duration::from_secs(ahead));
                    None
                }
                _ => None,
            }
        })
        .await;
        assert_eq!(postfix.wait_for("jo", 1).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signatures_hold_as_an_independent_verifier_sees_them() {
    let (server, postfix) = (Server::start(Backend::Sqlite).await, Postfix::start().await);
    set(&server.client, postfix.settings()).await;
    let (ed25519, ed25519_record) = signing_key("ed25519").await;
    let (rsa, rsa_record) = signing_key("rsa").await;
    let signing = json!({
        "email.from_address": "desk@pumps.example",
        "email.dkim_private_key": ed25519,
        "email.dkim_selector": "one",
        "email.dkim_second_private_key": rsa,
        "email.dkim_second_selector": "two",
    });
    set(&server.client, signing).await;
    send(&server, mail(&[GOOD], "Signed: naïve  spaces ")).await;
    let [arrived] = postfix.wait_for("jo", 1).await.try_into().unwrap();
    let records = json!({
        "one._domainkey.pumps.example": ed25519_record,
        "two._domainkey.pumps.example": rsa_record,
    });
    assert_eq!(signatures(&arrived, &records).await, [true, true], "{arrived}");
    let changed = arrived.replace("has stopped", "has started");
    assert_ne!(changed, arrived);
    assert_eq!(signatures(&changed, &records).await, [false, false], "a changed body is found");
}

async fn test_smtp(server: &Server, to: &str, settings: Value) -> TestSmtpResponse {
    let settings: Map<String, Value> = settings.as_object().unwrap().clone();
    let settings = settings.into_iter().map(|(key, value)| (key, from_json_value(value))).collect();
    let request = TestSmtpRequest { to: to.into(), settings, ..Default::default() };
    server.client.emails().test_smtp(request).await.unwrap().into_inner()
}

/// The step that failed; those before it went well and none came after it.
#[track_caller]
fn failed_step(response: &TestSmtpResponse) -> &SmtpTestStep {
    assert!(!response.succeeded, "{response:?}");
    let (last, before) = response.steps.split_last().expect("there are steps");
    assert!(before.iter().all(|step| step.succeeded) && !last.succeeded, "{response:?}");
    assert!(!last.explanation.is_empty(), "{response:?}");
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_of_the_server_says_which_step_failed_and_why() {
    let (server, postfix) = (Server::start(Backend::Sqlite).await, Postfix::start().await);
    set(&server.client, postfix.settings()).await;

    let good = test_smtp(&server, GOOD, json!({})).await;
    assert!(good.succeeded && good.steps.iter().all(|step| step.succeeded), "{good:?}");
    let steps: Vec<_> = good.steps.iter().map(SmtpTestStep::step).collect();
    let all = [
        SmtpStep::Resolve,
        SmtpStep::Connect,
        SmtpStep::Tls,
        SmtpStep::Login,
        SmtpStep::Sender,
        SmtpStep::Delivery,
    ];
    assert_eq!(steps, all, "{good:?}");
    assert_eq!(good.server, format!("localhost:{}", postfix.port()));
    assert!(!good.transcript.is_empty() && !good.transcript.contains(postfix.password()), "{good:?}");
    assert_eq!(postfix.wait_for("jo", 1).await.len(), 1);

    let without_mail = test_smtp(&server, "", json!({})).await;
    assert!(without_mail.succeeded, "{without_mail:?}");
    assert_eq!(without_mail.steps.last().unwrap().step(), SmtpStep::Sender);

    let cases = [
        (json!({"email.smtp_password": "wrong"}), SmtpStep::Login, "535", "password"),
        (
            json!({"email.smtp_tls": "implicit", "email.smtp_password": postfix.password()}),
            SmtpStep::Tls,
            "",
            "starttls",
        ),
        (
            json!({"email.smtp_ca": "", "email.smtp_password": postfix.password()}),
            SmtpStep::Tls,
            "",
            "certificate",
        ),
        (json!({"email.from_address": REFUSED_SENDER}), SmtpStep::Sender, "553 5.7.1", "sender"),
    ];
    for (settings, step, reply, word) in cases {
        let response = test_smtp(&server, GOOD, settings).await;
        let failed = failed_step(&response);
        assert_eq!(failed.step(), step, "{response:?}");
        assert!(failed.reply.starts_with(reply), "{response:?}");
        assert!(failed.explanation.to_lowercase().contains(word), "{response:?}");
    }
    let unknown = test_smtp(&server, UNKNOWN, json!({})).await;
    let failed = failed_step(&unknown);
    assert_eq!(failed.step(), SmtpStep::Delivery, "{unknown:?}");
    assert!(failed.reply.starts_with("550 5.1.1"), "{unknown:?}");
    assert_eq!(postfix.mailbox("jo").len(), 1, "only the first test sent something to jo");
}

/// The server itself, as Python's `smtplib` finds it: so that a failure above is Switchboard's and not the harness's.
#[tokio::test]
async fn the_mail_server_is_as_the_tests_need_it() {
    let postfix = Postfix::start().await;
    let script = r#"
import json, smtplib, ssl, sys
port, user, password, ca, refused, good, unknown = sys.argv[1:]
def connect():
    smtp = smtplib.SMTP("127.0.0.1", int(port))
    smtp._host = "localhost"  # What the certificate is checked against.
    smtp.starttls(context=ssl.create_default_context(cadata=ca))
    return smtp
with connect() as smtp:
    stranger = [smtp.mail("desk@pumps.example")[0], smtp.rcpt(good)[0]]
with connect() as smtp:
    try:
        smtp.login(user, "wrong")
        wrong = None
    except smtplib.SMTPAuthenticationError as error:
        wrong = error.smtp_code
with connect() as smtp:
    smtp.login(user, password)
    sender = smtp.mail(refused)[0]
    smtp.rset()
    failed = smtp.sendmail("desk@pumps.example", [good, unknown], "Subject: by smtplib\n\nhello\n")
    failed = {address: f"{code} {reply.decode()}"[:9] for address, (code, reply) in failed.items()}
print(json.dumps({"stranger": stranger, "wrong": wrong, "sender": sender, "failed": failed}))
"#;
    let port = postfix.port().to_string();
    let args = [
        "-c",
        script,
        &port,
        postfix.user(),
        postfix.password(),
        postfix.ca_pem(),
        REFUSED_SENDER,
        GOOD,
        UNKNOWN,
    ];
    let said = run(tool("python"), args.map(std::ffi::OsStr::new), b"").await.expect_success();
    let said: Value = serde_json::from_str(&said).unwrap();
    let expected =
        json!({"stranger": [250, 554], "wrong": 535, "sender": 553, "failed": {UNKNOWN: "550 5.1.1"}});
    assert_eq!(said, expected, "{}", postfix.log());
    let [arrived] = postfix.wait_for("jo", 1).await.try_into().unwrap();
    assert!(arrived.contains("\nSubject: by smtplib\n"), "{arrived}");
}
