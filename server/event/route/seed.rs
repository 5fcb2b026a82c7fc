//! The routes that a new database starts with.

use super::{EmailTarget, Recipients, Route, Target, store};
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::error::Result;
use crate::id::{IdGenerator, Kind as IdKind};

/// Name, event type, condition, template, recipients, variables.
type Seed = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Recipient,
    &'static [(&'static str, &'static str)],
);

enum Recipient {
    List(&'static str),
    Field(&'static str),
}

const TICKET: &[(&str, &str)] = &[
    ("ticket_title", "data.title"),
    ("status", "data.status or 'open'"),
    ("created_at", "data.created_at or created_at"),
    ("ticket_url", "branding.site_url ~ '/tickets/' ~ data.ticket_id"),
];

const SEEDS: &[Seed] = &[
    ("Tickets: all", "ticket.created", "", "ticket_created", Recipient::List("tickets_all"), TICKET),
    (
        "Tickets: critical",
        "ticket.created",
        "data.priority == 'critical'",
        "ticket_created",
        Recipient::List("tickets_critical"),
        TICKET,
    ),
    (
        "Tickets: updates",
        "ticket.updated",
        "",
        "ticket_updated",
        Recipient::List("tickets_all"),
        &[("ticket_title", "data.title"), ("ticket_url", "branding.site_url ~ '/tickets/' ~ data.ticket_id")],
    ),
    ("Low stock", "inventory.low_stock", "", "low_stock_alert", Recipient::List("low_stock"), &[]),
    (
        "Users: welcome",
        "user.created",
        "",
        "user_welcome",
        Recipient::Field("email"),
        &[("login_url", "data.login_url or branding.site_url")],
    ),
    (
        "Users: tell the team",
        "user.created",
        "",
        "system_alert",
        Recipient::List("user_created"),
        &[
            ("title", "'New account: ' ~ data.username"),
            (
                "message",
                "'An account was made for ' ~ data.username ~ ' (' ~ data.email ~ '), with the role ' ~ data.role ~ '.'",
            ),
            ("severity", "'info'"),
            ("occurred_at", "created_at"),
        ],
    ),
    (
        "System alerts",
        "notification",
        // Not what one user is told: there is an event for each of them.
        "data.priority == 'critical' and topic in ['events', 'broadcast']",
        "system_alert",
        Recipient::List("system_alerts"),
        &[
            ("title", "data.title or 'Critical notification'"),
            ("severity", "data.priority"),
            ("occurred_at", "created_at"),
        ],
    ),
    (
        "Registrations: welcome",
        "user.registered",
        "",
        "welcome",
        Recipient::Field("email"),
        &[("dashboard_url", "branding.site_url")],
    ),
    (
        "Applications: status",
        "application.status_changed",
        "",
        "application_status_update",
        Recipient::Field("email"),
        &[],
    ),
];

/// Who looks after the server is told of endpoints that fail; the templates take the events' fields as they are.
const WEBHOOK_HEALTH: &[Seed] = &[
    ("Webhooks: failing", "webhook.failing", "", "webhook_failing", Recipient::List("system_alerts"), &[]),
    ("Webhooks: disabled", "webhook.disabled", "", "webhook_disabled", Recipient::List("system_alerts"), &[]),
];

/// Adds the default routes; to be called once, in the transaction that marks the database as seeded.
pub async fn seed(conn: &mut Conn, ids: &IdGenerator, now: Timestamp) -> Result<()> {
    add(conn, ids, now, SEEDS).await
}

/// Adds the default routes of the events about endpoints, of which older databases know nothing; once, as [`seed`].
pub async fn seed_webhook_health(conn: &mut Conn, ids: &IdGenerator, now: Timestamp) -> Result<()> {
    add(conn, ids, now, WEBHOOK_HEALTH).await
}

async fn add(conn: &mut Conn, ids: &IdGenerator, now: Timestamp, seeds: &[Seed]) -> Result<()> {
    for (name, event_type, condition, template, recipient, variables) in seeds {
        // Somebody may have given this name to a route of theirs.
        if store::has_name(conn, name).await? {
            continue;
        }
        let recipients = match recipient {
            Recipient::List(list) => Recipients::List((*list).to_owned()),
            Recipient::Field(field) => Recipients::Field((*field).to_owned()),
        };
        let variables =
            variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let route = Route {
            id: ids.next(IdKind::Route),
            name: (*name).to_owned(),
            event_type: (*event_type).to_owned(),
            condition: (*condition).to_owned(),
            active: true,
            target: Target::Email(EmailTarget { template: (*template).to_owned(), recipients, variables }),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        store::insert(conn, &route).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::catalogue;
    use crate::event::route::expression::Expression;

    #[test]
    fn every_default_route_compiles_and_takes_a_type_of_the_catalogue() {
        for (name, event_type, condition, _, _, variables) in SEEDS.iter().chain(WEBHOOK_HEALTH) {
            assert!(catalogue::find(event_type).is_some(), "{name}");
            let condition = if condition.is_empty() { "true" } else { condition };
            Expression::compile(condition).unwrap();
            for (_, text) in *variables {
                Expression::compile(text).unwrap();
            }
        }
    }
}
