//! Mails about notifications that nobody has seen in time.

use super::mail::mail;
use super::moment::Moment;
use super::value::{Line, Link, Prose};

mail! {
    /// Tells somebody what they were told in the application and have not seen there.
    NotificationUnseen = "notification", [
        "notification/subject.txt", "notification/body.html", "notification/body.txt"
    ] {
        /// Name of the recipient.
        user_name: Option<Line> = r#""Ada""#,
        /// The heading of the notification.
        title: Option<Line> = r#""Grace mentioned you""#,
        /// What it says; line breaks are kept.
        message: Prose = r#""Could you look at the label printer in the packing hall? It has been offline since this morning.""#,
        /// What kind it is.
        category: Option<Line> = r#""chat.mention""#,
        /// How much it matters; words such as high and critical are coloured.
        priority: Option<Line> = r#""high""#,
        /// Where opening it leads.
        action_url: Option<Link> = r#""https://desk.example.com/chat/9""#,
        /// When it was sent.
        sent_at: Option<Moment> = r#""2026-03-14T09:26:53Z""#,
    }
}

impl NotificationUnseen {
    pub(super) fn has_details(&self) -> bool {
        self.category.is_some() || self.priority.is_some() || self.sent_at.is_some()
    }
}
