//! Secrets of webhook endpoints: brought, replaced with and without an overlap, and private keys whose public ones are
//! published; as the verifiers see them that others wrote.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};
use switchboard::clock::Clock;
use switchboard_client::webhook::v1::{
    CreateWebhookRequest, CreateWebhookResponse, GetWebhookRequest, RotateWebhookSecretRequest,
    RotateWebhookSecretResponse, Webhook, WebhookSigning,
};
use tonic::{Code, Status};

use crate::deliverability::get;
use crate::harness::receiver::{Received, Receiver};
use crate::harness::server::Server;
use crate::harness::{SOON, on_both, status};
use crate::signatures::{Case, ask, assert_verdicts};

/// Shorter than what verifiers let the time of a request be wrong by.
const MINUTE: prost_types::Duration = prost_types::Duration { seconds: 60, nanos: 0 };

async fn create(
    server: &Server,
    receiver: &Receiver,
    signing: WebhookSigning,
    secret: &str,
) -> Result<CreateWebhookResponse, Status> {
    let webhook = Webhook {
        name: "signed".into(),
        url: receiver.url("/"),
        event_types: vec!["*".into()],
        signing: signing.into(),
        ..Default::default()
    };
    let request =
        CreateWebhookRequest { webhook: Some(webhook), secret: secret.into(), ..Default::default() };
    Ok(server.client.webhooks().create_webhook(request).await?.into_inner())
}

async fn rotate(
    server: &Server,
    request: RotateWebhookSecretRequest,
) -> Result<RotateWebhookSecretResponse, Status> {
    Ok(server.client.webhooks().rotate_webhook_secret(request).await?.into_inner())
}

/// The request of one more event.
async fn next(server: &Server, receiver: &Receiver) -> Received {
    let number = receiver.received().len();
    server.publish("signed.event", r#"{"n":1}"#).await;
    receiver.wait_for(number + 1, SOON).await.remove(number)
}

async fn accepts_public(request: &Received, keys: &[&str]) -> Vec<Value> {
    let cases: Vec<_> = keys.iter().map(|key| Case::of(request, key)).collect();
    ask("python", "verify_public.py", &cases).await
}

async fn published_keys(server: &Server, id: &str) -> Vec<String> {
    let answer = get(server, &format!("{}/.well-known/webhooks/{id}/jwks.json", server.url())).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/jwk-set+json");
    let set: Value = serde_json::from_slice(answer.body()).unwrap();
    let keys = set["keys"].as_array().unwrap();
    assert!(keys.iter().all(|key| key["kty"] == "OKP" && key["crv"] == "Ed25519"), "{set}");
    keys.iter().map(|key| key["x"].as_str().unwrap().to_owned()).collect()
}

on_both! {
    async fn published_verifiers_accept_before_during_and_after_a_rotation(server: Server) {
        let receiver = Receiver::start().await;
        let (webhook, old) = server.webhook_to(&receiver, &["*"]).await;
        let before = next(&server, &receiver).await;
        assert_verdicts(&[Case::of(&before, &old)], true, true).await;

        let request = RotateWebhookSecretRequest { webhook_id: webhook.id.clone(), overlap: Some(MINUTE), ..Default::default() };
        let RotateWebhookSecretResponse { webhook: rotated, secret: new } = rotate(&server, request).await.unwrap();
        let rotated = rotated.unwrap();
        assert!(new.starts_with("whsec_") && new != old);
        assert_ne!(rotated.etag, webhook.etag);
        let end = rotated.previous_secret_expire_time.unwrap();
        assert_eq!(end.seconds, server.clock.now().seconds() + 60);
        let during = next(&server, &receiver).await;
        // The plain header has room for one signature: the newest secret's.
        assert_verdicts(&[Case::of(&during, &new)], true, true).await;
        assert_verdicts(&[Case::of(&during, &old)], false, true).await;
        assert_verdicts(&[Case::of(&before, &new)], false, false).await;

        server.advance(Duration::from_secs(60));
        let after = next(&server, &receiver).await;
        assert_verdicts(&[Case::of(&after, &new)], true, true).await;
        assert_verdicts(&[Case::of(&after, &old)], false, false).await;
        let read = GetWebhookRequest { webhook_id: webhook.id };
        let read = server.client.webhooks().get_webhook(read).await.unwrap().into_inner().webhook.unwrap();
        assert_eq!(read.previous_secret_expire_time, None);
    }

    async fn without_an_overlap_every_older_secret_ends_at_once(server: Server) {
        let receiver = Receiver::start().await;
        let (webhook, first) = server.webhook_to(&receiver, &["*"]).await;
        let request = RotateWebhookSecretRequest { webhook_id: webhook.id.clone(), overlap: Some(MINUTE), ..Default::default() };
        let second = rotate(&server, request).await.unwrap().secret;
        let request = RotateWebhookSecretRequest { webhook_id: webhook.id, ..Default::default() };
        let answer = rotate(&server, request).await.unwrap();
        assert_eq!(answer.webhook.unwrap().previous_secret_expire_time, None);
        let request = next(&server, &receiver).await;
        assert_verdicts(&[Case::of(&request, &answer.secret)], true, true).await;
        assert_verdicts(&[Case::of(&request, &first), Case::of(&request, &second)], false, false).await;
    }

    async fn former_secrets_live_through_a_restart(server: Server) {
        let receiver = Receiver::start().await;
        let (webhook, old) = server.webhook_to(&receiver, &["*"]).await;
        let request = RotateWebhookSecretRequest { webhook_id: webhook.id, overlap: Some(MINUTE), ..Default::default() };
        let new = rotate(&server, request).await.unwrap().secret;
        let server = server.restart().await;
        let request = next(&server, &receiver).await;
        assert_verdicts(&[Case::of(&request, &new)], true, true).await;
        assert_verdicts(&[Case::of(&request, &old)], false, true).await;
    }

    async fn a_secret_of_ones_own_is_taken_if_it_is_one(server: Server) {
        let receiver = Receiver::start().await;
        let own = format!("whsec_{}", STANDARD.encode([7; 24]));
        let created = create(&server, &receiver, WebhookSigning::Unspecified, &own).await.unwrap();
        assert_eq!(created.secret, own);
        let request = next(&server, &receiver).await;
        assert_verdicts(&[Case::of(&request, &own)], true, true).await;

        let id = created.webhook.unwrap().id;
        let with = |secret: &str| RotateWebhookSecretRequest { webhook_id: id.clone(), secret: secret.into(), ..Default::default() };
        for bad in ["hunter2", "whsec_", "whsec_c2hvcnQ=", "whsk_c2hvcnQ=", &format!("whsk_{}", STANDARD.encode([7; 32])), &own] {
            let refused = rotate(&server, with(bad)).await.unwrap_err();
            status::expect_violations(&refused, &["secret"]);
            assert!(!format!("{refused:?}").contains("hunter2"), "a secret is not told");
        }
        let refused = create(&server, &receiver, WebhookSigning::Ed25519, &own).await.unwrap_err();
        status::expect_violations(&refused, &["secret"]);
        let other = format!("whsec_{}", STANDARD.encode([8; 64]));
        assert_eq!(rotate(&server, with(&other)).await.unwrap().secret, other);
        let request = next(&server, &receiver).await;
        assert_verdicts(&[Case::of(&request, &other)], true, true).await;
    }

    async fn overlaps_are_bounded_in_time_and_number(server: Server) {
        let receiver = Receiver::start().await;
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        let with = |seconds| RotateWebhookSecretRequest {
            webhook_id: webhook.id.clone(),
            overlap: Some(prost_types::Duration { seconds, nanos: 0 }),
            ..Default::default()
        };
        for bad in [-1, 7 * 86_400 + 1] {
            status::expect_violations(&rotate(&server, with(bad)).await.unwrap_err(), &["overlap"]);
        }
        for _ in 0..9 {
            rotate(&server, with(7 * 86_400)).await.unwrap();
        }
        status::expect_violations(&rotate(&server, with(60)).await.unwrap_err(), &["overlap"]);
        let request = next(&server, &receiver).await;
        assert_eq!(request.header("webhook-signature").unwrap().split(' ').count(), 10);
        let unknown = RotateWebhookSecretRequest { webhook_id: "wh_00000000000000000000000000".into(), ..Default::default() };
        status::expect(&rotate(&server, unknown).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
    }

    async fn a_private_key_signs_and_its_public_key_is_published(server: Server) {
        let receiver = Receiver::start().await;
        let created = create(&server, &receiver, WebhookSigning::Ed25519, "").await.unwrap();
        let webhook = created.webhook.unwrap();
        assert_eq!((created.secret.as_str(), webhook.signing()), ("", WebhookSigning::Ed25519));
        let first = webhook.public_key.as_str();
        assert!(first.starts_with("whpk_"), "{first}");
        let request = next(&server, &receiver).await;
        assert_eq!(request.header("x-webhook-signature"), None, "there is no secret that both sides know");
        let set = published_keys(&server, &webhook.id).await;
        assert_eq!(set.len(), 1);
        assert_eq!(accepts_public(&request, &[first, &set[0]]).await, [json!(true), json!(true)]);

        let again = RotateWebhookSecretRequest { webhook_id: webhook.id.clone(), overlap: Some(MINUTE), ..Default::default() };
        let second = rotate(&server, again).await.unwrap().webhook.unwrap().public_key;
        let during = next(&server, &receiver).await;
        assert_eq!(accepts_public(&during, &[first, &second]).await, [json!(true), json!(true)]);
        assert_eq!(accepts_public(&request, &[&second]).await, [json!(false)]);
        assert_eq!(published_keys(&server, &webhook.id).await.len(), 2);

        let shared = RotateWebhookSecretRequest {
            webhook_id: webhook.id.clone(),
            overlap: Some(MINUTE),
            signing: WebhookSigning::HmacSha256.into(),
            ..Default::default()
        };
        let answer = rotate(&server, shared).await.unwrap();
        assert_eq!(answer.webhook.unwrap().public_key, "");
        let mixed = next(&server, &receiver).await;
        assert_eq!(accepts_public(&mixed, &[&second]).await, [json!(true)]);
        assert_verdicts(&[Case::of(&mixed, &answer.secret)], true, true).await;
        server.advance(Duration::from_secs(60));
        assert_eq!(published_keys(&server, &webhook.id).await, [""; 0]);
        let unknown = format!("{}/.well-known/webhooks/wh_00000000000000000000000000/jwks.json", server.url());
        assert_eq!(get(&server, &unknown).await.status(), StatusCode::NOT_FOUND);
    }
}
