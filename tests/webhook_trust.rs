//! Trust between the server and an endpoint: authorities of the endpoint's own, and client certificates.

use std::process::Stdio;

use prost_types::FieldMask;
use switchboard_client::Client;
use switchboard_client::webhook::v1::{
    CreateWebhookRequest, GetWebhookRequest, ListWebhooksRequest, TestWebhookRequest, UpdateWebhookRequest,
    Webhook,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tonic::Status;

use crate::harness::tls::{Authority, Issued, TlsReceiver, name_of};
use crate::harness::{SOON, on_both, status};
use crate::settings::in_database;

const HTTP1: &[&str] = &["http/1.1"];
const HTTP2: &[&str] = &["h2", "http/1.1"];

pub fn endpoint(url: &str) -> Webhook {
    Webhook { name: "trusted".into(), url: url.into(), event_types: vec!["*".into()], ..Default::default() }
}

pub async fn create(client: &Client, webhook: Webhook) -> Result<Webhook, Status> {
    let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
    Ok(client.webhooks().create_webhook(request).await?.into_inner().webhook.unwrap())
}

/// Changes the fields that are named.
async fn update(client: &Client, webhook: Webhook, fields: &[&str]) -> Result<Webhook, Status> {
    let paths = fields.iter().map(|&field| field.to_owned()).collect();
    let request = UpdateWebhookRequest { webhook: Some(webhook), update_mask: Some(FieldMask { paths }) };
    Ok(client.webhooks().update_webhook(request).await?.into_inner().webhook.unwrap())
}

async fn get(client: &Client, id: &str) -> Webhook {
    let request = GetWebhookRequest { webhook_id: id.into() };
    client.webhooks().get_webhook(request).await.unwrap().into_inner().webhook.unwrap()
}

/// Sends a test; answers why it failed, or nothing.
pub async fn probe(client: &Client, id: &str) -> String {
    let request = TestWebhookRequest { webhook_id: id.into(), event_type: "ticket.created".into() };
    let answer = client.webhooks().test_webhook(request).await.unwrap().into_inner();
    assert_eq!(answer.succeeded, answer.attempt.as_ref().unwrap().error.is_empty());
    answer.attempt.unwrap().error
}

fn with_identity(webhook: Webhook, identity: &Issued) -> Webhook {
    let Issued { certificate, key } = identity.clone();
    Webhook { client_certificate: certificate, client_key: key, ..webhook }
}

/// The name in the certificate that the last connection was made with.
async fn last_shown(receiver: &TlsReceiver) -> String {
    name_of(receiver.shown().last().unwrap().as_ref().expect("a certificate")).await
}

on_both! {
    async fn an_authority_of_the_endpoints_own_is_trusted(server: Server) {
        let (authority, other) = (Authority::new().await, Authority::named("Another").await);
        let namesake = Authority::new().await;
        let receiver = TlsReceiver::start(&authority.server().await, HTTP2, None).await;
        let client = &server.client;
        let webhook = create(client, endpoint(&receiver.url("/"))).await.unwrap();
        let refused = probe(client, &webhook.id).await;
        assert!(refused.contains("put the authority's into ca_certificates"), "{refused}");

        let id = || Webhook { id: webhook.id.clone(), ..Default::default() };
        let trusting = |pem: &str| Webhook { ca_certificates: pem.into(), ..id() };
        for wrong in [&other, &namesake] {
            update(client, trusting(&wrong.certificate), &["ca_certificates"]).await.unwrap();
            assert_eq!(probe(client, &webhook.id).await, refused);
        }
        let both = format!("{}{}", other.certificate, authority.certificate);
        let updated = update(client, trusting(&both), &["ca_certificates"]).await.unwrap();
        assert_eq!(updated.ca_certificates, both);
        assert_eq!(probe(client, &webhook.id).await, "");
        server.publish("a.b", "{}").await;
        receiver.inner.wait_for(2, SOON).await;
        // What is not named stays, and it lives through a restart.
        update(client, Webhook { name: "other".into(), ..id() }, &["name"]).await.unwrap();
        let server = server.restart().await;
        let client = &server.client;
        assert_eq!(get(client, &webhook.id).await.ca_certificates, both);
        assert_eq!(probe(client, &webhook.id).await, "");

        let updated = update(client, id(), &["ca_certificates"]).await.unwrap();
        assert_eq!(updated.ca_certificates, "");
        assert_eq!(probe(client, &webhook.id).await, refused);
        // Another endpoint is not concerned.
        let other = create(client, Webhook { ca_certificates: both, ..endpoint(&receiver.url("/")) }).await.unwrap();
        assert_eq!(probe(client, &other.id).await, "");
        assert_eq!(probe(client, &webhook.id).await, refused);
    }

    async fn a_client_certificate_is_shown_where_one_is_demanded(server: Server) {
        let (authority, stranger) = (Authority::new().await, Authority::named("A stranger").await);
        let namesake = Authority::new().await;
        let (first, second) = (authority.client("first").await, authority.client("second").await);
        let client = &server.client;
        for protocols in [HTTP1, HTTP2] {
            let receiver = TlsReceiver::start(&authority.server().await, protocols, Some(&authority)).await;
            let plain = Webhook { ca_certificates: authority.certificate.clone(), ..endpoint(&receiver.url("/")) };
            let webhook = create(client, plain).await.unwrap();
            let refused = probe(client, &webhook.id).await;
            assert!(refused.contains("demands a client certificate"), "{protocols:?}: {refused}");

            let id = || Webhook { id: webhook.id.clone(), ..Default::default() };
            let fields = ["client_certificate", "client_key"];
            let updated = update(client, with_identity(id(), &first), &fields).await.unwrap();
            assert_eq!((&updated.client_certificate, updated.client_key.as_str()), (&first.certificate, ""));
            assert_eq!(probe(client, &webhook.id).await, "");
            assert_eq!(last_shown(&receiver).await, "first");
            // Another one is shown from the next request on.
            update(client, with_identity(id(), &second), &fields).await.unwrap();
            server.publish("a.b", "{}").await;
            receiver.inner.wait_for(2, SOON).await;
            assert_eq!(last_shown(&receiver).await, "second");
            assert_eq!(receiver.shown().len(), 2);

            for foreign in [&stranger, &namesake] {
                update(client, with_identity(id(), &foreign.client("third").await), &fields).await.unwrap();
                let foreign = probe(client, &webhook.id).await;
                assert!(foreign.contains("does not accept the client certificate"), "{protocols:?}: {foreign}");
            }
            let updated = update(client, id(), &fields).await.unwrap();
            assert_eq!(updated.client_certificate, "");
            assert_eq!(probe(client, &webhook.id).await, refused);
            update(client, Webhook { active: false, ..id() }, &["active"]).await.unwrap();
        }
    }

    async fn a_key_stays_with_its_certificate(server: Server) {
        let authority = Authority::new().await;
        let receiver = TlsReceiver::start(&authority.server().await, HTTP2, Some(&authority)).await;
        let one = authority.client("one").await;
        let client = &server.client;
        let ca_certificates = authority.certificate.clone();
        let webhook = with_identity(Webhook { ca_certificates, ..endpoint(&receiver.url("/")) }, &one);
        let webhook = create(client, webhook).await.unwrap();
        assert_eq!(webhook.client_key, "");
        assert_eq!(probe(client, &webhook.id).await, "");
        // What was read can be written back, although the key is not in it.
        update(client, get(client, &webhook.id).await, &["*"]).await.unwrap();
        assert_eq!(probe(client, &webhook.id).await, "");
        // The same key in another form.
        let sec1 = crate::harness::tools::run("openssl", ["ec"], one.key.as_bytes()).await.expect_success();
        assert!(sec1.contains("EC PRIVATE KEY"));
        let again = Webhook { id: webhook.id.clone(), client_key: sec1, ..Default::default() };
        update(client, again, &["client_key"]).await.unwrap();
        assert_eq!(probe(client, &webhook.id).await, "");
        let server = server.restart().await;
        assert_eq!(probe(&server.client, &webhook.id).await, "");
        assert_eq!(last_shown(&receiver).await, "one");
    }

    async fn connections_live_as_long_as_what_they_were_made_with(server: Server) {
        let authority = Authority::new().await;
        let receiver = TlsReceiver::start(&authority.server().await, HTTP1, Some(&authority)).await;
        let one = authority.client("one").await;
        let client = &server.client;
        let ca_certificates = authority.certificate.clone();
        let webhook = with_identity(Webhook { ca_certificates, ..endpoint(&receiver.url("/")) }, &one);
        let first = create(client, webhook.clone()).await.unwrap();
        for number in 0..3 {
            assert_eq!(probe(client, &first.id).await, "");
            // Every change of an endpoint reads them all anew.
            create(client, endpoint(&format!("https://example.com/{number}"))).await.unwrap();
        }
        let same = create(client, webhook).await.unwrap();
        assert_eq!(probe(client, &same.id).await, "");
        assert_eq!(receiver.shown().len(), 1, "one connection for all of them");
    }

    async fn a_private_key_is_never_in_the_clear(server: Server) {
        let authority = Authority::new().await;
        let one = authority.client("one").await;
        let client = &server.client;
        let webhook = create(client, with_identity(endpoint("https://example.com/"), &one)).await.unwrap();
        let other = authority.client("other").await;
        let id = Webhook { id: webhook.id.clone(), ..Default::default() };
        let updated = update(client, with_identity(id, &other), &["client_certificate", "client_key"]).await.unwrap();
        let all = client.webhooks().list_webhooks(ListWebhooksRequest::default()).await.unwrap().into_inner().webhooks;
        let read = get(client, &webhook.id).await;
        assert!([&webhook, &updated, &read, &all[0]].iter().all(|webhook| webhook.client_key.is_empty()));
        assert!(in_database(&server, "https://example.com/").await, "what is no secret is found");
        for key in [&one.key, &other.key] {
            for line in key.lines().filter(|line| !line.starts_with('-')) {
                assert!(!in_database(&server, line).await, "{line}");
            }
        }
    }

    async fn what_can_not_be_used_is_refused_and_changes_nothing(server: Server) {
        let authority = Authority::new().await;
        let (one, other) = (authority.client("one").await, authority.client("other").await);
        let client = &server.client;
        let webhook = with_identity(endpoint("https://example.com/"), &one);
        let webhook = Webhook { ca_certificates: authority.certificate.clone(), ..webhook };
        let kept = create(client, webhook.clone()).await.unwrap();
        let id = || Webhook { id: kept.id.clone(), ..Default::default() };
        let long = format!("{}{}", authority.certificate, "\n".repeat(32 * 1024));
        let own = ["webhook.client_certificate", "webhook.client_key"];
        let cases: [(Webhook, &[&str], &[&str]); 8] = [
            (Webhook { ca_certificates: "nonsense".into(), ..id() }, &["ca_certificates"], &["webhook.ca_certificates"]),
            (Webhook { ca_certificates: long.clone(), ..id() }, &["ca_certificates"], &["webhook.ca_certificates"]),
            (Webhook { ca_certificates: one.key.clone(), ..id() }, &["ca_certificates"], &["webhook.ca_certificates"]),
            (Webhook { client_key: other.key.clone(), ..id() }, &["client_key"], &own[1..]),
            (Webhook { client_certificate: other.certificate.clone(), ..id() }, &["client_certificate"], &own[1..]),
            (
                Webhook { client_key: other.key.clone(), ..id() },
                &["client_certificate", "client_key"],
                &own[1..],
            ),
            (
                Webhook { client_certificate: long, client_key: "nonsense".into(), ..id() },
                &["client_certificate", "client_key"],
                &own,
            ),
            (
                Webhook { url: "http://example.com/".into(), name: "plain".into(), ..id() },
                &["url", "name"],
                &["webhook.ca_certificates", "webhook.client_certificate"],
            ),
        ];
        for (bad, mask, fields) in cases {
            let refused = update(client, bad.clone(), mask).await.unwrap_err();
            status::expect_violations(&refused, fields);
            assert!(!format!("{refused:?}").contains(one.key.lines().nth(1).unwrap()), "{refused:?}");
        }
        assert_eq!(get(client, &kept.id).await, kept);
        let refused = create(client, Webhook { url: "http://example.com/".into(), ..webhook }).await.unwrap_err();
        status::expect_violations(&refused, &["webhook.ca_certificates", "webhook.client_certificate"]);
    }
}

/// The server as a program of its own, which logs all that it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_key_is_not_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_switchboard"))
        .args(["serve", "--listen", "127.0.0.1:0", "--allow-network", "127.0.0.0/8", "--data"])
        .arg(folder.path().join("data"))
        .env_clear()
        .env("SWITCHBOARD_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let starting = async {
        let (mut url, mut key) = (None, None);
        while let Some(line) = lines.next_line().await.unwrap() {
            url = url.or(line.strip_prefix("switchboard is ready on ").map(str::to_owned));
            key = key.or(line.split_whitespace().find(|word| word.starts_with("swb_")).map(str::to_owned));
            if let (Some(url), Some(key)) = (&url, &key) {
                return Client::connect(String::clone(url), key).await.unwrap();
            }
        }
        panic!("it ended");
    };
    let client = tokio::time::timeout(SOON, starting).await.expect("it starts");
    let authority = Authority::new().await;
    let receiver = TlsReceiver::start(&authority.server().await, HTTP2, Some(&authority)).await;
    let one = authority.client("one").await;
    let ca_certificates = authority.certificate.clone();
    let webhook = with_identity(Webhook { ca_certificates, ..endpoint(&receiver.url("/")) }, &one);
    let bad = Webhook { client_key: one.key.replace("-----END", ""), ..webhook.clone() };
    create(&client, bad).await.unwrap_err();
    let webhook = create(&client, webhook).await.unwrap();
    assert_eq!(probe(&client, &webhook.id).await, "");
    child.kill().await.unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains(" TRACE ") || log.contains("DEBUG"), "it logs much");
    for line in one.key.lines().filter(|line| !line.starts_with('-')) {
        assert!(!log.contains(line), "{line}");
    }
}
