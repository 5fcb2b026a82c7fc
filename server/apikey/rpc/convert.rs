//! Between the wire and the model.

use std::collections::HashMap;
use std::time::Duration;

use super::super::credits::Credits;
use super::super::model::{KeyChange, KeyKind, NewCredits, RateLimit, RefillInterval};
use super::super::store::ApiKey;
use super::super::warnings::Remarks;
use crate::clock::Timestamp;
use crate::pb::switchboard::apikey::v1 as pb;
use crate::rpc::convert::{duration, from_duration, from_json, from_timestamp, json, timestamp};
use crate::rpc::mask::Mask;

/// The fields of a key that an update can change.
pub(super) const CHANGEABLE: [&str; 11] = [
    "name",
    "description",
    "scopes",
    "expire_time",
    "external_id",
    "metadata",
    "disabled",
    "rate_limits",
    "credits",
    "allowed_networks",
    "denied_networks",
];

/// A key for the wire, with its credits and its use among those of all.
pub(super) fn api_key(
    key: ApiKey,
    credits: &HashMap<String, Credits>,
    remarks: &HashMap<String, Remarks>,
    now: Timestamp,
) -> pb::ApiKey {
    let remarks = remarks.get(&key.id).cloned().unwrap_or_default();
    let credits = key.credits_id.as_ref().and_then(|id| credits.get(id));
    let kind = match key.kind {
        KeyKind::Live => pb::KeyKind::Live,
        KeyKind::Test => pb::KeyKind::Test,
    };
    pb::ApiKey {
        active: key.works(now),
        id: key.id,
        name: key.name,
        description: key.description,
        scopes: key.scopes.0,
        key_prefix: key.key_prefix,
        create_time: Some(timestamp(key.created_at)),
        expire_time: Some(timestamp(key.expires_at)),
        revoke_time: key.revoked_at.map(timestamp),
        kind: kind.into(),
        external_id: key.external_id,
        metadata: metadata(&key.metadata),
        disabled: key.disabled,
        rate_limits: key.rules.rate_limits.into_iter().map(pb::RateLimit::from).collect(),
        credits: credits.map(pb::Credits::from),
        allowed_networks: key.rules.allowed_networks,
        denied_networks: key.rules.denied_networks,
        replaces: key.replaces.unwrap_or_default(),
        replaced_by: key.replaced_by.unwrap_or_default(),
        created_by: key.created_by,
        etag: key.version.to_string(),
        update_time: Some(timestamp(key.updated_at)),
        last_use_time: remarks.last_used_at.map(timestamp),
        warnings: remarks.warnings.into_iter().map(|warning| super::usage::warning(warning).into()).collect(),
    }
}

/// Metadata for the wire; unset when there is none.
pub(super) fn metadata(text: &str) -> Option<prost_types::Struct> {
    match serde_json::from_str(text) {
        Ok(serde_json::Value::Object(fields)) if !fields.is_empty() => Some(from_json(fields)),
        _ => None,
    }
}

/// Metadata from the wire, as JSON.
pub(super) fn from_metadata(metadata: Option<prost_types::Struct>) -> String {
    serde_json::Value::Object(metadata.map(json).unwrap_or_default()).to_string()
}

/// What a new key is like.
pub(super) fn fields(request: pb::CreateApiKeyRequest) -> KeyChange {
    KeyChange {
        name: Some(request.name),
        description: Some(request.description),
        scopes: Some(request.scopes),
        expires_at: None,
        external_id: Some(request.external_id),
        metadata: Some(from_metadata(request.metadata)),
        disabled: Some(request.disabled),
        rate_limits: Some(request.rate_limits.into_iter().map(RateLimit::from).collect()),
        credits: request.credits.map(|credits| Some(credits.into())),
        allowed_networks: Some(request.allowed_networks),
        denied_networks: Some(request.denied_networks),
        version: None,
    }
}

/// What an update changes.
pub(super) fn change(mask: &Mask, key: pb::ApiKey, version: Option<i64>) -> KeyChange {
    let rate_limits = |limits: Vec<pb::RateLimit>| limits.into_iter().map(RateLimit::from).collect();
    KeyChange {
        name: mask.take("name", key.name),
        description: mask.take("description", key.description),
        scopes: mask.take("scopes", key.scopes),
        expires_at: mask.take("expire_time", key.expire_time.map(from_timestamp)),
        external_id: mask.take("external_id", key.external_id),
        metadata: mask.take("metadata", key.metadata).map(from_metadata),
        disabled: mask.take("disabled", key.disabled),
        rate_limits: mask.take("rate_limits", key.rate_limits).map(rate_limits),
        credits: mask.take("credits", key.credits.map(NewCredits::from)),
        allowed_networks: mask.take("allowed_networks", key.allowed_networks),
        denied_networks: mask.take("denied_networks", key.denied_networks),
        version,
    }
}

/// A kind from the wire.
pub(super) fn kind(kind: pb::KeyKind) -> KeyKind {
    match kind {
        pb::KeyKind::Unspecified | pb::KeyKind::Live => KeyKind::Live,
        pb::KeyKind::Test => KeyKind::Test,
    }
}

impl From<pb::RateLimit> for RateLimit {
    fn from(limit: pb::RateLimit) -> Self {
        // A negative period is refused as one that is too short.
        let period = limit.period.and_then(from_duration).unwrap_or(Duration::ZERO);
        Self { name: limit.name, limit: limit.limit, period }
    }
}

impl From<RateLimit> for pb::RateLimit {
    fn from(limit: RateLimit) -> Self {
        Self { name: limit.name, limit: limit.limit, period: Some(duration(limit.period)) }
    }
}

impl From<pb::Credits> for NewCredits {
    fn from(credits: pb::Credits) -> Self {
        let refill_interval = match credits.refill_interval() {
            pb::RefillInterval::Unspecified => RefillInterval::Never,
            pb::RefillInterval::Daily => RefillInterval::Daily,
            pb::RefillInterval::Monthly => RefillInterval::Monthly,
        };
        let pb::Credits { remaining, refill_amount, .. } = credits;
        Self { remaining, refill_amount, refill_interval }
    }
}

impl From<&Credits> for pb::Credits {
    fn from(credits: &Credits) -> Self {
        let interval = match credits.refill_interval {
            RefillInterval::Never => pb::RefillInterval::Unspecified,
            RefillInterval::Daily => pb::RefillInterval::Daily,
            RefillInterval::Monthly => pb::RefillInterval::Monthly,
        };
        Self {
            remaining: credits.remaining,
            refill_amount: credits.refill_amount,
            refill_interval: interval.into(),
            refill_time: credits.refill_at.map(timestamp),
        }
    }
}
