//! Mails about webhook endpoints.

use super::mail::mail;
use super::moment::Moment;
use super::value::Line;

mail! {
    /// Warns that every request to a webhook endpoint fails.
    WebhookFailing = "webhook_failing", [
        "webhook_failing/subject.txt", "webhook_failing/body.html", "webhook_failing/body.txt"
    ] {
        /// Name of the endpoint.
        name: Line = r#""Accounting""#,
        /// Where its requests go.
        url: Option<Line> = r#""https://accounting.example.com/hook""#,
        /// When the first of the failed requests was made.
        failing_since: Option<Moment> = r#""2026-03-14T09:26:53Z""#,
        /// How many requests have failed since then.
        failures: Option<Line> = "14",
        /// Why the last one failed.
        last_error: Option<Line> = r#""answered 503 Service Unavailable""#,
    }
}

mail! {
    /// Tells that a webhook endpoint gets no more events.
    WebhookDisabled = "webhook_disabled", [
        "webhook_disabled/subject.txt", "webhook_disabled/body.html", "webhook_disabled/body.txt"
    ] {
        /// Name of the endpoint.
        name: Line = r#""Accounting""#,
        /// Why it was disabled.
        reason: Line = r#""it answered 410 Gone: it wants no more requests""#,
        /// Where its requests went.
        url: Option<Line> = r#""https://accounting.example.com/hook""#,
        /// When the first of the failed requests was made.
        failing_since: Option<Moment> = r#""2026-03-14T09:26:53Z""#,
        /// How many requests have failed since then.
        failures: Option<Line> = "1",
        /// Why the last one failed.
        last_error: Option<Line> = r#""answered 410 Gone""#,
    }
}
