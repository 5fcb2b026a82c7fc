//! What can be wrong with a mail's template or its variables.

use std::error::Error;
use std::fmt;

/// One variable that a template cannot use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where it is, such as `ticket_id` or `jobs[2].url`.
    pub variable: String,
    /// What is wrong, to be read after the variable's name: `is required`.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.variable, self.message)
    }
}

/// Why a mail was not rendered.
#[derive(Debug)]
pub enum RenderError {
    /// No template of that name ships with the server.
    UnknownTemplate,
    /// Variables are missing or malformed: all of them, in the template's order.
    InvalidVariables(Vec<Violation>),
    /// The template engine failed, or a stored text did not fit the variables.
    Template(Box<dyn Error + Send + Sync>),
}

impl fmt::Display for RenderError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownTemplate => formatter.write_str("no template has this name"),
            Self::InvalidVariables(violations) => {
                formatter.write_str("the variables do not fit the template: ")?;
                for (position, violation) in violations.iter().enumerate() {
                    let separator = if position == 0 { "" } else { "; " };
                    write!(formatter, "{separator}{violation}")?;
                }
                Ok(())
            }
            Self::Template(error) => write!(formatter, "the template could not be rendered: {error}"),
        }
    }
}

impl Error for RenderError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Template(error) => Some(&**error),
            Self::UnknownTemplate | Self::InvalidVariables(_) => None,
        }
    }
}

impl From<askama::Error> for RenderError {
    fn from(error: askama::Error) -> Self {
        Self::Template(error.into())
    }
}
