//! Mails about tickets, and the table of changes that one of them shows.

use super::Violation;
use super::field::{Kind, report};
use super::mail::mail;
use super::moment::Moment;
use super::value::{Line, Link, capitalised, clean, is_blank, plain};
use serde_json::{Map, Value};

mail! {
    /// Tells people that a ticket was opened.
    TicketCreated = "ticket_created", [
        "ticket_created/subject.txt", "ticket_created/body.html", "ticket_created/body.txt"
    ] {
        /// Name of the recipient.
        user_name: Option<Line> = r#""Ada""#,
        /// Number or key of the ticket.
        ticket_id: Line = "4217",
        /// Title of the ticket.
        ticket_title: Line = r#""Label printer in the packing hall is offline""#,
        /// Priority; words such as high and critical are shown in red.
        priority: Option<Line> = r#""High""#,
        /// Status the ticket is in.
        status: Option<Line> = r#""Open""#,
        /// Where to read the ticket.
        ticket_url: Option<Link> = r#""https://desk.example.com/tickets/4217""#,
        /// When the ticket was opened.
        created_at: Option<Moment> = r#""2026-03-14T09:26:53Z""#,
    }
}

mail! {
    /// Tells people what changed about a ticket.
    TicketUpdated = "ticket_updated", [
        "ticket_updated/subject.txt", "ticket_updated/body.html", "ticket_updated/body.txt"
    ] {
        /// Name of the recipient.
        user_name: Option<Line> = r#""Ada""#,
        /// Number or key of the ticket.
        ticket_id: Line = "4217",
        /// Title of the ticket.
        ticket_title: Option<Line> = r#""Label printer in the packing hall is offline""#,
        /// Priority the ticket has now.
        priority: Option<Line> = r#""Critical""#,
        /// Status the ticket is in now.
        status: Option<Line> = r#""In progress""#,
        /// Where to read the ticket.
        ticket_url: Option<Link> = r#""https://desk.example.com/tickets/4217""#,
        /// When the ticket was opened.
        created_at: Option<Moment> = r#""2026-03-14T09:26:53Z""#,
        /// Who changed the ticket.
        updated_by: Option<Line> = r#""Grace""#,
        /// What changed: an object from each field to its new value, or to its `from` and `to`.
        changes: Option<Changes> = r#"{
            "assigned_to": "Grace",
            "priority": {"from": "High", "to": "Critical"},
            "status": {"from": "Open", "to": "In progress"}
        }"#,
    }
}

/// Changed fields, in the order they were given.
pub(super) struct Changes(Vec<Change>);

/// One changed field.
pub(super) struct Change {
    pub(super) field: String,
    pub(super) from: Option<String>,
    pub(super) to: String,
}

impl Changes {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Change> {
        self.0.iter()
    }
}

impl Kind for Changes {
    fn read(value: &Value, path: &str, violations: &mut Vec<Violation>) -> Option<Self> {
        let Value::Object(fields) = value else {
            report(violations, path, "must be an object of the changed fields");
            return None;
        };
        Some(Self(fields.iter().map(change).collect()))
    }
}

fn change((name, value): (&String, &Value)) -> Change {
    let field = label(name);
    match value {
        Value::Object(sides) if is_transition(sides) => Change {
            field,
            from: sides.get("from").map(shown),
            to: sides.get("to").map_or_else(|| shown(&Value::Null), shown),
        },
        value => Change { field, from: None, to: shown(value) },
    }
}

fn is_transition(sides: &Map<String, Value>) -> bool {
    !sides.is_empty() && sides.keys().all(|side| side == "from" || side == "to")
}

/// Turns `assigned_to` into `Assigned to`.
fn label(name: &str) -> String {
    capitalised(&clean(name).replace(['_', '-'], " "))
}

/// Any value in words. What has no short form is shown as JSON rather than refused, because the
/// publisher of an event does not know that it ends up in a mail.
fn shown(value: &Value) -> String {
    match value {
        value if is_blank(value) => "none".to_owned(),
        Value::String(text) => clean(text),
        Value::Number(number) => plain(number),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(entries) => entries.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => clean(&other.to_string()),
    }
}
