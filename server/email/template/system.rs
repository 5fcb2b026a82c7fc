//! Mails about the system itself.

use super::mail::mail;
use super::moment::Moment;
use super::value::{Line, Link, Prose};

mail! {
    /// Tells administrators that the system needs them.
    SystemAlert = "system_alert", [
        "system_alert/subject.txt", "system_alert/body.html", "system_alert/body.txt"
    ] {
        /// What happened, in a few words.
        title: Line = r#""Backup did not finish""#,
        /// What happened, in full; line breaks are kept.
        message: Prose = r#""The nightly backup stopped after 41 minutes: the disk is full.\nThe last good backup is from yesterday.\n\nFree at least 20 GB, then start it again.""#,
        /// How bad it is; words such as critical and warning are coloured.
        severity: Option<Line> = r#""critical""#,
        /// The part of the system that reports it.
        source: Option<Line> = r#""backup""#,
        /// When it happened.
        occurred_at: Option<Moment> = r#""2026-03-14T02:41:07+01:00""#,
        /// Where to read more.
        details_url: Option<Link> = r#""https://status.example.com/alerts/981""#,
    }
}

impl SystemAlert {
    pub(super) fn has_details(&self) -> bool {
        self.severity.is_some() || self.source.is_some() || self.occurred_at.is_some()
    }
}
