//! The settings of inboxes.

use super::super::definition::{Definition, Type};

/// These.
pub(super) const INBOX: &[Definition] = &[Definition {
    key: "notifications.retention_days",
    kind: Type::Integer(1, 3_650),
    default: "90",
    description: "How many days notifications stay in inboxes, read or not; a user has at most the newest 10000.",
    environment: &[],
}];
