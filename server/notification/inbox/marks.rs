//! The use cases of a user: seen, read, put away.

use super::model::{Counts, Mark, SELECTION_LIMIT, Selection, Which, check_category};
use super::service::{InboxService, fact};
use super::{store, word};
use crate::error::{Result, Violations};
use crate::event::topic;
use crate::id::{self, Kind as IdKind};

impl InboxService {
    /// Marks notifications; answers how many it changed, and how many wait then.  What would change nothing publishes
    /// nothing.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with all that is wrong.
    pub async fn mark(&self, mark: Mark, selection: Selection) -> Result<(i64, Counts)> {
        check(&selection)?;
        let now = self.clock.now();
        let user_id = &selection.user_id;
        if !store::would_change(&mut self.db.reader().await?, mark, &selection, now).await? {
            return Ok((0, self.counts(user_id).await?));
        }
        let (event_id, topic) = (self.ids.next(IdKind::Event), topic::of_user(user_id));
        let result = self.results.expect(&event_id);
        let data = word::marked(mark, &selection, now);
        self.publish(vec![fact(event_id, word::UPDATED, topic.clone(), topic, data, now)], None).await?;
        let changed = result.take();
        Ok((changed, self.counts(user_id).await?))
    }
}

pub(in crate::notification) fn check(selection: &Selection) -> Result<()> {
    let mut violations = Violations::default();
    violations.check("selection.user_id", topic::check_user_id(&selection.user_id));
    let is_id = |id: &str| id::is_valid(IdKind::Notification, id);
    match &selection.which {
        Which::Ids(ids) => {
            violations.require(
                (1..=SELECTION_LIMIT).contains(&ids.len()),
                "selection.ids.notification_ids",
                "must have 1 to 500 entries",
            );
            for (index, _) in ids.iter().enumerate().filter(|(_, id)| !is_id(id)) {
                violations.add(
                    format!("selection.ids.notification_ids[{index}]"),
                    "is not the id of a notification",
                );
            }
        }
        Which::UpTo(id) => violations.require(
            is_id(id),
            "selection.up_to_notification_id",
            "is not the id of a notification",
        ),
    }
    if !selection.category.is_empty() {
        violations.check("selection.category", check_category(&selection.category));
    }
    violations.finish()
}
