//! Answers as text, so that an error is to the caller what it was to the node that answered.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Kind, Result, Violations};

/// The kinds of errors that cross nodes, each with its name and the reason when theirs is not known here.
const KINDS: [(Kind, &str, &str); 11] = [
    (Kind::InvalidArgument, "invalid_argument", "FIELD_INVALID"),
    (Kind::NotFound, "not_found", "NOT_FOUND"),
    (Kind::AlreadyExists, "already_exists", "ALREADY_EXISTS"),
    (Kind::FailedPrecondition, "failed_precondition", "TOO_LATE"),
    (Kind::OutOfRange, "out_of_range", "REVISION_COMPACTED"),
    (Kind::Aborted, "aborted", "ETAG_MISMATCH"),
    (Kind::Unauthenticated, "unauthenticated", "KEY_INVALID"),
    (Kind::PermissionDenied, "permission_denied", "SCOPE_MISSING"),
    (Kind::ResourceExhausted, "resource_exhausted", "RATE_LIMITED"),
    (Kind::Unavailable, "unavailable", "UNAVAILABLE"),
    (Kind::DeadlineExceeded, "deadline_exceeded", "DEADLINE_EXCEEDED"),
];
/// The reasons that such an error may have.
const REASONS: [&str; 8] = [
    "NOT_FOUND",
    "FIELD_INVALID",
    "TOPIC_DENIED",
    "SCOPE_MISSING",
    "KEY_INVALID",
    "LIVE_DISABLED",
    "STREAM_LIMIT",
    "UNAVAILABLE",
];
/// The names of what comes with it.
const NAMES: [&str; 5] = ["resource", "id", "topic", "required_scope", "limit"];

fn known(known: &[&'static str], name: &Value) -> Option<&'static str> {
    known.iter().find(|known| Some(**known) == name.as_str()).copied()
}

/// An answer as text.
pub(super) fn write(answer: &Result<Value>) -> String {
    let error = match answer {
        Ok(answer) => return json!({ "ok": answer }).to_string(),
        Err(error) => error,
    };
    let Some((_, kind, _)) = KINDS.iter().find(|(kind, ..)| *kind == error.kind()) else {
        tracing::error!(%error, "a call from another node failed");
        return json!({ "error": {} }).to_string();
    };
    let violations: Vec<_> =
        error.violations().iter().map(|violation| [&violation.field, &violation.description]).collect();
    json!({ "error": {
        "kind": kind,
        "reason": error.reason(),
        "message": error.message(),
        "violations": violations,
        "metadata": error.metadata(),
        "retry_ms": error.retry_delay().map(|delay| delay.as_millis() as u64),
    }})
    .to_string()
}

/// The answer that a text is.
///
/// # Errors
/// The error that was answered.
pub(super) fn read(text: &str) -> Result<Value> {
    let mut answer: Value = serde_json::from_str(text).map_err(Error::internal)?;
    match answer.get_mut("ok") {
        Some(answer) => Ok(answer.take()),
        None => Err(error(&answer["error"])),
    }
}

fn error(value: &Value) -> Error {
    let Some((kind, _, fallback)) = KINDS.iter().find(|(_, name, _)| value["kind"] == *name) else {
        return Error::internal("the node that has the stream failed; its log has the details");
    };
    let each = |name: &str| value[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut violations = Violations::default();
    for violation in each("violations") {
        violations.add(text(&violation[0]), text(&violation[1]));
    }
    if let Err(error) = violations.finish() {
        return error;
    }
    let reason = known(&REASONS, &value["reason"]).unwrap_or(fallback);
    let mut error = Error::new(*kind, reason, text(&value["message"]));
    for pair in each("metadata") {
        if let Some(name) = known(&NAMES, &pair[0]) {
            error = error.with(name, text(&pair[1]));
        }
    }
    match value["retry_ms"].as_u64() {
        Some(delay) => error.retry_after(Duration::from_millis(delay)),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn across(answer: &Result<Value>) -> Result<Value> {
        read(&write(answer))
    }

    #[test]
    fn an_answer_crosses_as_it_is() {
        assert_eq!(across(&Ok(json!({ "generation": 7 }))).unwrap(), json!({ "generation": 7 }));
        assert_eq!(across(&Ok(Value::Null)).unwrap(), Value::Null);
    }

    #[test]
    fn an_error_crosses_with_all_that_a_caller_is_told() {
        let denied = Error::new(Kind::PermissionDenied, "TOPIC_DENIED", "no").with("topic", "chat:9");
        let error = across(&Err(denied)).unwrap_err();
        assert_eq!(
            (error.kind(), error.reason(), error.message()),
            (Kind::PermissionDenied, "TOPIC_DENIED", "no")
        );
        assert_eq!(error.metadata(), [("topic", "chat:9".to_owned())]);

        let mut violations = Violations::default();
        violations.add("topics[0]", "is bad");
        violations.add("topics[3]", "is worse");
        let error = across(&Err(violations.finish().unwrap_err())).unwrap_err();
        assert_eq!((error.kind(), error.violations().len()), (Kind::InvalidArgument, 2));

        let busy = Error::unavailable("later", "x").retry_after(Duration::from_millis(1_500));
        assert_eq!(across(&Err(busy)).unwrap_err().retry_delay(), Some(Duration::from_millis(1_500)));
        assert_eq!(
            across(&Err(Error::not_found("subscription", "sub_1"))).unwrap_err().kind(),
            Kind::NotFound
        );
        assert_eq!(across(&Err(Error::internal("boom"))).unwrap_err().kind(), Kind::Internal);
        let strange = Error::new(Kind::PermissionDenied, "OF_A_NEWER_VERSION", "no");
        assert_eq!(across(&Err(strange)).unwrap_err().reason(), "SCOPE_MISSING");
    }
}
