//! The settings of the tokens of users.

use super::super::definition::Definition;

/// These.
pub(super) const AUTHENTICATION: &[Definition] = &[];
