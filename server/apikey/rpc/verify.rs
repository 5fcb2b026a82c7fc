//! Verifications on the wire.

use super::super::verify::{Code, Verdict, Verification};
use super::convert;
use crate::apikey::model::KeyKind;
use crate::pb::switchboard::apikey::v1 as pb;
use crate::rpc::convert::{duration, timestamp};
use crate::secret::SecretText;

impl From<pb::VerifyApiKeyRequest> for Verification {
    fn from(request: pb::VerifyApiKeyRequest) -> Self {
        let pb::VerifyApiKeyRequest { key, all_of, any_of, cost, rate_limits, method, path, client_ip } =
            request;
        Self { key: SecretText::new(key), all_of, any_of, cost, rate_limits, method, path, client_ip }
    }
}

impl From<Verdict> for pb::VerifyApiKeyResponse {
    fn from(verdict: Verdict) -> Self {
        let Verdict { code, record, missing, limits, credits, retry_after } = verdict;
        let mut answer = Self {
            code: wire(code).into(),
            valid: code == Code::Valid,
            missing_scopes: missing,
            remaining_credits: credits.map(|credits| credits.remaining),
            retry_after: retry_after.map(duration),
            ..Self::default()
        };
        answer.rate_limits = limits
            .into_iter()
            .map(|limit| pb::RateLimitState {
                name: limit.name,
                limit: limit.limit,
                remaining: limit.remaining,
                reset_after: Some(duration(limit.full_after)),
            })
            .collect();
        if let Some(record) = record {
            let kind = match record.kind {
                KeyKind::Live => pb::KeyKind::Live,
                KeyKind::Test => pb::KeyKind::Test,
            };
            answer.kind = kind.into();
            answer.api_key_id = (*record.principal.key_id).to_owned();
            answer.external_id = record.external_id().to_owned();
            answer.metadata = convert::metadata(record.metadata());
            answer.scopes = record.principal.scopes.to_vec();
            answer.expire_time = Some(timestamp(record.expires_at));
        }
        answer
    }
}

fn wire(code: Code) -> pb::VerificationCode {
    match code {
        Code::Valid => pb::VerificationCode::Valid,
        Code::Invalid => pb::VerificationCode::Invalid,
        Code::Revoked => pb::VerificationCode::Revoked,
        Code::Expired => pb::VerificationCode::Expired,
        Code::Disabled => pb::VerificationCode::Disabled,
        Code::IpNotAllowed => pb::VerificationCode::IpNotAllowed,
        Code::ScopeMissing => pb::VerificationCode::ScopeMissing,
        Code::RateLimited => pb::VerificationCode::RateLimited,
        Code::CreditsExhausted => pb::VerificationCode::CreditsExhausted,
    }
}
