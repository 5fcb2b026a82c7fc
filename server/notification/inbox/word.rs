//! What events say about inboxes, and how it is read.
//!
//! Applications may publish `notification` events themselves, so that reading one never fails: what is too long is cut,
//! what is not understood is left out.  The other types are published by the server alone.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::apply::{Broadcast, Change, Delivery, Due, Op};
use super::model::{self, Content, GENERAL, Mark, Priority, Selection, Which};
use crate::clock::Timestamp;
use crate::event::{Event, Fact, topic};
use crate::id::{self, Kind};

/// A notification came.
pub(super) const SENT: &str = "notification";
/// Some were marked, or one was changed.
pub(super) const UPDATED: &str = "notification.updated";
/// One is gone.
pub(super) const WITHDRAWN: &str = "notification.withdrawn";
/// How many wait.
pub(super) const COUNTS: &str = "notification.counts";
/// The change of [`UPDATED`] that is none of the marks.
const CONTENT: &str = "content";
/// How long a mail may wait.
pub(super) const WAIT: std::ops::RangeInclusive<u64> = 60..=7 * 24 * 60 * 60;

/// A mail that is to go if a notification is not seen in time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// How long to wait, in seconds.
    pub after_seconds: u64,
    /// Where it goes; empty means where the preferences say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub email_address: String,
}

/// The payload of [`SENT`].
#[derive(Serialize)]
struct Payload<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    tone: &'a str,
    priority: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    title: &'a str,
    notification_id: &'a str,
    category: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    action_url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    replace_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email_fallback: Option<&'a Fallback>,
}

/// The payload of a notification that is sent.
pub(super) fn sent(
    notification_id: &str,
    content: &Content,
    replace_key: &str,
    fallback: Option<&Fallback>,
) -> String {
    let tone = match content.priority {
        Priority::Critical => "error",
        Priority::High => "warning",
        Priority::Normal | Priority::Low => "info",
    };
    let category = if content.category.is_empty() { GENERAL } else { &content.category };
    let payload = Payload {
        message: &content.message,
        tone,
        priority: content.priority.word(),
        title: &content.title,
        notification_id,
        category,
        action_url: &content.action_url,
        data: serde_json::from_str(&content.data).ok(),
        expires_at: content.expires_at.map(|at| at.to_string()),
        replace_key,
        email_fallback: fallback,
    };
    serde_json::to_string(&payload).expect("texts are JSON")
}

/// The payload of marks.
pub(super) fn marked(mark: Mark, selection: &Selection, at: Timestamp) -> String {
    let mut data = json!({ "change": mark.word(), "changed_at": at.to_string() });
    match &selection.which {
        Which::Ids(ids) => data["notification_ids"] = json!(ids),
        Which::UpTo(id) => data["up_to_notification_id"] = json!(id),
    }
    if !selection.category.is_empty() {
        data["category"] = json!(selection.category);
    }
    data.to_string()
}

/// The payload of a change of what a notification says.
pub(super) fn changed(id: &str, change: &Change, mark_unread: bool, at: Timestamp) -> String {
    let mut content = Map::new();
    let texts = [
        ("category", &change.category),
        ("title", &change.title),
        ("message", &change.message),
        ("action_url", &change.action_url),
    ];
    for (name, text) in texts {
        content.extend(text.as_ref().map(|text| (name.to_owned(), json!(text))));
    }
    content.extend(change.priority.map(|priority| ("priority".to_owned(), json!(priority.word()))));
    if let Some(data) = &change.data {
        content.insert("data".into(), serde_json::from_str(data).unwrap_or_default());
    }
    if let Some(at) = change.expires_at {
        content.insert("expires_at".into(), json!(at.map(|at| at.to_string())));
    }
    let (change, changed_at) = (CONTENT, at.to_string());
    json!({
        "change": change,
        "notification_id": id,
        "content": content,
        "mark_unread": mark_unread,
        "changed_at": changed_at,
    })
    .to_string()
}

/// The payload of a notification that is taken out.
pub(super) fn withdrawn(id: &str, reason: &str) -> String {
    json!({ "notification_id": id, "reason": reason }).to_string()
}

/// The id of the notification that an event brings, when nothing else is said.
pub(super) fn id_of(event_id: &str) -> String {
    format!("{}{}", Kind::Notification.prefix(), event_id.trim_start_matches(Kind::Event.prefix()))
}

/// What an event asks of inboxes; `None` for one that has nothing to do with them.
pub(super) fn read(event: &Event) -> Option<Op> {
    let fact = &*event.fact;
    if !matches!(&*fact.event_type, SENT | UPDATED | WITHDRAWN) {
        return None;
    }
    let user_id = topic::user(&fact.topic).map(str::to_owned);
    if user_id.is_none() && &*fact.topic != topic::BROADCAST {
        return None;
    }
    let data: Map<String, Value> = serde_json::from_str(&fact.data).ok()?;
    let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
    if &*fact.event_type == SENT {
        return read_sent(event, &data, user_id);
    }
    let id = text("notification_id").to_owned();
    let at = fact.created_at;
    if &*fact.event_type == WITHDRAWN {
        return Some(Op::Withdraw { user_id, id, at });
    }
    if text("change") == CONTENT {
        let mark_unread = data.get("mark_unread").and_then(Value::as_bool).unwrap_or_default();
        let change = read_change(data.get("content")?.as_object()?);
        return Some(Op::Change { user_id, id, change, mark_unread, at, position: event.position });
    }
    let mark = Mark::of_word(text("change"))?;
    let which = match data.get("notification_ids") {
        Some(ids) => Which::Ids(serde_json::from_value(ids.clone()).ok()?),
        None => Which::UpTo(text("up_to_notification_id").to_owned()),
    };
    let selection = Selection { user_id: user_id?, which, category: text("category").to_owned() };
    Some(Op::Mark { mark, selection, at, event_id: event.fact.id.to_string() })
}

fn read_sent(event: &Event, data: &Map<String, Value>, user_id: Option<String>) -> Option<Op> {
    let fact = &*event.fact;
    let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
    let content = content(fact, data);
    // One that is over before it comes is in no inbox.
    if content.expires_at.is_some_and(|at| at <= fact.created_at) {
        return None;
    }
    let given = text("notification_id");
    let id = if id::is_valid(Kind::Notification, given) { given.to_owned() } else { id_of(&fact.id) };
    let (event_id, position, created_at) = (fact.id.to_string(), event.position, fact.created_at);
    let Some(user_id) = user_id else {
        return Some(Op::Broadcast(Box::new(Broadcast { id, position, event_id, content, created_at })));
    };
    let replace_key = Some(text("replace_key").to_owned())
        .filter(|key| !key.is_empty() && model::check_line(key, model::KEY_LIMIT).is_ok());
    let fallback: Option<Fallback> =
        data.get("email_fallback").and_then(|value| serde_json::from_value(value.clone()).ok());
    let mail = fallback.filter(|fallback| WAIT.contains(&fallback.after_seconds)).map(|fallback| Due {
        at: created_at + std::time::Duration::from_secs(fallback.after_seconds),
        email_address: clean(&fallback.email_address, model::TITLE_LIMIT),
    });
    Some(Op::Deliver(Box::new(Delivery {
        user_id,
        id,
        position,
        event_id,
        content,
        replace_key,
        created_at,
        mail,
    })))
}

/// What a payload says, as far as an inbox can hold it.
fn content(fact: &Fact, data: &Map<String, Value>) -> Content {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
    let raw = serde_json::from_str::<Raw<'_>>(&fact.data).ok().and_then(|raw| raw.data);
    let object = raw.map(RawValue::get).filter(|raw| raw.starts_with('{') && raw.len() <= model::DATA_LIMIT);
    let category = Some(text("category")).filter(|category| model::check_category(category).is_ok());
    Content {
        category: category.unwrap_or(GENERAL).to_owned(),
        title: clean(text("title"), model::TITLE_LIMIT).replace(char::is_control, " "),
        message: clean(text("message"), model::MESSAGE_LIMIT),
        priority: Priority::of_word(text("priority")),
        action_url: Some(text("action_url"))
            .filter(|url| model::check_url(url).is_ok())
            .unwrap_or_default()
            .into(),
        data: object.unwrap_or_default().to_owned(),
        expires_at: Timestamp::parse(text("expires_at")),
    }
}

fn read_change(content: &Map<String, Value>) -> Change {
    let text = |name: &str| content.get(name).and_then(Value::as_str).map(str::to_owned);
    Change {
        category: text("category"),
        title: text("title"),
        message: text("message"),
        priority: text("priority").map(|word| Priority::of_word(&word)),
        action_url: text("action_url"),
        data: content.get("data").map(|data| if data.is_null() { String::new() } else { data.to_string() }),
        expires_at: content.get("expires_at").map(|at| at.as_str().and_then(Timestamp::parse)),
    }
}

/// The first characters of a text, without what a database can not hold.
fn clean(text: &str, limit: usize) -> String {
    text.chars().filter(|c| *c != '\0').take(limit).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn event(event_type: &str, topic: &str, data: String) -> Event {
        let fact = Fact {
            id: "evt_01jgfjjz00000000000000000a".into(),
            event_type: event_type.into(),
            data,
            actor: String::new(),
            subject: String::new(),
            topic: topic.into(),
            created_at: Timestamp::from_micros(1_000_000),
        };
        Event { position: 7, fact: Arc::new(fact) }
    }

    fn delivery(data: &str) -> Delivery {
        match read(&event(SENT, "user:jo", data.into())) {
            Some(Op::Deliver(delivery)) => *delivery,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_sent_reads_as_it_was_written() {
        let content = Content {
            category: "chat.mention".into(),
            title: "A title".into(),
            message: "Two\nlines".into(),
            priority: Priority::High,
            action_url: "/chat/9".into(),
            data: r#"{ "b": 1.50, "a": [] }"#.into(),
            expires_at: Some(Timestamp::from_micros(9_000_000)),
        };
        let fallback = Fallback { after_seconds: 60, email_address: "jo@example.com".into() };
        let found = delivery(&sent("ntf_01jgfjjz00000000000000000b", &content, "key", Some(&fallback)));
        assert_eq!(found.content, content, "the object byte for byte");
        assert_eq!((found.id.as_str(), found.position), ("ntf_01jgfjjz00000000000000000b", 7));
        assert_eq!(found.replace_key.as_deref(), Some("key"));
        let due = found.mail.unwrap();
        assert_eq!((due.at.micros(), due.email_address.as_str()), (61_000_000, "jo@example.com"));
    }

    #[test]
    fn an_event_of_an_application_is_read_as_far_as_it_can_be() {
        let plain = delivery(r#"{"message":"Water is warm","type":"warning","priority":"critical"}"#);
        assert_eq!(plain.id, "ntf_01jgfjjz00000000000000000a", "from the event's id");
        assert_eq!((plain.content.priority, plain.content.category.as_str()), (Priority::Critical, GENERAL));
        let odd = format!(
            r#"{{"message":"a\u0000{}","title":"b\nc","category":"Bad One","action_url":"javascript:x","priority":9,
                "data":[1],"expires_at":"soon","notification_id":"x","replace_key":"\n","email_fallback":{{"after_seconds":1}}}}"#,
            "x".repeat(5_000)
        );
        let odd = delivery(&odd);
        assert_eq!(odd.content.message.chars().count(), model::MESSAGE_LIMIT);
        assert!(!odd.content.message.contains('\0'));
        let rest = Content { message: String::new(), ..odd.content };
        let expected = Content { title: "b c".into(), category: GENERAL.into(), ..Content::default() };
        assert_eq!(rest, expected);
        assert_eq!((odd.replace_key, odd.mail.is_none()), (None, true));
    }

    #[test]
    fn other_types_and_topics_are_no_concern_of_inboxes() {
        for (event_type, topic) in
            [(SENT, "events"), (SENT, "user:a:b"), ("notification.other", "user:jo"), ("a.b", "user:jo")]
        {
            assert!(
                read(&event(event_type, topic, r#"{"message":"a"}"#.into())).is_none(),
                "{event_type} {topic}"
            );
        }
        let over = r#"{"message":"a","expires_at":"1970-01-01T00:00:01Z"}"#;
        assert!(read(&event(SENT, "user:jo", over.into())).is_none(), "it is over");
    }

    #[test]
    fn marks_and_changes_read_as_they_were_written() {
        let at = Timestamp::from_micros(1_000_000);
        for which in [Which::Ids(vec!["ntf_1".into()]), Which::UpTo("ntf_2".into())] {
            let selection = Selection { user_id: "jo".into(), which, category: "a.b".into() };
            let Some(Op::Mark { mark, selection: found, .. }) =
                read(&event(UPDATED, "user:jo", marked(Mark::Archived, &selection, at)))
            else {
                panic!("no mark")
            };
            assert_eq!((mark, found), (Mark::Archived, selection));
        }
        let change = Change {
            title: Some("new".into()),
            data: Some(String::new()),
            priority: Some(Priority::Low),
            expires_at: Some(None),
            ..Change::default()
        };
        let Some(Op::Change { change: found, mark_unread: true, user_id: None, .. }) =
            read(&event(UPDATED, "broadcast", changed("ntf_1", &change, true, at)))
        else {
            panic!("no change")
        };
        assert_eq!(found, change);
    }

    proptest! {
        #[test]
        fn no_payload_is_too_odd(message in "\\PC{0,40}", more in "\\PC{0,40}") {
            let data = json!({ "message": message, "title": more, "category": more, "data": more, "expires_at": more });
            let found = delivery(&data.to_string());
            prop_assert!(model::check_line(&found.content.title, model::TITLE_LIMIT).is_ok());
        }
    }
}
