//! Routes: rules, kept as data, that turn events into messages.
//!
//! A route has a pattern over event types, a condition, and a target.  Channels read the active routes with their own
//! kind of target and compile them; this module keeps, checks and tests them, and seeds the defaults.

pub mod bounded;
pub mod expression;
mod portable;
mod seed;
mod service;
mod store;

pub use seed::{seed, seed_webhook_health};
pub use service::{Channels, RouteChange, RouteService, RouteTarget, TargetCheck, Trial};
pub use store::{active, uses_recipient_list, uses_template};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Route {
    pub id: String,
    pub name: String,
    pub event_type: String,
    pub condition: String,
    pub active: bool,
    pub target: Target,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A mail for each recipient.
    Email(EmailTarget),
    /// A notification in the inbox of each user.
    Inbox(InboxTarget),
}

/// A notification in the inbox of each user.  The texts may have `{{ variables }}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct InboxTarget {
    pub user_ids: Vec<String>,
    pub user_field: String,
    pub category: String,
    pub title: String,
    pub message: String,
    pub priority: String,
    pub action_url: String,
}

/// A mail for each recipient, from a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailTarget {
    /// The template.
    pub template: String,
    /// Who gets it.
    pub recipients: Recipients,
    /// Variables by name, each an expression.
    pub variables: std::collections::BTreeMap<String, String>,
}

/// Who gets a mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipients {
    /// Everybody on this list.
    List(String),
    /// The address in this field of the event's data.
    Field(String),
}
