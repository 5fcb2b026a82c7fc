//! The settings of inboxes.

use super::super::definition::Definition;

/// These.
pub(super) const INBOX: &[Definition] = &[];
