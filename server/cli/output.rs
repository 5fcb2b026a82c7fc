//! What commands print.

use std::borrow::Cow;
use std::io::Write;
use std::process::ExitCode;

use crate::telemetry::printable;

/// Prints a line for whoever ran the command.  A reader that went away is not an error.
pub(super) fn line(text: &str) {
    styled("", text, "");
}

/// Prints a line between what turns a style on and off, on a terminal.
pub(super) fn styled(on: &str, text: &str, off: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{on}{}{off}", plain(text)).and_then(|()| out.flush());
}

/// Says something beside what was asked for.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", plain(text));
}

/// Says what went wrong.
pub(super) fn fail(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "error: {}", plain(text));
    ExitCode::FAILURE
}

/// Without what would do something on a terminal: much of what is printed is in the words of others.
fn plain(text: &str) -> Cow<'_, str> {
    printable(text, |c| matches!(c, '\n' | '\t'))
}
