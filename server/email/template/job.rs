//! Mails to people who are looking for work, and the list of jobs that two of them show.

use super::Violation;
use super::field::{Fields, Kind, report};
use super::mail::mail;
use super::moment::Moment;
use super::value::{Line, Link, Prose};
use serde_json::Value;

/// More would make a mail so large that readers cut it off.
const JOBS_SHOWN: usize = 25;

mail! {
    /// Lists the jobs that match a saved search.
    JobAlert = "job_alert", ["job_alert/subject.txt", "job_alert/body.html", "job_alert/body.txt"] {
        /// Name of the recipient.
        user_name: Option<Line> = r#""Ada""#,
        /// Name of the saved search.
        alert_name: Option<Line> = r#""Rust in Lisbon""#,
        /// The jobs: objects with `title` and, if known, `company`, `location`, `url`, `salary`.
        jobs: Jobs = r#"[
            {
                "title": "Backend engineer",
                "company": "Northwind",
                "location": "Lisbon",
                "url": "https://jobs.example.com/1201",
                "salary": "€65,000 to €80,000"
            },
            {
                "title": "Platform engineer",
                "company": "Blue Harbour",
                "location": "Remote",
                "url": "https://jobs.example.com/1188"
            }
        ]"#,
        /// Where to stop these mails.
        unsubscribe_url: Option<Link> = r#""https://jobs.example.com/alerts/17/stop""#,
    }
}

mail! {
    /// Suggests jobs that suit the recipient.
    JobRecommendations = "job_recommendations", [
        "job_recommendations/subject.txt",
        "job_recommendations/body.html",
        "job_recommendations/body.txt"
    ] {
        /// Name of the recipient.
        user_name: Option<Line> = r#""Ada""#,
        /// The jobs: as for `job_alert`, and if known `match_reason` and `match_score` (a share up
        /// to 1, or a percentage).
        jobs: Jobs = r#"[
            {
                "title": "Compiler engineer",
                "company": "Northwind",
                "location": "Lisbon",
                "url": "https://jobs.example.com/1230",
                "salary": 72000,
                "match_reason": "You have worked on parsers for three years.",
                "match_score": 0.92
            },
            {
                "title": "Developer advocate",
                "company": "Blue Harbour",
                "url": "https://jobs.example.com/1207",
                "match_score": 78
            }
        ]"#,
        /// Where to stop these mails.
        unsubscribe_url: Option<Link> = r#""https://jobs.example.com/suggestions/stop""#,
    }
}

mail! {
    /// Tells an applicant that an application has moved on.
    ApplicationStatusUpdate = "application_status_update", [
        "application_status_update/subject.txt",
        "application_status_update/body.html",
        "application_status_update/body.txt"
    ] {
        /// Name of the applicant.
        user_name: Option<Line> = r#""Ada""#,
        /// Title of the job.
        job_title: Line = r#""Backend engineer""#,
        /// Name of the employer.
        company: Option<Line> = r#""Northwind""#,
        /// Status before.
        old_status: Option<Line> = r#""Under review""#,
        /// Status now.
        new_status: Line = r#""Interview""#,
        /// Where to read the application.
        application_url: Option<Link> = r#""https://jobs.example.com/applications/88""#,
        /// A note from the employer; line breaks are kept.
        message: Option<Prose> = r#""We would like to meet you next week.\nPlease suggest two times.""#,
    }
}

mail! {
    /// Reminds an applicant of an application that has not been answered.
    ApplicationFollowUp = "application_follow_up", [
        "application_follow_up/subject.txt",
        "application_follow_up/body.html",
        "application_follow_up/body.txt"
    ] {
        /// Name of the applicant.
        user_name: Option<Line> = r#""Ada""#,
        /// Title of the job.
        job_title: Line = r#""Backend engineer""#,
        /// Name of the employer.
        company: Option<Line> = r#""Northwind""#,
        /// When the application was sent.
        applied_at: Option<Moment> = r#""2026-03-05""#,
        /// How long ago that was, in words; a bare number counts days.
        days_since: Option<Line> = "9",
        /// Where to read the application.
        application_url: Option<Link> = r#""https://jobs.example.com/applications/88""#,
        /// Where to stop these mails.
        unsubscribe_url: Option<Link> = r#""https://jobs.example.com/reminders/stop""#,
    }
}

/// At least one job, in the order they were given.
pub(super) struct Jobs(Vec<Job>);

/// One job in a list.
pub(super) struct Job {
    pub(super) title: Line,
    pub(super) company: Option<Line>,
    pub(super) location: Option<Line>,
    pub(super) url: Option<Link>,
    pub(super) salary: Option<Line>,
    pub(super) match_reason: Option<Line>,
    match_score: Option<Line>,
}

impl Jobs {
    pub(super) fn total(&self) -> usize {
        self.0.len()
    }

    /// The jobs the mail has room for.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Job> {
        self.0.iter().take(JOBS_SHOWN)
    }

    /// How many jobs the mail has no room for.
    pub(super) fn left_out(&self) -> usize {
        self.total().saturating_sub(JOBS_SHOWN)
    }
}

impl Job {
    /// `Northwind, Lisbon`, or the one of the two that is known.
    pub(super) fn place(&self) -> Option<String> {
        let known: Vec<String> =
            [&self.company, &self.location].into_iter().flatten().map(Line::to_string).collect();
        (!known.is_empty()).then(|| known.join(", "))
    }

    /// How well the job fits, as a percentage: `0.92` and `92` are both `92%`.
    pub(super) fn fit(&self) -> Option<String> {
        let score = self.match_score.as_ref()?;
        Some(match score.number() {
            Some(share) if (0.0..=1.0).contains(&share) => format!("{:.0}%", share * 100.0),
            Some(_) => format!("{score}%"),
            None => score.to_string(),
        })
    }
}

impl Kind for Jobs {
    fn read(value: &Value, path: &str, violations: &mut Vec<Violation>) -> Option<Self> {
        let Value::Array(entries) = value else {
            report(violations, path, "must be a list of jobs");
            return None;
        };
        let jobs: Vec<Option<Job>> = entries
            .iter()
            .enumerate()
            .map(|(position, entry)| Job::read(entry, &format!("{path}[{position}]"), violations))
            .collect();
        jobs.into_iter().collect::<Option<_>>().map(Self)
    }
}

impl Kind for Job {
    fn read(value: &Value, path: &str, violations: &mut Vec<Violation>) -> Option<Self> {
        let Value::Object(values) = value else {
            report(violations, path, "must be an object that describes a job");
            return None;
        };
        let mut fields = Fields::nested(values, format!("{path}."));
        let job = Self::take(&mut fields);
        fields.finish(job).map_err(|found| violations.extend(found)).ok()
    }
}

impl Job {
    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        let title = fields.take("title");
        let company = fields.take("company");
        let location = fields.take("location");
        let url = fields.take("url");
        let salary = fields.take("salary");
        let match_reason = fields.take("match_reason");
        let match_score = fields.take("match_score");
        Some(Self {
            title: title?,
            company: company?,
            location: location?,
            url: url?,
            salary: salary?,
            match_reason: match_reason?,
            match_score: match_score?,
        })
    }
}
