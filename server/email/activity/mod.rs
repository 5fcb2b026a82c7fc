//! What recipients did with mails that are tracked, and what came back.

mod rpc;
mod store;
mod write;

pub use store::activities;
pub(in crate::email) use store::record;
pub use write::{ActivityContext, ActivityWrite};

use std::time::Duration;

use crate::clock::Timestamp;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivityKind {
    /// Its pictures were loaded.
    Opened,
    /// A link in it was followed.
    Clicked,
    /// A recipient unsubscribed from its topic.
    Unsubscribed,
    /// It came back.
    Bounced,
    /// A recipient called it spam.
    Complained,
}

/// How many activities of one mail are kept.
const LIMIT: i64 = 500;
/// How many of them can be opens and clicks: whoever loads a picture in a loop leaves room for what matters more.
const TRACKED_LIMIT: i64 = 450;
/// Programs load a picture several times at once; that is one open.
const SAME: Duration = Duration::from_secs(1);

impl ActivityKind {
    const ALL: [Self; 5] = [Self::Opened, Self::Clicked, Self::Unsubscribed, Self::Bounced, Self::Complained];

    /// The word in the column `kind`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Clicked => "clicked",
            Self::Unsubscribed => "unsubscribed",
            Self::Bounced => "bounced",
            Self::Complained => "complained",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    const fn is_tracked(self) -> bool {
        matches!(self, Self::Opened | Self::Clicked)
    }

    const fn limit(self) -> i64 {
        if self.is_tracked() { TRACKED_LIMIT } else { LIMIT }
    }

    /// Since when another of the kind, with the same detail and address, is the same one.
    fn same_since(self, at: Timestamp) -> Timestamp {
        if self.is_tracked() { at - SAME } else { Timestamp::default() }
    }
}

/// Something that happened to a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// The recipient; empty when it is not known which of several it was.
    pub address: String,
    /// What happened; `None` for a kind that this version does not know.
    pub kind: Option<ActivityKind>,
    /// The link, the diagnosis, or the program.
    pub detail: String,
    /// Whether a program did it, as far as can be told.
    pub automated: bool,
    /// When.
    pub created_at: Timestamp,
}

/// An activity to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewActivity {
    /// Its id.
    pub id: String,
    /// The mail.
    pub email_id: String,
    /// The recipient; empty when it is not known which of several it was.
    pub address: String,
    /// What happened.
    pub kind: ActivityKind,
    /// The link, the diagnosis, or the program.
    pub detail: String,
    /// Whether a program did it, as far as can be told.
    pub automated: bool,
    /// When.
    pub at: Timestamp,
}
