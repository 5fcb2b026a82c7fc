//! What the audit log tells of an endpoint: fingerprints in the place of secrets, and of headers, which may hold some.

use serde_json::{Map, Value, json};

use super::model::Webhook;
use crate::audit::{self, Recorder};
use crate::secret::SecretText;

/// An endpoint's fields.
pub(super) fn fields(webhook: &Webhook, audit: &Recorder) -> Map<String, Value> {
    let place = |name: &str| format!("webhooks/{}/{name}", webhook.id);
    let headers: Map<String, Value> = webhook
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), audit.fingerprint(&place(name), value).into()))
        .collect();
    audit::fields(&json!({
        "name": webhook.name,
        "url": webhook.url,
        "event_types": webhook.event_types,
        "description": webhook.description,
        "active": webhook.active,
        "headers": headers,
        "options": webhook.options,
        "public_key": webhook.public_key,
        "previous_secret_expire_time": webhook.previous_secret_expires_at.map(|time| time.to_string()),
        "disabled_reason": webhook.disabled_reason,
    }))
}

/// The fields with a fingerprint of one secret, such as `secret` or `client_key`.
pub(super) fn fields_with(
    webhook: &Webhook,
    audit: &Recorder,
    name: &'static str,
    secret: &SecretText,
) -> Map<String, Value> {
    let mut fields = fields(webhook, audit);
    let place = format!("webhooks/{}/{name}", webhook.id);
    fields.insert(name.into(), audit.fingerprint(&place, secret.reveal()).into());
    fields
}
