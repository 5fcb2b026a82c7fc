//! Errors on the wire: a code, an `ErrorInfo` always, and what else a client can use.

use std::collections::HashMap;

use bytes::Bytes;
use http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::admission::quota;
use crate::db::trouble::NOT_WRITABLE;
use crate::error::{Error, Kind};
use crate::telemetry::printable;

/// The most bytes of a message, and of each other text, which may repeat what the caller wrote.
const LONGEST_MESSAGE: usize = 512;
const LONGEST_VALUE: usize = 256;
/// The most bytes of all violations together.  A status is a trailer: some clients take no more than 8 KiB of those, a third
/// is added to it by its encoding, and one that is too long is lost as a whole.
const ROOM: usize = 3 * 1024;

/// The domain of every reason.
pub const DOMAIN: &str = "switchboard";

/// Turns an error into what the client gets, and logs what the client does not get.
pub fn to_status(error: &Error) -> Status {
    if error.kind() == Kind::Internal {
        tracing::error!(%error, "a request failed");
    } else if error.kind() == Kind::Unavailable && error.reason() != NOT_WRITABLE {
        // What is wrong with the storage is logged once, and not for each call that meets it.
        tracing::warn!(%error, "a request could not be served");
    }
    let mut status = Status::with_error_details(code(error.kind()), message(error), error_details(error));
    if error.reason() == quota::REASON {
        let mut headers = HeaderMap::new();
        quota::tell_refusal(error, &mut headers);
        status.metadata_mut().as_mut().extend(headers);
    }
    status
}

/// The encoded details of an error.
pub fn details(error: &Error) -> Bytes {
    let status = Status::with_error_details(code(error.kind()), message(error), error_details(error));
    Bytes::copy_from_slice(status.details())
}

/// What a client is told in words.
fn message(error: &Error) -> String {
    told(error.message(), LONGEST_MESSAGE)
}

/// Text for a trailer: no longer than this, in bytes, and without the characters that would do something on a terminal or
/// in a log where a client shows it.
fn told(text: &str, limit: usize) -> String {
    let cut = &text[..text.floor_char_boundary(limit)];
    let mut told = printable(cut, |_| false).into_owned();
    if cut.len() < text.len() {
        told.push('…');
    }
    told
}

fn error_details(error: &Error) -> ErrorDetails {
    let metadata: HashMap<String, String> =
        error.metadata().iter().map(|(key, value)| ((*key).to_owned(), told(value, LONGEST_VALUE))).collect();
    let mut details = ErrorDetails::with_error_info(error.reason(), DOMAIN, metadata);
    let (mut room, mut left) = (ROOM, error.violations().len());
    for violation in error.violations() {
        let (field, description) =
            (told(&violation.field, LONGEST_VALUE), told(&violation.description, LONGEST_VALUE));
        room = room.saturating_sub(field.len() + description.len());
        if room == 0 {
            let field = error.violations()[0].field.split(['[', '.']).next().unwrap_or_default();
            details.add_bad_request_violation(
                told(field, LONGEST_VALUE),
                format!("and {left} more things are wrong"),
            );
            break;
        }
        left -= 1;
        details.add_bad_request_violation(field, description);
    }
    if let Some(after) = error.retry_delay() {
        details.set_retry_info(Some(after));
    }
    let of = |wanted| error.metadata().iter().find(|(key, _)| *key == wanted).map_or("", |(_, value)| value);
    if error.reason() == quota::REASON {
        details.add_quota_failure_violation(of("rate_limit"), message(error));
    }
    if error.kind() == Kind::NotFound {
        details.set_resource_info(of("resource"), told(of("id"), LONGEST_VALUE), "", message(error));
    }
    details
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::FailedPrecondition => Code::FailedPrecondition,
        Kind::OutOfRange => Code::OutOfRange,
        Kind::Aborted => Code::Aborted,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::Internal => Code::Internal,
    }
}

/// The HTTP status of a code, as `google.rpc.Code` has them.
pub fn http_status(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    }
}

/// The name of a code, for metrics.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        to_status(&error)
    }
}
