//! DKIM: what the server signs verifies with a library that is not ours, and a key that can not sign is refused.

use serde_json::{Value, json};
use switchboard::clock::Timestamp;
use switchboard::email::dkim::{self, Signer};
use switchboard_client::email::v1::SendEmailRequest;

use crate::harness::smtp::SmtpSink;
use crate::harness::tools::{run, tool};
use crate::harness::{SOON, on_both, status};
use crate::settings::{change, set};

pub const RSA: &str = include_str!("../server/email/dkim/testdata/rsa2048.pem");
const WEAK: &str = include_str!("../server/email/dkim/testdata/rsa1024.pem");

/// A fresh Ed25519 key, as an administrator makes one.
async fn ed25519() -> String {
    run("openssl", ["genpkey", "-algorithm", "ed25519"], b"").await.expect_success()
}

/// What the verifier says about each signature of a message.
async fn verify(message: &[u8], records: &[(String, String)]) -> Vec<Value> {
    let records: serde_json::Map<_, _> =
        records.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let arguments = [tool("dkim_verify.py").into_os_string(), Value::Object(records).to_string().into()];
    let said = run(tool("python"), arguments, message).await.expect_success();
    serde_json::from_str(&said).unwrap()
}

fn assert_valid(said: &[Value], expected: &[(&str, &str)]) {
    let found: Vec<_> = said
        .iter()
        .map(|one| (one["selector"].as_str().unwrap(), one["algorithm"].as_str().unwrap()))
        .collect();
    assert_eq!(found, expected, "{said:?}");
    assert!(said.iter().all(|one| one["valid"] == true), "{said:?}");
}

#[tokio::test]
async fn signatures_verify_and_changed_messages_do_not() {
    let ed = Signer::new("example.com", "ed", &ed25519().await).unwrap();
    let rsa = Signer::new("example.com", "rsa", RSA).unwrap();
    let records = [ed.dns_record(), rsa.dns_record()];
    let signers = [ed, rsa];
    let message = "From: Jo <jo@example.com>\r\nTo: sam@example.com\r\nSubject:  A  long\r\n\tsubject \r\n\
        Date: Fri, 11 Jul 2003 21:00:37 -0700\r\nMIME-Version: 1.0\r\nX-Other: 1\r\n\r\n Body  with\tblanks \r\n\r\n.\r\n\r\n\r\n";
    let signed = |message: &str| {
        dkim::sign(&signers, message.as_bytes(), Timestamp::from_parts(1_700_000_000, 0)) + message
    };
    let good = signed(message);
    let both = [("ed", "ed25519-sha256"), ("rsa", "rsa-sha256")];
    assert_valid(&verify(good.as_bytes(), &records).await, &both);
    for empty in ["From: jo@example.com\r\n\r\n", "From: jo@example.com\r\n\r\n\r\n\r\n"] {
        assert_valid(&verify(signed(empty).as_bytes(), &records).await, &both);
    }
    // What a server on the way may do.
    let reflowed =
        good.replace("A  long\r\n\tsubject ", "A long subject").replace("X-Other: 1", "X-Other: 2");
    assert_valid(&verify(reflowed.as_bytes(), &records).await, &both);
    for (from, to) in [
        ("Body  with", "Body without"),
        ("Subject:", "Subject: Other\r\nSubject:"),
        ("X-Other: 1", "Reply-To: evil@example.com"),
        ("X-Other: 1", "List-Unsubscribe: <https://evil.example.com>"),
        ("X-Other: 1", "Content-Type: text/html"),
        ("jo@example.com", "sam@example.com"),
    ] {
        let changed = good.replacen(from, to, 1);
        let said = verify(changed.as_bytes(), &records).await;
        assert!(said.len() == 2 && said.iter().all(|one| one["valid"] == false), "{to}: {said:?}");
    }
    let said = verify(good.as_bytes(), &[]).await;
    assert!(said.iter().all(|one| one["valid"] == false), "{said:?}");
}

on_both! {
    async fn mails_are_signed_with_both_keys(server: Server) {
        let ed = ed25519().await;
        let sink = SmtpSink::start().await;
        set(&server.client, json!({
            "email.smtp_host": "127.0.0.1", "email.smtp_port": sink.port(), "email.smtp_tls": "none",
            "email.from_address": "desk@Bücher.example",
            "email.dkim_private_key": ed, "email.dkim_second_private_key": RSA,
        })).await;
        let records = [Signer::new("bücher.example", "switchboard", &ed), Signer::new("bücher.example", "switchboard2", RSA)]
            .map(|signer| signer.unwrap().dns_record());
        let request = SendEmailRequest {
            to: vec!["Zoë <zoe@example.com>".into()],
            subject: "Grüße  an alle".into(),
            html_body: "<p>Grüße,  \r\n.\r\nFrom here</p>\n\n\n".into(),
            plain_body: "Grüße \t\n.\nFrom here\n\n\n".into(),
            ..Default::default()
        };
        server.client.emails().send_email(request).await.unwrap();
        let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
        let message = mail.raw.replace("\r\n", "\n").replace('\n', "\r\n");
        let said = verify(message.as_bytes(), &records).await;
        assert_valid(&said, &[("switchboard", "ed25519-sha256"), ("switchboard2", "rsa-sha256")]);
        assert_eq!(said[0]["domain"], "xn--bcher-kva.example");
    }

    async fn keys_and_certificates_that_can_not_be_used_are_refused(server: Server) {
        let refuse = async |values: Value, fields: &[&str]| {
            let refused = server.client.settings().update_settings(change(&values)).await.unwrap_err();
            status::expect_violations(&refused, fields);
        };
        let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----";
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
        refuse(json!({"email.dkim_private_key": nonsense}), &["values[email.dkim_private_key]"]).await;
        refuse(
            json!({"email.dkim_second_private_key": WEAK, "email.smtp2_ca": certificate}),
            &["values[email.dkim_second_private_key]", "values[email.smtp2_ca]"],
        ).await;
        refuse(json!({"email.smtp_ca": certificate}), &["values[email.smtp_ca]"]).await;
        refuse(json!({"email.dkim_selector": "a b", "email.dkim_domain": "exa mple"}), &["values[email.dkim_domain]", "values[email.dkim_selector]"]).await;
        refuse(json!({"email.from_address": "jö@example.com"}), &["values[email.from_address]"]).await;
        let twice = json!({"email.dkim_private_key": RSA, "email.dkim_second_private_key": RSA, "email.dkim_second_selector": "Switchboard"});
        refuse(twice, &["values[email.dkim_second_selector]"]).await;
        set(&server.client, json!({"email.dkim_private_key": RSA})).await;
        set(&server.client, json!({"email.dkim_private_key": ""})).await;
    }
}
