//! Verification by HTTP, for applications and proxies that speak no gRPC.
//!
//! `POST /v1/verify` takes and answers JSON.  `/v1/forward-auth` answers a proxy that asks before it lets a request through, as
//! `auth_request` of nginx, `forward_auth` of Caddy and `ForwardAuth` of Traefik do: the request has the headers of the one that
//! it is about, and the status says what is to be done with that.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Code, Verdict, Verification};
use crate::apikey::model::KeyKind;
use crate::apikey::service::ApiKeyService;
use crate::clock::Stopwatch;
use crate::error::{Error, Kind, Result};
use crate::rpc::address::ClientAddress;
use crate::rpc::admission::Admission;
use crate::rpc::admission::quota::{self, Standing};
use crate::rpc::meter::Use;
use crate::rpc::{Principal, auth};
use crate::secret::SecretText;

/// What a caller must hold, as for the RPC.
const SCOPE: &str = "apikeys:verify";
/// The key of the proxy itself: the others are of the request that it asks about.
const PROXY_KEY: &str = "x-switchboard-key";
const BODY_LIMIT: usize = 64 * 1024;
const BODY_TIME: Duration = Duration::from_secs(10);

/// The routes.
pub fn routes(keys: Arc<ApiKeyService>, admission: Arc<Admission>) -> Router {
    let routes = Router::new().route("/v1/verify", post(verify)).route("/v1/forward-auth", any(forward));
    routes.with_state((keys, admission))
}

type Shared = State<(Arc<ApiKeyService>, Arc<Admission>)>;

/// What `POST /v1/verify` takes: the fields of `VerifyApiKeyRequest`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Question {
    key: String,
    all_of: Vec<String>,
    any_of: Vec<String>,
    cost: Option<i64>,
    rate_limits: Vec<String>,
    method: String,
    path: String,
    client_ip: String,
}

async fn verify(
    State((keys, admission)): Shared,
    extensions: Extensions,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let caller = Caller::new(&keys, &admission, &extensions, "/v1/verify");
    let answered = caller.authorize(auth::key(&headers)).await;
    let (principal, standing) = match answered {
        Ok(answered) => answered,
        Err(error) => return refusal(&error),
    };
    let mut response = match answer(&keys, body).await {
        Ok(verdict) => reply(StatusCode::OK, &shown(&verdict)),
        Err(error) => refusal(&error),
    };
    if let Some(standing) = standing {
        standing.tell(response.headers_mut());
    }
    caller.count(&principal, &response);
    response
}

async fn answer(keys: &ApiKeyService, body: Body) -> Result<Verdict> {
    let body = tokio::time::timeout(BODY_TIME, to_bytes(body, BODY_LIMIT)).await;
    let body = body.map_err(|_| Error::field("body", "took longer than 10 seconds"))?;
    let body = body.map_err(|_| Error::field("body", "must have at most 64 KiB"))?;
    let question: Question =
        serde_json::from_slice(&body).map_err(|error| Error::field("body", error.to_string()))?;
    let Question { key, all_of, any_of, cost, rate_limits, method, path, client_ip } = question;
    let key = SecretText::new(key);
    keys.verify(&Verification { key, all_of, any_of, cost, rate_limits, method, path, client_ip }).await
}

async fn forward(
    State((keys, admission)): Shared,
    extensions: Extensions,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let caller = Caller::new(&keys, &admission, &extensions, "/v1/forward-auth");
    let own = headers.get(PROXY_KEY).and_then(|value| value.to_str().ok());
    let missing = || Error::new(Kind::Unauthenticated, "KEY_MISSING", "the proxy needs a key of its own");
    let principal = match caller.authorize(own.ok_or_else(missing)).await {
        Ok((principal, _)) => principal,
        Err(error) => return misconfigured(&error),
    };
    let asked = async {
        let Some(verification) = of_request(&uri, &headers, &admission)? else { return Ok(None) };
        keys.verify(&verification).await.map(Some)
    };
    let (response, answered) = match asked.await {
        Ok(Some(verdict)) => (decided(&verdict), true),
        Ok(None) => (challenge(reply(StatusCode::UNAUTHORIZED, &json!({ "code": "MISSING" }))), true),
        Err(error) => (misconfigured(&error), false),
    };
    // For the proxy it is a success to be told that a request is to be refused.
    if answered {
        caller.count(&principal, &StatusCode::OK.into_response());
    } else {
        caller.count(&principal, &response);
    }
    response
}

/// 401 and 403 would be passed on to somebody who can do nothing about it.
fn misconfigured(error: &Error) -> Response {
    tracing::warn!(%error, "a proxy could not be answered");
    reply(StatusCode::INTERNAL_SERVER_ERROR, &failure(error))
}

/// Whoever asks, and what is counted of that.
struct Caller<'a> {
    keys: &'a ApiKeyService,
    admission: &'a Admission,
    path: &'static str,
    address: Option<IpAddr>,
    began: Stopwatch,
}

impl<'a> Caller<'a> {
    fn new(
        keys: &'a ApiKeyService,
        admission: &'a Admission,
        extensions: &Extensions,
        path: &'static str,
    ) -> Self {
        let (address, began) = (ClientAddress::of(extensions), Stopwatch::start());
        Self { keys, admission, path, address, began }
    }

    async fn authorize(&self, key: Result<&str>) -> Result<(Principal, Option<Standing>)> {
        let key = key?;
        let principal = self.admission.authenticate(&*self.keys.verifier, key, self.address).await?;
        principal.require(SCOPE)?;
        let standing = self.keys.verifier.admit(key, self.address)?;
        Ok((principal, standing))
    }

    fn count(&self, principal: &Principal, response: &Response) {
        let own = Use {
            key_id: Arc::clone(&principal.key_id),
            path: self.path,
            code: if response.status().is_success() { "OK" } else { "ERROR" },
            status: response.status().as_u16(),
            address: self.address,
            duration: self.began.elapsed(),
        };
        self.keys.usage.note_own(own, self.keys.clock.now());
    }
}

/// What a proxy asks about; `None` when the request has no key.
fn of_request(uri: &Uri, headers: &HeaderMap, admission: &Admission) -> Result<Option<Verification>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let first = |names: [&str; 2]| names.into_iter().find_map(text).unwrap_or_default().to_owned();
    let Ok(key) = auth::key(headers) else { return Ok(None) };
    let mut verification = Verification {
        key: SecretText::new(key),
        method: first(["x-forwarded-method", "x-original-method"]),
        path: first(["x-forwarded-uri", "x-original-uri"]),
        client_ip: admission.asked_about(address(headers), headers),
        ..Verification::default()
    };
    for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*name {
            "all_of" => verification.all_of.extend(value.split(',').map(str::to_owned)),
            "any_of" => verification.any_of.extend(value.split(',').map(str::to_owned)),
            "rate_limits" => verification.rate_limits.extend(value.split(',').map(str::to_owned)),
            "cost" => {
                let cost = value.parse().map_err(|_| Error::field("cost", "must be a whole number"))?;
                verification.cost = Some(cost);
            }
            other => return Err(Error::field(other, "is not a parameter of this address")),
        }
    }
    Ok(Some(verification))
}

/// The address that the proxy saw: what it added itself stands on the right; what is left of it came with the request.
fn address(headers: &HeaderMap) -> String {
    let last = headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
    let last = last.and_then(|list| list.rsplit(',').next());
    let real = || headers.get("x-real-ip").and_then(|value| value.to_str().ok());
    last.or_else(real).unwrap_or_default().trim().to_owned()
}

fn decided(verdict: &Verdict) -> Response {
    let status = StatusCode::from_u16(verdict.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Why a key does not work is told to the proxy, which has all of it.
    let mut response = reply(status, &json!({ "code": verdict.code.name() }));
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        // What a header can not carry is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-api-key-code", verdict.code.name());
    if let Some(record) = &verdict.record {
        set("x-api-key-id", &record.principal.key_id);
        set("x-api-key-kind", kind(record.kind));
        set("x-api-key-external-id", record.external_id());
        set("x-api-key-scopes", &record.principal.scopes.join(" "));
    }
    if let Some(credits) = &verdict.credits {
        set("x-api-key-credits", &credits.remaining.to_string());
    }
    // As in draft-ietf-httpapi-ratelimit-headers: one item for each limit.
    let policies = verdict
        .limits
        .iter()
        .map(|limit| format!("\"{}\";q={};w={}", limit.name, limit.limit, limit.period.as_secs()));
    let states = verdict
        .limits
        .iter()
        .map(|limit| format!("\"{}\";r={};t={}", limit.name, limit.remaining, seconds(limit.full_after)));
    if !verdict.limits.is_empty() {
        set("ratelimit-policy", &policies.collect::<Vec<_>>().join(", "));
        set("ratelimit", &states.collect::<Vec<_>>().join(", "));
    }
    if let (429, Some(after)) = (verdict.code.status(), verdict.retry_after) {
        set("retry-after", &seconds(after).to_string());
    }
    if verdict.code.status() == 401 { challenge(response) } else { response }
}

fn challenge(mut response: Response) -> Response {
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn kind(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Live => "live",
        KeyKind::Test => "test",
    }
}

/// Whole seconds, rounded up: who waits as long is not refused again.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn shown(verdict: &Verdict) -> Value {
    let mut shown = json!({ "valid": verdict.code == Code::Valid, "code": verdict.code.name() });
    if let Some(record) = &verdict.record {
        shown["api_key_id"] = (*record.principal.key_id).into();
        shown["kind"] = kind(record.kind).into();
        shown["external_id"] = record.external_id().into();
        shown["metadata"] = serde_json::from_str(record.metadata()).unwrap_or_default();
        shown["scopes"] = record.principal.scopes.to_vec().into();
        shown["expire_time"] = record.expires_at.to_string().into();
    }
    if !verdict.missing.is_empty() {
        shown["missing_scopes"] = verdict.missing.clone().into();
    }
    if !verdict.limits.is_empty() {
        let limit = |limit: &super::LimitState| {
            json!({
                "name": limit.name,
                "limit": limit.limit,
                "remaining": limit.remaining,
                "reset_after_seconds": seconds(limit.full_after),
            })
        };
        shown["rate_limits"] = verdict.limits.iter().map(limit).collect();
    }
    if let Some(credits) = &verdict.credits {
        shown["remaining_credits"] = credits.remaining.into();
    }
    if let Some(after) = verdict.retry_after {
        shown["retry_after_seconds"] = seconds(after).into();
    }
    shown
}

fn failure(error: &Error) -> Value {
    let violations: Vec<_> = error
        .violations()
        .iter()
        .map(|violation| json!({ "field": violation.field, "description": violation.description }))
        .collect();
    json!({ "error": { "reason": error.reason(), "message": error.message(), "violations": violations } })
}

fn refusal(error: &Error) -> Response {
    let status = match error.kind() {
        Kind::InvalidArgument => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::PermissionDenied => StatusCode::FORBIDDEN,
        Kind::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => {
            tracing::error!(%error, "a verification failed");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    let mut response = reply(status, &failure(error));
    quota::tell_refusal(error, response.headers_mut());
    if status == StatusCode::UNAUTHORIZED { challenge(response) } else { response }
}

fn reply(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_the_one_that_the_proxy_saw() {
        let of = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            address(&headers)
        };
        assert_eq!(of(&[("x-forwarded-for", "6.6.6.6, 192.0.2.1")]), "192.0.2.1");
        assert_eq!(of(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.1")]), "192.0.2.1");
        assert_eq!(of(&[("x-real-ip", "6.6.6.6"), ("x-forwarded-for", "192.0.2.1")]), "192.0.2.1");
        assert_eq!(of(&[("x-real-ip", "192.0.2.1")]), "192.0.2.1");
        assert_eq!(of(&[]), "");
    }
}
