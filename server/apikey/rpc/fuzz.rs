//! Requests about keys.

use super::{convert, pb};
use crate::apikey::policy::Policy;
use crate::apikey::verify::Verification;
use crate::fuzz::accepts;
use crate::fuzz::wire::{choose, decode, decode_as};
use crate::rpc::admission::parse_network;
use crate::rpc::mask::{self, Mask};
use crate::scope;

fn changes(change: &crate::apikey::model::KeyChange) {
    if !accepts(|violations| change.check(violations)) {
        return;
    }
    let texts = [&change.name, &change.description, &change.external_id, &change.metadata];
    assert!(
        texts.into_iter().flatten().all(|text| !text.contains('\0')),
        "the database has no place for NUL"
    );
    if let Some(metadata) = &change.metadata {
        let value: serde_json::Value = serde_json::from_str(metadata).expect("it is JSON");
        assert!(value.is_object() && metadata.len() <= 4 * 1024);
        assert_eq!(
            convert::from_metadata(convert::metadata(metadata)),
            *metadata,
            "it comes back as it went"
        );
    }
    let scopes = change.scopes.iter().flatten();
    assert!(scopes.clone().count() <= 100);
    for held in scopes {
        assert_eq!(scope::check(held), Ok(()));
    }
    let networks = [&change.allowed_networks, &change.denied_networks].into_iter().flatten().flatten();
    assert!(networks.map(|network| parse_network(network)).all(|network| network.is_some()));
    for limit in change.rate_limits.iter().flatten() {
        assert!(limit.limit > 0 && limit.period.as_secs() > 0 && !limit.name.is_empty());
    }
    if let Some(Some(credits)) = change.credits {
        assert!(credits.remaining >= 0 && credits.refill_amount >= 0);
    }
}

fn verify(request: pb::VerifyApiKeyRequest) {
    let verification = Verification::from(request);
    let check = |violations: &mut crate::error::Violations| {
        let _ = verification.check(violations);
    };
    if accepts(check) {
        assert!(verification.all_of.len() <= 100 && verification.any_of.len() <= 100);
        assert!(verification.path.len() <= 2_048 && !verification.path.contains(char::is_control));
        assert!(
            verification.client_ip.is_empty() || verification.client_ip.parse::<std::net::IpAddr>().is_ok()
        );
    }
}

/// A request, and which one it is.
pub fn api_key_requests(data: &[u8]) {
    let Some((which, message)) = choose(data, 5) else { return };
    match which {
        0 => {
            if let Some(request) = decode::<pb::CreateApiKeyRequest>(message) {
                let days = Policy::default().days(request.expires_in_days);
                assert!(days.is_err() || days.is_ok_and(|days| (1..=365).contains(&days)));
                changes(&convert::fields(request));
            }
        }
        1 => {
            if let Some(pb::UpdateApiKeyRequest { api_key: Some(key), update_mask }) = decode(message)
                && let (Ok(mask), Ok(version)) =
                    (Mask::read(update_mask, &convert::CHANGEABLE), mask::version(&key.etag))
            {
                changes(&convert::change(&mask, key, version));
            }
        }
        2 => decode(message).into_iter().for_each(verify),
        3 => {
            if let Some(batch) = decode::<pb::BatchVerifyApiKeysRequest>(message) {
                batch.requests.into_iter().for_each(verify);
            }
        }
        _ => decode_as!(message;
            GetApiKeyRequest ListApiKeysRequest RotateApiKeyRequest RevokeApiKeyRequest
            GetApiKeyUsageRequest ListApiKeyLogsRequest ListScopesRequest CreateScopeRequest
            DeleteScopeRequest
        ),
    }
}
