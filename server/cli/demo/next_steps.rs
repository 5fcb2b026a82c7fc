//! Commands to copy: each works as it is printed, and by itself.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use serde_json::{Value, json};

/// Where `switchboard serve` listens when nothing else is said.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));

/// How many commands there are.
const COUNT: usize = 8;

/// What each command is for.
pub const PURPOSES: [&str; COUNT] = [
    "what the server offers",
    "how a service is called",
    "publish an event",
    "what became of the newest event, on every channel",
    "the newest mails",
    "the webhook endpoints",
    "make a key that may only read; it is shown this once",
    "watch events as they happen, until Ctrl-C",
];

/// The commands for a server at `address` that knows `key`, in the order of [`PURPOSES`], each for a POSIX shell.
///
/// The one that reads the newest event needs one that was published before, by the line above it if by nothing else.
/// The last one streams until it is interrupted; all others end by themselves.
pub fn grpcurl_lines(address: SocketAddr, key: &str) -> [String; COUNT] {
    let header = format!("grpcurl -plaintext -H {}", quoted(&format!("x-api-key: {key}")));
    let plain = |rest: &str| format!("{header} {address} {rest}");
    let call = |method: &str, request: Value| {
        let request = quoted(&request.to_string());
        format!("{header} -d {request} {address} switchboard.{method}")
    };
    let data = json!({
        "ticket_id": 43,
        "title": "The door of barn 2 is open",
        "priority": "high",
        "created_by": "jo",
    });
    let event = json!({
        "event_type": "ticket.created",
        "data": data.to_string(),
        "actor": "jo",
        "subject": "ticket:43",
    });
    let key = json!({ "name": "Reports", "scopes": ["events:read", "email:read"], "expires_in_days": 30 });
    // The newest event's id becomes the next request, so that the line needs nothing filled in.
    let newest = call("event.v1.EventService/ListEvents", json!({ "page_size": 1 }));
    let into_request = r#"sed -n 's/.*"id": *"\(evt_[^"]*\)".*/{"event_id":"\1"}/p'"#;
    let get = format!("{header} -d @ {address} switchboard.event.v1.EventService/GetEvent");
    [
        plain("list"),
        plain("describe switchboard.event.v1.EventService"),
        call("event.v1.EventService/PublishEvent", event),
        format!("{newest} | {into_request} | {get}"),
        call("email.v1.EmailService/ListEmails", json!({ "page_size": 3 })),
        call("webhook.v1.WebhookService/ListWebhooks", json!({})),
        call("apikey.v1.ApiKeyService/CreateApiKey", key),
        call("notification.v1.NotificationService/Subscribe", json!({ "event_types": ["*"] })),
    ]
}

/// Starts a server that knows `key`, on a folder of its own: one that exists may have another key.
pub fn serve(key: &str) -> String {
    format!("SWITCHBOARD_ADMIN_KEY={} switchboard serve --data \"$(mktemp -d)\"", quoted(key))
}

/// One word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_key_the_address_and_quoted_json() {
        let lines = grpcurl_lines(DEFAULT_ADDRESS, "swb_key");
        assert_eq!(lines[0], "grpcurl -plaintext -H 'x-api-key: swb_key' 127.0.0.1:8080 list");
        for line in &lines {
            assert!(line.starts_with("grpcurl -plaintext -H 'x-api-key: swb_key' "), "{line}");
            assert!(line.contains(" 127.0.0.1:8080 "), "{line}");
        }
        let publish = lines.iter().find(|line| line.ends_with("/PublishEvent")).unwrap();
        let request: Value = serde_json::from_str(publish.split('\'').nth(3).unwrap()).unwrap();
        let data: Value = serde_json::from_str(request["data"].as_str().unwrap()).unwrap();
        assert_eq!(data["ticket_id"], 43);
    }

    #[test]
    fn a_quoted_word_is_one_word() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
