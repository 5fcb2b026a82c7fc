//! Requests about endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{CHANGEABLE, convert, pb};
use crate::clock::Timestamp;
use crate::fuzz::wire::{choose, decode, decode_as};
use crate::fuzz::{SameRandom, accepts};
use crate::rpc::mask::Mask;
use crate::secret::SecretText;
use crate::webhook::guard::Guard;
use crate::webhook::secret::{self, Signing};
use crate::webhook::{fuzz, mode, trust};

fn create(webhook: pb::Webhook, secret: String) {
    let signing = convert::signing(webhook.signing()).unwrap_or(Signing::Hmac);
    let _ = secret::choose(SecretText::new(secret), signing, &SameRandom(1));
    let (webhook, key) = convert::fields(webhook).into_new("wh_1".into(), Timestamp::from_micros(1));
    if !accepts(|violations| webhook.check(&Guard::default(), false, violations)) {
        return;
    }
    let _ = accepts(|violations| {
        let _ = trust::check(&webhook, "", key, violations);
    });
    assert!((1..=128).contains(&webhook.name.chars().count()) && !webhook.name.contains(char::is_control));
    assert!(!webhook.description.contains('\0'));
    assert!((1..=100).contains(&webhook.event_types.len()));
    let pulled = webhook.options.delivery_mode == mode::DeliveryMode::Pulled;
    if let Ok(url) = url::Url::parse(&webhook.url) {
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        assert!(!host.parse::<IpAddr>().is_ok_and(fuzz::is_inside), "{url}");
    } else {
        assert!(pulled && webhook.url.is_empty(), "{:?}", webhook.url);
    }
    // Each header is sent, as one line, and none that is the server's.
    let sent = webhook.header_map();
    let names: BTreeSet<_> = webhook.headers.keys().map(|name| name.to_ascii_lowercase()).collect();
    assert_eq!(sent.keys_len(), names.len());
    for (name, value) in &sent {
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{name}");
        let name = name.as_str();
        assert!(!["host", "content-length", "transfer-encoding", "connection"].contains(&name), "{name}");
        assert!(!name.starts_with("webhook-") && !name.starts_with("x-webhook-"), "{name}");
    }
    // It is kept as JSON, and read again.
    let kept = serde_json::to_string(&webhook.options).expect("it can be kept");
    let read: crate::webhook::policy::Options = serde_json::from_str(&kept).expect("it can be read");
    assert_eq!(read, webhook.options);
}

/// A request, and which one it is.
pub fn webhook_requests(data: &[u8]) {
    let Some((which, message)) = choose(data, 4) else { return };
    match which {
        0 | 1 => {
            if let Some(pb::CreateWebhookRequest { webhook: Some(webhook), secret, .. }) = decode(message) {
                create(webhook, secret);
            }
        }
        2 => {
            if let Some(pb::UpdateWebhookRequest { webhook: Some(webhook), update_mask }) = decode(message) {
                let _ = Mask::read(update_mask, &CHANGEABLE);
                create(webhook, String::new());
            }
        }
        _ => decode_as!(message;
            GetWebhookRequest ListWebhooksRequest DeleteWebhookRequest RotateWebhookSecretRequest
            TestWebhookRequest ListWebhookDeliveriesRequest GetWebhookDeliveryRequest
            RetryWebhookDeliveryRequest RetryFailedWebhookDeliveriesRequest GetWebhookStatsRequest
            ReplayWebhookEventsRequest PullWebhookEventsRequest AcknowledgeWebhookEventsRequest
        ),
    }
}
