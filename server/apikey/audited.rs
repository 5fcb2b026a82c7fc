//! What the audit log tells of a key: nothing that could be used as one.

use serde_json::{Map, Value, json};

use super::model::{NewCredits, RefillInterval};
use super::store::ApiKey;
use crate::audit;

/// A key's fields.
pub(super) fn fields(api_key: &ApiKey) -> Map<String, Value> {
    let metadata: Value = serde_json::from_str(&api_key.metadata).unwrap_or_default();
    audit::fields(&json!({
        "name": api_key.name,
        "description": api_key.description,
        "kind": String::from(api_key.kind),
        "scopes": api_key.scopes.0,
        "key_prefix": api_key.key_prefix,
        "active": api_key.active,
        "disabled": api_key.disabled,
        "expire_time": api_key.expires_at.to_string(),
        "external_id": api_key.external_id,
        "metadata": metadata,
        "rules": api_key.rules,
        "credits_id": api_key.credits_id,
        "replaces": api_key.replaces,
        "replaced_by": api_key.replaced_by,
    }))
}

/// A key's fields after a change that also sets its credits.
pub(super) fn fields_with(api_key: &ApiKey, credits: Option<NewCredits>) -> Map<String, Value> {
    let mut fields = fields(api_key);
    if let Some(credits) = credits {
        let NewCredits { remaining, refill_amount, refill_interval } = credits;
        let refilled = match refill_interval {
            RefillInterval::Never => "never",
            RefillInterval::Daily => "daily",
            RefillInterval::Monthly => "monthly",
        };
        let told =
            json!({"remaining": remaining, "refill_amount": refill_amount, "refill_interval": refilled});
        fields.insert("credits".into(), told);
    }
    fields
}
