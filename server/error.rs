//! The server's one error type.
//!
//! A use case fails with an [`Error`]: a kind that decides the gRPC code, a reason that programs can match on, a
//! message for people, and, for bad input, every violation at once.  `rpc::status` turns it into a `Status`; what
//! lies behind an internal error is logged there, once, and never sent.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The kinds of failure, named as the gRPC codes that they become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request itself is wrong.
    InvalidArgument,
    /// What it names does not exist.
    NotFound,
    /// What it would make exists.
    AlreadyExists,
    /// The state does not allow it.
    FailedPrecondition,
    /// What it asks for lies outside of what there is.
    OutOfRange,
    /// Somebody else changed it in the meantime.
    Aborted,
    /// The caller did not show a valid key.
    Unauthenticated,
    /// The caller's key does not allow it.
    PermissionDenied,
    /// A limit is reached.
    ResourceExhausted,
    /// It can not be done now; a retry may help.
    Unavailable,
    /// It took longer than the caller allows.
    DeadlineExceeded,
    /// A fault of the server's.
    Internal,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field, as a path such as `webhook.event_types[2]`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// A failed use case.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    reason: &'static str,
    message: Cow<'static, str>,
    violations: Vec<Violation>,
    metadata: Vec<(&'static str, String)>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a use case answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind; `reason` is in UPPER_SNAKE_CASE and part of the contract.
    pub fn new(kind: Kind, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            reason,
            message: message.into(),
            violations: Vec::new(),
            metadata: Vec::new(),
            retry_after: None,
            source: None,
        }))
    }

    /// Bad input in one field.
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        let mut violations = Violations::default();
        violations.add(field, description);
        violations.into_error()
    }

    /// Something that does not exist.
    pub fn not_found(what: &'static str, id: &str) -> Self {
        Self::new(Kind::NotFound, "NOT_FOUND", format!("there is no {what} {id:?}"))
            .with("resource", what)
            .with("id", id)
    }

    /// A conditional change whose condition no longer holds.
    pub fn etag_mismatch(current: impl Into<String>) -> Self {
        Self::new(Kind::Aborted, "ETAG_MISMATCH", "it was changed in the meantime: read it again and retry")
            .with("current_etag", current)
    }

    /// A fault of the server's; `source` is logged and not sent.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let mut error = Self::new(Kind::Internal, "INTERNAL", "the server failed; the log has the details");
        error.0.source = Some(source.into());
        error
    }

    /// Something that a retry may help, with what lies behind it.
    pub fn unavailable(
        message: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let mut error =
            Self::new(Kind::Unavailable, "UNAVAILABLE", message).retry_after(Duration::from_secs(1));
        error.0.source = Some(source.into());
        error
    }

    /// Adds what lies behind it, which is logged and not sent.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds a dynamic part of the message for programs to read.
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.0.metadata.push((key, value.into()));
        self
    }

    /// Says when a retry may help.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Puts a path in front of every violation's field, for an error of one item among several.
    pub fn within(mut self, path: &str) -> Self {
        for violation in &mut self.0.violations {
            violation.field = format!("{path}.{}", violation.field);
        }
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The reason, for programs.
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// The message, for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// All that is wrong with the request.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// The dynamic parts of the message.
    pub fn metadata(&self) -> &[(&'static str, String)] {
        &self.0.metadata
    }

    /// When a retry may help.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for Violation { field, description } in &self.0.violations {
            write!(f, "; {field}: {description}")?;
        }
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// How many violations are noted one by one; of more it is said how many there are.
const NOTED: usize = 100;
/// The longest field and description, in bytes: both may repeat what the caller wrote.
const LONGEST: usize = 512;

/// Collects what is wrong with a request, so that a caller learns all of it at once.
///
/// It is bounded: a request may have a hundred thousand entries, and something wrong with each.
#[derive(Debug, Default)]
pub struct Violations {
    noted: Vec<Violation>,
    more: usize,
}

impl Violations {
    /// Notes one.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.noted.len() == NOTED {
            self.more += 1;
            return;
        }
        self.noted
            .push(Violation { field: shortened(field.into()), description: shortened(description.into()) });
    }

    /// Notes one if `ok` is false.
    pub fn require(&mut self, ok: bool, field: &str, description: &str) {
        if !ok {
            self.add(field, description);
        }
    }

    /// Takes the value of a check, or notes what it found wrong.
    pub fn check<T>(&mut self, field: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|description| self.add(field, description)).ok()
    }

    /// Fails if anything was noted.
    pub fn finish(self) -> Result<()> {
        if self.noted.is_empty() { Ok(()) } else { Err(self.into_error()) }
    }

    fn into_error(self) -> Error {
        let message: Cow<'static, str> = match self.more {
            0 => "the request is not valid".into(),
            more => format!("the request is not valid; {more} more things are wrong with it").into(),
        };
        let mut error = Error::new(Kind::InvalidArgument, "FIELD_INVALID", message);
        error.0.violations = self.noted;
        error
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_within_bounds() {
        let mut violations = Violations::default();
        for index in 0..100_000 {
            violations
                .check::<()>(&format!("to[{index}]"), Err(format!("{:?} is no address", "é".repeat(1_000))));
        }
        let error = violations.finish().unwrap_err();
        assert_eq!(error.violations().len(), NOTED);
        assert!(
            error
                .violations()
                .iter()
                .all(|violation| violation.description.len() <= LONGEST + '…'.len_utf8())
        );
        assert!(error.message().ends_with("99900 more things are wrong with it"), "{}", error.message());
    }
}
