//! What a request says of where its changes come from.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

use super::auth::Principal;
use crate::error::{Result, Violations};
use crate::origin::Origin;

/// Why the caller makes a change.
pub(super) const REASON: HeaderName = HeaderName::from_static("x-change-reason");
/// How the caller calls its request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REASON_LIMIT: usize = 500;
const REQUEST_ID_LIMIT: usize = 128;

/// Where the changes of a request come from.
///
/// # Errors
/// `INVALID_ARGUMENT` for a reason that can not be kept.
pub(super) fn read(principal: &Principal, headers: &HeaderMap, address: Option<IpAddr>) -> Result<Origin> {
    let text = |name| headers.get(name).map_or(Some(""), |value: &http::HeaderValue| value.to_str().ok());
    let mut violations = Violations::default();
    let reason = text(REASON).filter(|text| text.len() <= REASON_LIMIT);
    let what = "must have at most 500 characters, which are visible ASCII characters and spaces";
    violations.require(reason.is_some(), REASON.as_str(), what);
    violations.finish()?;
    // Proxies make request ids too: one that can not be kept is nothing that the caller could change.
    let request_id = text(REQUEST_ID).filter(|text| text.len() <= REQUEST_ID_LIMIT);
    Ok(Origin {
        actor: principal.actor().into_owned(),
        request_id: request_id.unwrap_or_default().to_owned(),
        reason: reason.unwrap_or_default().to_owned(),
        address,
    })
}
