//! What commands print.

use std::io::Write;
use std::process::ExitCode;

/// Prints a line for whoever ran the command.  A reader that went away is not an error.
pub(super) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Says something beside what was asked for.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Says what went wrong.
pub(super) fn fail(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "error: {text}");
    ExitCode::FAILURE
}
