//! What an error tells its caller.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Asserts the code and the reason of an error, and answers its details.
#[track_caller]
pub fn expect(status: &Status, code: Code, reason: &str) -> ErrorDetails {
    assert_eq!(status.code(), code, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("switchboard", reason), "{status:?}");
    details
}

/// Asserts that a request was refused for these fields, all of them and no others.
#[track_caller]
pub fn expect_violations(status: &Status, fields: &[&str]) {
    let details = expect(status, Code::InvalidArgument, "FIELD_INVALID");
    let request = details.bad_request().unwrap_or_else(|| panic!("no BadRequest: {status:?}"));
    let found: Vec<&str> =
        request.field_violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(found, fields, "{status:?}");
    assert!(request.field_violations.iter().all(|violation| !violation.description.is_empty()));
}
