//! Why the demo could not go on, in words.

use std::fmt;

/// What a step of the demo answers.
pub type Result<T> = std::result::Result<T, Failure>;

/// A step that did not work, and why.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// `what` should have worked, and `why` it did not.
    pub fn new(what: &str, why: impl fmt::Display) -> Self {
        Self(format!("{what}: {why}"))
    }

    /// For `map_err` on a call of the server.
    pub fn call(what: &str) -> impl FnOnce(tonic::Status) -> Self + use<'_> {
        move |status| {
            // Some errors, those of the transport above all, say nothing but their code.
            let why =
                if status.message().is_empty() { status.code().description() } else { status.message() };
            Self(format!("{what}: the server answered {:?}: {why}", status.code()))
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}
