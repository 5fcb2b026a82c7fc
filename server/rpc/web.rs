//! Browsers: which pages may call, and what they may send and read.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// What gRPC-web clients send.
const REQUEST_HEADERS: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-user-agent"),
    HeaderName::from_static("grpc-timeout"),
    super::origin::REASON,
    super::origin::REQUEST_ID,
];

/// What they must be able to read.
const RESPONSE_HEADERS: [HeaderName; 6] = [
    header::RETRY_AFTER,
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];

/// Lets pages of these origins call; `*` alone means of all.
pub(super) fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let origins = match origins {
        [one] if one == "*" => AllowOrigin::any(),
        some => AllowOrigin::list(some.iter().cloned()),
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::POST])
        .allow_headers(REQUEST_HEADERS)
        .expose_headers(RESPONSE_HEADERS)
        .max_age(Duration::from_secs(7_200))
}
