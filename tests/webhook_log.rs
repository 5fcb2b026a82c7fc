//! The log: requests as they were sent and answers as they came.

use std::collections::HashMap;

use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::webhook::v1::{
    RotateWebhookSecretRequest, UpdateWebhookRequest, Webhook, WebhookAttempt, WebhookErrorKind,
};

use crate::deliveries::{details, until};
use crate::harness::on_both;
use crate::harness::receiver::{Behaviour, Received, Receiver};
use crate::harness::server::Server;
use crate::webhook_requests::{create, endpoint, retries, test};

/// The headers of a request as they arrived, but for those that HTTP itself adds, masked as the log does.
fn as_logged(request: &Received) -> HashMap<String, String> {
    let mut headers: HashMap<_, _> = request
        .headers
        .keys()
        .filter(|name| !["host", "content-length", "accept"].contains(&name.as_str()))
        .map(|name| (name.to_string(), request.header(name.as_str()).unwrap().to_owned()))
        .collect();
    for (name, masked) in
        [("webhook-signature", "v1,***"), ("x-webhook-signature", "sha256=***"), ("x-token", "***")]
    {
        if let Some(value) = headers.get_mut(name) {
            masked.clone_into(value);
        }
    }
    headers
}

async fn only_attempt(server: &Server, webhook: &Webhook, state: DeliveryState) -> WebhookAttempt {
    let delivery = until(server, &webhook.id, state, 1).await;
    let mut attempts = details(server, &delivery.id).await.attempts;
    assert_eq!(attempts.len(), 1);
    attempts.remove(0)
}

on_both! {
    async fn a_request_is_shown_as_it_was_sent_without_what_may_be_secret(server: Server) {
        let receiver = Receiver::start().await;
        let answer = [("x-answer", "one".to_owned()), ("x-answer", "two".to_owned()), ("set-cookie", "a=b".to_owned())];
        receiver.respond_with("/", Behaviour::Headers(200, answer.to_vec()));
        let headers = HashMap::from([("X-Token".to_owned(), "hidden-value".to_owned())]);
        let webhook = create(&server, Webhook { headers, ..endpoint(&receiver) }).await.unwrap();
        server.publish("a.b", r#"{ "exact" : 1.0 }"#).await;
        let attempt = only_attempt(&server, &webhook, DeliveryState::Succeeded).await;
        let request = receiver.received().remove(0);
        assert_eq!(attempt.url, receiver.url("/"));
        assert_eq!(attempt.request_headers, as_logged(&request));
        assert_eq!(attempt.request_body.as_bytes(), request.body);
        assert_eq!(attempt.response_headers["x-answer"], "one, two");
        assert_eq!(attempt.response_headers["set-cookie"], "a=b");
        assert_eq!(attempt.remote_address, receiver.address().to_string());
        assert_eq!(attempt.error_kind(), WebhookErrorKind::Unspecified);
        assert!(!format!("{attempt:?}").contains("hidden-value"));
    }

    async fn the_log_knows_what_an_endpoint_was_like_when_the_request_was_made(server: Server) {
        let receiver = Receiver::start().await;
        let first = create(&server, endpoint(&receiver)).await.unwrap();
        server.publish("a.b", "{}").await;
        let before = only_attempt(&server, &first, DeliveryState::Succeeded).await;
        let moved = Webhook { id: first.id.clone(), url: receiver.url("/moved"), ..Default::default() };
        let request = UpdateWebhookRequest { webhook: Some(moved), update_mask: None };
        server.client.webhooks().update_webhook(request).await.unwrap();
        let rotate = RotateWebhookSecretRequest { webhook_id: first.id.clone(), ..Default::default() };
        server.client.webhooks().rotate_webhook_secret(rotate).await.unwrap();
        assert_eq!(only_attempt(&server, &first, DeliveryState::Succeeded).await, before);
        assert_eq!(before.url, receiver.url("/"));
        let tested = test(&server, &first.id, "ticket.created").await.unwrap().attempt.unwrap();
        let request = receiver.received().remove(1);
        assert_eq!((tested.url, tested.request_headers), (receiver.url("/moved"), as_logged(&request)));
        assert_eq!(tested.request_body.as_bytes(), request.body);
    }

    async fn a_failure_is_named_in_a_word(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Status(400));
        let refused = create(&server, endpoint(&receiver)).await.unwrap();
        let gone = Receiver::start().await;
        let nobody = Webhook { retry_policy: retries(&[], false), ..endpoint(&gone) };
        drop(gone);
        let nobody = create(&server, nobody).await.unwrap();
        let plain = Webhook {
            url: receiver.url("/").replace("http:", "https:"),
            retry_policy: retries(&[], false),
            ..endpoint(&receiver)
        };
        let plain = create(&server, plain).await.unwrap();
        server.publish("a.b", "{}").await;
        let status = only_attempt(&server, &refused, DeliveryState::Failed).await;
        assert_eq!((status.error_kind(), status.response_status), (WebhookErrorKind::Status, 400));
        let connection = only_attempt(&server, &nobody, DeliveryState::Failed).await;
        assert_eq!((connection.error_kind(), connection.remote_address.as_str()), (WebhookErrorKind::Connection, ""));
        assert!(connection.request_headers.contains_key("webhook-id"), "what was sent is shown all the same");
        let tls = only_attempt(&server, &plain, DeliveryState::Failed).await;
        assert_eq!(tls.error_kind(), WebhookErrorKind::Tls);
        assert_eq!(tls.url, plain.url);
        assert!(tls.request_body.contains(r#""data":{}"#));
    }

    async fn long_answers_that_end_at_once_are_all_kept(server: Server) {
        const ENDPOINTS: usize = 40;
        let receiver = Receiver::start().await;
        // Not text, and longer than what is kept.
        receiver.respond_with("/", Behaviour::Text(500, "\0".repeat(100_000)));
        let mut webhooks = Vec::new();
        for number in 0..ENDPOINTS {
            let one = Webhook { name: format!("n{number}"), retry_policy: retries(&[], false), ..endpoint(&receiver) };
            webhooks.push(create(&server, one).await.unwrap());
        }
        server.publish("a.b", "{}").await;
        for webhook in webhooks {
            let attempt = only_attempt(&server, &webhook, DeliveryState::Failed).await;
            assert_eq!(attempt.response_body, "\u{fffd}".repeat(64 * 1024 / 3));
        }
    }
}
