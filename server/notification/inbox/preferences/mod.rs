//! What a user wants to be told, and how.  What is not said is wanted, and what is critical is not asked about.

mod store;

use std::collections::HashMap;

use super::model::check_category;
use super::service::InboxService;
use crate::error::{Error, Result, Violations};
use crate::event::topic;
pub(super) use store::{WishRow, find, hold, mutes};

const LIMIT: usize = 100;
/// Stands for every category without a wish of its own.
const ANY: &str = "*";
/// The inbox, and live streams.
pub(super) const INBOX: &str = "inbox";
/// A mail for what was not seen in time.
pub(super) const EMAIL: &str = "email";

/// Whether a user wants one category by one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    /// The category; `*` for all that have no preference of their own.
    pub category: String,
    /// `inbox` or `email`; empty for one that is not known.
    pub channel: &'static str,
    /// Whether they want it.
    pub enabled: bool,
}

/// What a user wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preferences {
    /// By category and channel.
    pub preferences: Vec<Preference>,
    /// Where mails go; may be empty.
    pub email_address: String,
    /// Changes with every update.
    pub version: i64,
}

/// What is to be changed; `None` leaves it.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "as in `Preferences`")]
pub struct PreferencesChange {
    pub preferences: Option<Vec<Preference>>,
    pub email_address: Option<String>,
    pub version: Option<i64>,
}

/// The wishes of some users, for one channel.
pub(super) struct Wishes(HashMap<(String, String), bool>);

impl Wishes {
    pub fn of(rows: Vec<WishRow>) -> Self {
        Self(rows.into_iter().map(|row| ((row.user_id, row.category), row.enabled)).collect())
    }

    /// Whether a user wants a category.
    pub fn want(&self, user_id: &str, category: &str) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let wish = |category: &str| self.0.get(&(user_id.to_owned(), category.to_owned())).copied();
        wish(category).or_else(|| wish(ANY)).unwrap_or(true)
    }
}

impl InboxService {
    /// What a user wants.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an id that no user can have.
    pub async fn preferences(&self, user_id: &str) -> Result<Preferences> {
        topic::check_user_id(user_id).map_err(|wrong| Error::field("user_id", wrong))?;
        find(&mut self.db.reader().await?, user_id).await
    }

    /// Changes what a user wants.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with all that is wrong, or `ABORTED` when it was changed in the meantime.
    pub async fn update_preferences(
        &self,
        user_id: String,
        mut change: PreferencesChange,
    ) -> Result<Preferences> {
        let mut violations = Violations::default();
        violations.check("preferences.user_id", topic::check_user_id(&user_id));
        if let Some(preferences) = &change.preferences {
            check(&mut violations, preferences);
        }
        if let Some(address) = change.email_address.as_mut().filter(|address| !address.is_empty())
            && let Some(read) =
                violations.check("preferences.email_address", self.mails.check_address(address))
        {
            *address = read;
        }
        violations.finish()?;
        let of = user_id.clone();
        let preferences = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    store::hold(conn, &user_id).await?;
                    let mut preferences = find(conn, &user_id).await?;
                    if change.version.is_some_and(|version| version != preferences.version) {
                        return Err(Error::etag_mismatch(preferences.version.to_string()));
                    }
                    preferences.preferences = change.preferences.unwrap_or(preferences.preferences);
                    preferences.email_address = change.email_address.unwrap_or(preferences.email_address);
                    preferences.version += 1;
                    store::put(conn, &user_id, &preferences).await?;
                    find(conn, &user_id).await
                })
            })
            .await?;
        // Broadcasts may have come or gone by it.
        self.herald.changed([of], false);
        Ok(preferences)
    }
}

pub(in crate::notification) fn check(violations: &mut Violations, preferences: &[Preference]) {
    let few = preferences.len() <= LIMIT;
    violations.require(few, "preferences.preferences", "must have at most 100 entries");
    let mut known = std::collections::HashSet::new();
    for (index, Preference { category, channel, .. }) in preferences.iter().enumerate() {
        let path = |field: &str| format!("preferences.preferences[{index}].{field}");
        if category != ANY {
            violations.check(&path("category"), check_category(category));
        }
        violations.require(!channel.is_empty(), &path("channel"), "must be INBOX or EMAIL");
        if !known.insert((category, channel)) {
            violations.add(path("category"), "has this channel twice");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_of_its_own_comes_before_that_for_all() {
        let row = |category: &str, enabled| WishRow {
            user_id: "jo".into(),
            category: category.into(),
            channel: INBOX.into(),
            enabled,
        };
        let wishes = Wishes::of(vec![row("*", false), row("chat.mention", true)]);
        assert!(wishes.want("jo", "chat.mention") && !wishes.want("jo", "chat"));
        assert!(wishes.want("sam", "chat"), "what is not said is wanted");
    }
}
