//! The event types that come with the server, with the fields of their payloads.

/// One field of a payload.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Field {
    /// Its key.
    pub name: String,
    /// Its JSON type.
    #[serde(rename = "type")]
    pub json_type: String,
    /// What it says.
    pub description: String,
    /// Whether every event of the type has it.
    pub required: bool,
}

/// A built-in type.
#[derive(Debug)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// When it is published.
    pub description: &'static str,
    fields: &'static [(&'static str, &'static str, bool, &'static str)],
    /// A payload that shows the fields.
    pub sample: &'static str,
}

impl BuiltIn {
    /// The fields.
    pub fn fields(&self) -> Vec<Field> {
        let field = |&(name, json_type, required, description): &(&str, &str, bool, &str)| Field {
            name: name.into(),
            json_type: json_type.into(),
            description: description.into(),
            required,
        };
        self.fields.iter().map(field).collect()
    }
}

/// The built-in type of this name.
pub fn find(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|built_in| built_in.name == name)
}

/// The types that say what the server did with inboxes: it alone publishes them.
const RESERVED: [&str; 3] = ["notification.updated", "notification.withdrawn", "notification.counts"];

/// Whether only the server publishes events of this type.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// All of them.
pub const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "ticket.created",
        description: "A ticket was opened.",
        fields: &[
            ("ticket_id", "integer", true, "The ticket's number."),
            ("title", "string", true, "What it is about."),
            ("priority", "string", true, "low, medium, high or critical."),
            ("created_by", "string", true, "Who opened it."),
            ("created_at", "string", false, "When, in RFC 3339."),
            ("status", "string", false, "Its status, open when absent."),
        ],
        sample: r#"{"ticket_id":42,"title":"Pump 3 has stopped","priority":"critical","created_by":"jo","created_at":"2026-01-31T10:29:55Z"}"#,
    },
    BuiltIn {
        name: "ticket.updated",
        description: "A ticket's status or details changed.",
        fields: &[
            ("ticket_id", "integer", true, "The ticket's number."),
            (
                "changes",
                "object",
                true,
                "For each changed field its new value, or an object with from and to.",
            ),
            ("updated_by", "string", true, "Who changed it."),
            ("title", "string", false, "What it is about."),
        ],
        sample: r#"{"ticket_id":42,"title":"Pump 3 has stopped","changes":{"status":{"from":"open","to":"solved"}},"updated_by":"jo"}"#,
    },
    BuiltIn {
        name: "ticket.comment",
        description: "Somebody commented on a ticket.",
        fields: &[
            ("ticket_id", "integer", true, "The ticket's number."),
            ("text", "string", true, "The comment."),
            ("author", "string", true, "Who wrote it."),
            ("created_at", "string", true, "When, in RFC 3339."),
        ],
        sample: r#"{"ticket_id":42,"text":"The fuse was blown.","author":"jo","created_at":"2026-01-31T11:02:00Z"}"#,
    },
    BuiltIn {
        name: "inventory.low_stock",
        description: "An item's stock fell below its reorder level.",
        fields: &[
            ("item_name", "string", true, "The item."),
            ("current_stock", "number", true, "How much is left."),
            ("reorder_level", "number", true, "The level below which it is to be ordered."),
            ("unit", "string", false, "The unit of both."),
            ("category", "string", false, "The item's category."),
        ],
        sample: r#"{"item_name":"Fish feed 3 mm","current_stock":12.5,"reorder_level":50,"unit":"kg","category":"Feed"}"#,
    },
    BuiltIn {
        name: "user.created",
        description: "An account was made for somebody.",
        fields: &[
            ("username", "string", true, "The login name."),
            ("email", "string", true, "The account's mail address."),
            ("role", "string", true, "The account's role."),
            ("user_name", "string", false, "What to call the person."),
            ("login_url", "string", false, "Where to sign in."),
        ],
        sample: r#"{"username":"jo","email":"jo@example.com","role":"manager","user_name":"Jo"}"#,
    },
    BuiltIn {
        name: "user.login",
        description: "Somebody signed in.",
        fields: &[
            ("username", "string", true, "The login name."),
            ("ip_address", "string", true, "From where."),
            ("timestamp", "string", true, "When, in RFC 3339."),
        ],
        sample: r#"{"username":"jo","ip_address":"192.0.2.7","timestamp":"2026-01-31T08:00:00Z"}"#,
    },
    BuiltIn {
        name: "dashboard.update",
        description: "The statistics of a dashboard changed.",
        fields: &[("stats", "object", true, "The statistics by name.")],
        sample: r#"{"stats":{"open_tickets":7,"low_stock_items":2}}"#,
    },
    BuiltIn {
        name: "user.online",
        description: "Somebody's first connection was opened.",
        fields: &[("user_id", "string", true, "Who."), ("username", "string", true, "The login name.")],
        sample: r#"{"user_id":"17","username":"jo"}"#,
    },
    BuiltIn {
        name: "user.offline",
        description: "Somebody's last connection is gone.",
        fields: &[("user_id", "string", true, "Who."), ("username", "string", true, "The login name.")],
        sample: r#"{"user_id":"17","username":"jo"}"#,
    },
    BuiltIn {
        name: "notification",
        description: "A message for people.",
        fields: &[
            ("message", "string", true, "What to show."),
            ("type", "string", true, "info, success, warning or error."),
            ("priority", "string", true, "low, normal, high or critical."),
            ("title", "string", false, "A headline."),
            (
                "notification_id",
                "string",
                false,
                "Its id in inboxes; without one it is `ntf_` and the last 26 characters of the event's id.",
            ),
            (
                "category",
                "string",
                false,
                "What kind it is, for preferences and filters; general when absent.",
            ),
            (
                "action_url",
                "string",
                false,
                "Where opening it leads: an https URL, or a path that begins with /.",
            ),
            ("data", "object", false, "What the application adds."),
            ("expires_at", "string", false, "When it goes from the inbox, in RFC 3339."),
            ("replace_key", "string", false, "It takes the place of the one in the inbox with the same key."),
            (
                "email_fallback",
                "object",
                false,
                "after_seconds, and email_address if it is not that of the preferences: sends a mail if it is not seen by then.",
            ),
        ],
        sample: r#"{"message":"Water temperature is above 30 degrees","type":"warning","priority":"critical"}"#,
    },
    BuiltIn {
        name: "notification.updated",
        description: "The server's word for the devices of a user: notifications were marked, or one says something else now.",
        fields: &[
            (
                "change",
                "string",
                true,
                "seen, read, unread, archived, unarchived, or content for one that was changed.",
            ),
            ("notification_id", "string", false, "Which, of a change of content."),
            ("notification_ids", "array", false, "Which, of marks."),
            (
                "up_to_notification_id",
                "string",
                false,
                "All up to this one, of marks: that which it was when it was marked, and everything before it.",
            ),
            ("category", "string", false, "Of marks up to one: only those of this category."),
            (
                "content",
                "object",
                false,
                "What was changed: title, message, category, priority, action_url, data, expires_at.",
            ),
            ("mark_unread", "boolean", false, "Whether a change of content made it unread and unseen again."),
            ("changed_at", "string", true, "When, in RFC 3339."),
        ],
        sample: r#"{"change":"read","notification_ids":["ntf_01jgfjjz00000000000000000a"],"changed_at":"2026-01-31T10:30:00Z"}"#,
    },
    BuiltIn {
        name: "notification.withdrawn",
        description: "The server's word for the devices of a user: a notification is in the inbox no more.",
        fields: &[
            ("notification_id", "string", true, "Which."),
            ("reason", "string", true, "withdrawn or expired."),
        ],
        sample: r#"{"notification_id":"ntf_01jgfjjz00000000000000000a","reason":"withdrawn"}"#,
    },
    BuiltIn {
        name: "notification.counts",
        description: "The server's word for the devices of a user: how many notifications wait. Ephemeral, with the collapse key counts.",
        fields: &[
            ("unread", "integer", true, "Neither read nor archived."),
            ("unseen", "integer", true, "Neither seen nor archived."),
            ("version", "integer", true, "Of two counts, the one with the greater version is the newer."),
        ],
        sample: r#"{"unread":3,"unseen":1,"version":42}"#,
    },
    BuiltIn {
        name: "user.registered",
        description: "Somebody registered; sends the welcome mail.",
        fields: &[
            ("email", "string", true, "The address to welcome."),
            ("user_name", "string", false, "What to call the person."),
            ("user_id", "string", false, "Who."),
        ],
        sample: r#"{"email":"sam@example.com","user_name":"Sam","user_id":"18"}"#,
    },
    BuiltIn {
        name: "application.status_changed",
        description: "A job application's status changed; sends the status mail.",
        fields: &[
            ("email", "string", true, "The applicant's address."),
            ("job_title", "string", true, "The job."),
            ("new_status", "string", true, "The status now."),
            ("old_status", "string", false, "The status before."),
            ("company", "string", false, "Who offers the job."),
            ("user_name", "string", false, "What to call the applicant."),
            ("application_url", "string", false, "Where to see the application."),
        ],
        sample: r#"{"email":"sam@example.com","user_name":"Sam","job_title":"Gardener","company":"Green Ltd","old_status":"applied","new_status":"interview"}"#,
    },
    BuiltIn {
        name: "webhook.failing",
        description: "Every request to a webhook endpoint has failed for a while; published by the server, and not sent to that endpoint.",
        fields: &[
            ("webhook_id", "string", true, "The endpoint."),
            ("name", "string", true, "Its name."),
            ("url", "string", true, "Where its requests go, without the query."),
            ("failing_since", "string", true, "When the first of the failed requests was made, in RFC 3339."),
            ("failures", "integer", true, "How many have failed since then."),
            ("last_error", "string", true, "Why the last one failed."),
        ],
        sample: r#"{"webhook_id":"wh_01JGFJJZ00000000000000000A","name":"Accounting","url":"https://accounting.example.com/hook","failing_since":"2026-01-31T09:12:00Z","failures":14,"last_error":"answered 503 Service Unavailable"}"#,
    },
    BuiltIn {
        name: "webhook.disabled",
        description: "The server made a webhook endpoint inactive: every request failed for days, or it wants no more.",
        fields: &[
            ("webhook_id", "string", true, "The endpoint."),
            ("name", "string", true, "Its name."),
            ("url", "string", true, "Where its requests went, without the query."),
            ("reason", "string", true, "Why."),
            ("failing_since", "string", true, "When the first of the failed requests was made, in RFC 3339."),
            ("failures", "integer", true, "How many have failed since then."),
            ("last_error", "string", true, "Why the last one failed."),
        ],
        sample: r#"{"webhook_id":"wh_01JGFJJZ00000000000000000A","name":"Accounting","url":"https://accounting.example.com/hook","reason":"it answered 410 Gone: it wants no more requests","failing_since":"2026-01-31T09:12:00Z","failures":1,"last_error":"answered 410 Gone"}"#,
    },
    BuiltIn {
        name: "key.created",
        description: "An API key was made.",
        fields: &[
            ("key_id", "string", true, "The key's id."),
            ("name", "string", true, "What people call it."),
            ("key_prefix", "string", true, "The part of it that one may see."),
            ("expires_at", "string", true, "When it stops working, in RFC 3339."),
            ("external_id", "string", false, "Whose it is, in the words of the application."),
        ],
        sample: r#"{"key_id":"key_01jd0000000000000000000000","name":"reports","key_prefix":"swb_0aBcDeFgHiJ","expires_at":"2026-05-01T10:30:00Z","external_id":"user 17"}"#,
    },
    BuiltIn {
        name: "key.revoked",
        description: "An API key was ended before its time.",
        fields: &[
            ("key_id", "string", true, "The key's id."),
            ("name", "string", true, "What people call it."),
            ("key_prefix", "string", true, "The part of it that one may see."),
            ("expires_at", "string", true, "When it would have stopped working, in RFC 3339."),
            ("external_id", "string", false, "Whose it is, in the words of the application."),
        ],
        sample: r#"{"key_id":"key_01jd0000000000000000000000","name":"reports","key_prefix":"swb_0aBcDeFgHiJ","expires_at":"2026-05-01T10:30:00Z"}"#,
    },
    BuiltIn {
        name: "key.expiring",
        description: "An API key stops working soon: within 14, 7 or 1 days, once each.",
        fields: &[
            ("key_id", "string", true, "The key's id."),
            ("name", "string", true, "What people call it."),
            ("key_prefix", "string", true, "The part of it that one may see."),
            ("expires_at", "string", true, "When it stops working, in RFC 3339."),
            ("days_left", "integer", true, "14, 7 or 1."),
            ("external_id", "string", false, "Whose it is, in the words of the application."),
        ],
        sample: r#"{"key_id":"key_01jd0000000000000000000000","name":"reports","key_prefix":"swb_0aBcDeFgHiJ","expires_at":"2026-05-01T10:30:00Z","days_left":7}"#,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::model::check_event_type;

    #[test]
    fn every_sample_has_the_required_fields_and_no_unknown_ones() {
        for built_in in BUILT_IN {
            check_event_type(built_in.name).unwrap();
            let sample: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(built_in.sample).unwrap();
            let fields = built_in.fields();
            for field in fields.iter().filter(|field| field.required) {
                assert!(sample.contains_key(&field.name), "{} lacks {}", built_in.name, field.name);
            }
            for key in sample.keys() {
                assert!(fields.iter().any(|field| field.name == *key), "{} has {key}", built_in.name);
            }
        }
    }
}
