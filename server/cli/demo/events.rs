//! What the demo publishes: every type of the catalogue once, and the mails that the seeded routes make of it.

/// The recipient lists, each filled as an administrator would type it: with commas.
pub const LISTS: &[(&str, &str)] = &[
    ("tickets_all", "support@example.com"),
    ("tickets_critical", "admin@example.com, manager@example.com"),
    ("low_stock", "inventory@example.com, purchasing@example.com"),
    ("user_created", "hr@example.com, admin@example.com"),
    ("system_alerts", "admin@example.com, tech@example.com"),
];

/// Who gets the mails that no event causes.
pub const READER: &str = "sam@example.com";

/// One event.
#[derive(Debug)]
pub struct Planned {
    /// Its type.
    pub event_type: &'static str,
    /// Who causes it.
    pub actor: &'static str,
    /// What it is about.
    pub subject: &'static str,
    /// Its payload.  Spaces, the order of keys and the zeros of numbers must arrive as they are written here.
    pub data: &'static str,
    /// What the seeded routes make of it.
    pub mails: &'static [Mails],
}

/// A template, sent to some people for one event.
#[derive(Debug)]
pub struct Mails {
    /// The template.
    pub template: &'static str,
    /// Who gets it, a mail each.
    pub recipients: &'static [&'static str],
    /// What both bodies must show: the values of the template's variables.
    pub words: &'static [&'static str],
}

const TICKET: &[&str] =
    &["42", "Pump 3 has stopped", "critical", "31 January 2026, 10:29 UTC", "/tickets/42"];

/// The events, in the order in which they are published.
pub const EVENTS: &[Planned] = &[
    Planned {
        event_type: "ticket.created",
        actor: "jo",
        subject: "ticket:42",
        data: r#"{"ticket_id": 42, "title": "Pump 3 has stopped", "priority": "critical", "created_by": "jo", "created_at": "2026-01-31T10:29:55Z"}"#,
        mails: &[
            Mails { template: "ticket_created", recipients: &["support@example.com"], words: TICKET },
            Mails {
                template: "ticket_created",
                recipients: &["admin@example.com", "manager@example.com"],
                words: TICKET,
            },
        ],
    },
    Planned {
        event_type: "ticket.updated",
        actor: "kim",
        subject: "ticket:42",
        data: r#"{"ticket_id": 42, "title": "Pump 3 has stopped", "changes": {"status": {"from": "open", "to": "solved"}}, "updated_by": "kim"}"#,
        mails: &[Mails {
            template: "ticket_updated",
            recipients: &["support@example.com"],
            words: &["kim", "42", "Pump 3 has stopped", "open", "solved", "/tickets/42"],
        }],
    },
    Planned {
        event_type: "ticket.comment",
        actor: "kim",
        subject: "ticket:42",
        data: r#"{"ticket_id": 42, "text": "The fuse was blown; it’s “in” again.", "author": "kim", "created_at": "2026-01-31T11:02:00Z"}"#,
        mails: &[],
    },
    Planned {
        event_type: "inventory.low_stock",
        actor: "stock-keeper",
        subject: "item:fish-feed",
        data: r#"{"item_name": "Fish feed <3 mm> & pellets", "current_stock": 12.50, "reorder_level": 50, "unit": "kg", "category": "Feed"}"#,
        mails: &[Mails {
            template: "low_stock_alert",
            recipients: &["inventory@example.com", "purchasing@example.com"],
            words: &["Fish feed <3 mm> & pellets", "12.5 kg", "50 kg", "Feed"],
        }],
    },
    Planned {
        event_type: "user.created",
        actor: "admin",
        subject: "user:ana",
        data: r#"{"username": "ana.silva", "email": "ana@example.com", "role": "manager", "user_name": "Ana Silva"}"#,
        mails: &[
            Mails {
                template: "user_welcome",
                recipients: &["ana@example.com"],
                words: &["Ana Silva", "ana.silva", "ana@example.com", "manager"],
            },
            Mails {
                template: "system_alert",
                recipients: &["hr@example.com", "admin@example.com"],
                words: &["New account: ana.silva", "ana@example.com", "manager", "info"],
            },
        ],
    },
    Planned {
        event_type: "user.login",
        actor: "ana.silva",
        subject: "user:ana",
        data: r#"{"username": "ana.silva", "ip_address": "192.0.2.7", "timestamp": "2026-01-31T12:00:00Z"}"#,
        mails: &[],
    },
    Planned {
        event_type: "dashboard.update",
        actor: "statistics",
        subject: "dashboard",
        data: r#"{"stats": {"open_tickets": 7, "low_stock_items": 2, "water_temperature": 28.0}}"#,
        mails: &[],
    },
    Planned {
        event_type: "user.online",
        actor: "ana.silva",
        subject: "user:ana",
        data: r#"{"user_id": "17", "username": "ana.silva"}"#,
        mails: &[],
    },
    Planned {
        event_type: "user.offline",
        actor: "ana.silva",
        subject: "user:ana",
        data: r#"{"user_id": "17", "username": "ana.silva"}"#,
        mails: &[],
    },
    Planned {
        event_type: "notification",
        actor: "tank-monitor",
        subject: "tank:2",
        data: r#"{"message": "The water of tank 2 is above 30 degrees.", "type": "warning", "priority": "critical"}"#,
        mails: &[Mails {
            template: "system_alert",
            recipients: &["admin@example.com", "tech@example.com"],
            words: &["Critical notification", "The water of tank 2 is above 30 degrees.", "critical"],
        }],
    },
    Planned {
        event_type: "user.registered",
        actor: "sam",
        subject: "user:sam",
        data: r#"{"email": "sam@example.com", "user_name": "Sam Okoro", "user_id": "18"}"#,
        mails: &[Mails { template: "welcome", recipients: &[READER], words: &["Sam Okoro"] }],
    },
    Planned {
        event_type: "application.status_changed",
        actor: "green-ltd",
        subject: "application:88",
        data: r#"{"email": "sam@example.com", "user_name": "Sam Okoro", "job_title": "Gardener", "company": "Green Ltd", "old_status": "applied", "new_status": "interview"}"#,
        mails: &[Mails {
            template: "application_status_update",
            recipients: &[READER],
            words: &["Sam Okoro", "Gardener", "Green Ltd", "applied", "interview"],
        }],
    },
    Planned {
        event_type: "webhook.failing",
        actor: "switchboard",
        subject: "wh_accounting",
        data: r#"{"webhook_id": "wh_accounting", "name": "Accounting", "url": "https://accounting.example.com/hook", "failing_since": "2026-01-31T09:12:00Z", "failures": 14, "last_error": "answered 503 Service Unavailable"}"#,
        mails: &[Mails {
            template: "webhook_failing",
            recipients: &["admin@example.com", "tech@example.com"],
            words: &[
                "Accounting",
                "accounting.example.com",
                "31 January 2026, 09:12 UTC",
                "14",
                "answered 503",
            ],
        }],
    },
    Planned {
        event_type: "webhook.disabled",
        actor: "switchboard",
        subject: "wh_warehouse",
        data: r#"{"webhook_id": "wh_warehouse", "name": "Warehouse", "url": "https://warehouse.example.com/hook", "reason": "it answered 410 Gone: it wants no more requests", "failing_since": "2026-01-31T09:12:00Z", "failures": 1, "last_error": "answered 410 Gone"}"#,
        mails: &[Mails {
            template: "webhook_disabled",
            recipients: &["admin@example.com", "tech@example.com"],
            words: &["Warehouse", "warehouse.example.com", "wants no more requests"],
        }],
    },
];

/// The templates that A and B name; the demo fails if the server lacks one.
pub const TEMPLATES: &[&str] = &[
    "application_follow_up",
    "application_status_update",
    "job_alert",
    "job_recommendations",
    "low_stock_alert",
    "password_reset",
    "system_alert",
    "ticket_created",
    "ticket_updated",
    "user_welcome",
    "welcome",
];

/// Whether an event of the demo already shows this template.
pub fn shows(template: &str) -> bool {
    EVENTS.iter().flat_map(|event| event.mails).any(|mails| mails.template == template)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::catalogue::{self, BUILT_IN};

    #[test]
    fn every_type_of_the_catalogue_is_published_once_with_its_fields() {
        let mut published: Vec<_> = EVENTS.iter().map(|event| event.event_type).collect();
        // What becomes of keys and of notifications the server says itself.
        let own = |name: &&str| name.starts_with("key.") || name.starts_with("notification.");
        let mut known: Vec<_> =
            BUILT_IN.iter().map(|built_in| built_in.name).filter(|name| !own(name)).collect();
        published.sort_unstable();
        known.sort_unstable();
        assert_eq!(published, known);
        for event in EVENTS {
            let data: serde_json::Map<String, serde_json::Value> = serde_json::from_str(event.data).unwrap();
            let fields = catalogue::find(event.event_type).unwrap().fields();
            for field in fields.iter().filter(|field| field.required) {
                assert!(data.contains_key(&field.name), "{} lacks {}", event.event_type, field.name);
            }
        }
    }

    #[test]
    fn an_event_sends_nobody_two_mails() {
        // The record is checked by event and recipient.
        for event in EVENTS {
            let mut seen = std::collections::HashSet::new();
            for recipient in event.mails.iter().flat_map(|mails| mails.recipients) {
                assert!(seen.insert(recipient), "{} {recipient}", event.event_type);
            }
        }
    }
}
