//! What the doctor finds, and how it is written.

use std::fmt::Write;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grade {
    /// As it should be.
    Good,
    /// It works, and somebody should look at it.
    Warning,
    /// It does not work.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub grade: Grade,
    /// What was looked at, in a word.
    pub about: &'static str,
    /// What was found.
    pub what: String,
    /// What to do, or more about it; a line each.
    pub more: Vec<String>,
}

impl Finding {
    /// As it should be.
    pub(super) fn good(about: &'static str, what: impl Into<String>) -> Self {
        Self { grade: Grade::Good, about, what: what.into(), more: Vec::new() }
    }

    /// To be looked at.
    pub(super) fn warning(about: &'static str, what: impl Into<String>) -> Self {
        Self { grade: Grade::Warning, ..Self::good(about, what) }
    }

    /// Broken.
    pub(super) fn failure(about: &'static str, what: impl Into<String>) -> Self {
        Self { grade: Grade::Failure, ..Self::good(about, what) }
    }

    /// Adds a line.
    pub(super) fn with(mut self, line: impl Into<String>) -> Self {
        self.more.push(line.into());
        self
    }

    /// As a few lines: the grade, what it is about, what was found, and below it what to do.
    pub(super) fn lines(&self) -> String {
        let grade = match self.grade {
            Grade::Good => "ok",
            Grade::Warning => "warn",
            Grade::Failure => "FAIL",
        };
        let mut text = format!("{grade:4}  {:11}  {}", self.about, self.what);
        for line in &self.more {
            let _ = write!(text, "\n{:19}{line}", "");
        }
        text
    }
}

/// The last line: how many of each grade.
pub(super) fn summary(findings: &[Finding]) -> String {
    let count = |grade| findings.iter().filter(|finding| finding.grade == grade).count();
    let counted =
        |number: usize, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    match (count(Grade::Failure), count(Grade::Warning)) {
        (0, 0) => "all good".into(),
        (0, warnings) => format!("it works, with {}", counted(warnings, "warning", "warnings")),
        (failures, warnings) => {
            let warnings = counted(warnings, "warning", "warnings");
            format!("{} and {warnings}", counted(failures, "failure", "failures"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_written_in_columns() {
        let finding = Finding::warning("dkim", "mails are not signed").with("set email.dkim_private_key");
        let expected =
            "warn  dkim         mails are not signed\n                   set email.dkim_private_key";
        assert_eq!(finding.lines(), expected);
        assert_eq!(summary(&[]), "all good");
        assert_eq!(summary(std::slice::from_ref(&finding)), "it works, with 1 warning");
        assert_eq!(summary(&[finding, Finding::failure("smtp", "no")]), "1 failure and 1 warning");
    }
}
