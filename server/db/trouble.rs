//! What an error of the database says about the database itself, and what callers are told of it.

use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::error::{Error, Kind};

/// Why the database does not do its work now, through no fault of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It can be read, and has no space for what is written.
    NoSpace,
    /// It can be read, and not written to: its storage fails or is read-only.
    NotWritable,
    /// It can not be reached.
    Unreachable,
}

/// The reason of callers whose writes have no space.
pub const NO_SPACE: &str = "STORAGE_FULL";
/// The reason of callers whose writes are refused by the storage.
pub const NOT_WRITABLE: &str = "STORAGE_FAILED";

/// When a caller may try again: space does not come back by itself.
const SPACE_RETRY: Duration = Duration::from_secs(5);

/// What the databases say, in their own words: neither tells diesel more than its text.  It is looked for at the beginning or the
/// end, because what stands between may be somebody's data.
const NO_SPACE_WORDS: &[&str] =
    &["database or disk is full", "No space left on device", "Disk quota exceeded"];
const NOT_WRITABLE_WORDS: &[&str] = &[
    "disk I/O error",
    "attempt to write a readonly database",
    "unable to open database file",
    "Read-only file system",
    "Input/output error",
];
const UNREACHABLE_WORDS: &[&str] = &["terminating connection ", "the database system is "];

impl Trouble {
    /// The trouble behind an error, if there is one.
    pub fn of(error: &DieselError) -> Option<Self> {
        let DieselError::DatabaseError(kind, info) = error else {
            return matches!(error, DieselError::BrokenTransactionManager).then_some(Self::Unreachable);
        };
        let message = info.message();
        let says =
            |words: &[&str]| words.iter().any(|words| message.starts_with(words) || message.ends_with(words));
        match kind {
            DatabaseErrorKind::ClosedConnection => Some(Self::Unreachable),
            // So a task that panicked is told of too, which is a fault of the server's.
            DatabaseErrorKind::UnableToSendCommand if message.starts_with("task ") => None,
            DatabaseErrorKind::UnableToSendCommand => Some(Self::Unreachable),
            DatabaseErrorKind::ReadOnlyTransaction => Some(Self::NotWritable),
            DatabaseErrorKind::Unknown if says(NO_SPACE_WORDS) => Some(Self::NoSpace),
            DatabaseErrorKind::Unknown if says(NOT_WRITABLE_WORDS) => Some(Self::NotWritable),
            DatabaseErrorKind::Unknown if says(UNREACHABLE_WORDS) => Some(Self::Unreachable),
            _ => None,
        }
    }

    /// The trouble that a caller was told of, if it is one of the storage.
    pub(super) fn told(error: &Error) -> Option<Self> {
        match error.reason() {
            NO_SPACE => Some(Self::NoSpace),
            NOT_WRITABLE => Some(Self::NotWritable),
            _ => None,
        }
    }

    /// It in words, for people.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::NoSpace => "the database has no space left: it can be read, and takes no changes",
            Self::NotWritable => {
                "the storage of the database fails or is read-only: it can be read, and takes no changes"
            }
            Self::Unreachable => "the database can not be reached",
        }
    }

    /// What callers are told.
    pub fn error(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        match self {
            Self::NoSpace => Error::new(Kind::ResourceExhausted, NO_SPACE, self.explanation())
                .retry_after(SPACE_RETRY)
                .caused_by(source),
            Self::NotWritable => Error::new(Kind::Unavailable, NOT_WRITABLE, self.explanation())
                .retry_after(SPACE_RETRY)
                .caused_by(source),
            Self::Unreachable => Error::unavailable(self.explanation(), source),
        }
    }
}

/// What PostgreSQL says of a text with U+0000, which it can neither keep nor compare: no fault of anybody but the caller's.
const NUL_WORDS: &str = "invalid byte sequence for encoding \"UTF8\": 0x00";

fn is_about_nul(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(DatabaseErrorKind::Unknown, info) if info.message() == NUL_WORDS)
}

impl From<DieselError> for Error {
    fn from(error: DieselError) -> Self {
        match Trouble::of(&error) {
            Some(trouble) => trouble.error(error),
            None if is_about_nul(&error) => {
                let message = "a text of the request holds the character U+0000, which is allowed in none";
                Self::new(Kind::InvalidArgument, "NUL_CHARACTER", message)
            }
            None => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_nul_is_a_fault_of_the_callers() {
        let error = |words: &str| {
            Error::from(DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(words.to_owned())))
        };
        let told = error(NUL_WORDS);
        assert_eq!((told.kind(), told.reason()), (Kind::InvalidArgument, "NUL_CHARACTER"));
        let other = format!("{NUL_WORDS}f");
        assert_eq!(error(&other).kind(), Kind::Internal, "whatever else is in the text is the server's");
    }

    #[test]
    fn the_words_of_both_databases_are_understood() {
        use DatabaseErrorKind::{ReadOnlyTransaction, UnableToSendCommand, UniqueViolation, Unknown};
        for (kind, words, trouble) in [
            (Unknown, "database or disk is full", Some(Trouble::NoSpace)),
            (Unknown, "could not extend file \"base/5/1\": No space left on device", Some(Trouble::NoSpace)),
            (Unknown, "disk I/O error", Some(Trouble::NotWritable)),
            (Unknown, "attempt to write a readonly database", Some(Trouble::NotWritable)),
            (
                ReadOnlyTransaction,
                "cannot execute INSERT in a read-only transaction",
                Some(Trouble::NotWritable),
            ),
            (Unknown, "terminating connection due to administrator command", Some(Trouble::Unreachable)),
            (Unknown, "the database system is starting up", Some(Trouble::Unreachable)),
            (UnableToSendCommand, "connection closed", Some(Trouble::Unreachable)),
            (UnableToSendCommand, "task 7 panicked", None),
            // Whatever a caller wrote into a row is not the database's word.
            (UniqueViolation, "database or disk is full", None),
            (Unknown, "syntax error", None),
        ] {
            let error = DieselError::DatabaseError(kind, Box::new(words.to_owned()));
            assert_eq!(Trouble::of(&error), trouble, "{words}");
        }
    }
}
