//! Inboxes over the wire: what is sent is there, what is marked is marked on every device, and counts are what they are.

use std::time::Duration;

use prost_types::FieldMask;
use serde_json::{Value, json};
use switchboard_client::Client;
use switchboard_client::event::v1::PublishEventRequest;
use switchboard_client::notification::v1::notification_selection::Which;
use switchboard_client::notification::v1::{
    ArchiveNotificationsRequest, BroadcastNotificationRequest, GetNotificationPreferencesRequest,
    GetUnreadCountRequest, ListNotificationsRequest, ListNotificationsResponse, MarkNotificationsReadRequest,
    MarkNotificationsSeenRequest, Notification, NotificationChannel, NotificationContent, NotificationCounts,
    NotificationIds, NotificationPreference, NotificationPreferences, NotificationPriority,
    NotificationSelection, SendNotificationRequest, SendNotificationResponse, SubscribeRequest,
    SubscribeResponse, UpdateNotificationPreferencesRequest, UpdateNotificationRequest,
    WithdrawNotificationRequest,
};
use tonic::{Code, Status};

use crate::harness::server::{Server, event};
use crate::harness::{on_both, status};
use crate::live::{after, next, subscribe};

pub fn says(message: &str) -> NotificationContent {
    NotificationContent { message: message.into(), ..Default::default() }
}

pub fn to(user_ids: &[&str], content: NotificationContent) -> SendNotificationRequest {
    let user_ids = user_ids.iter().map(|&user_id| user_id.into()).collect();
    SendNotificationRequest { user_ids, content: Some(content), ..Default::default() }
}

pub async fn try_send(
    client: &Client,
    request: SendNotificationRequest,
) -> Result<SendNotificationResponse, Status> {
    Ok(client.notifications().send_notification(request).await?.into_inner())
}

/// Sends to users; answers the id.
pub async fn send(server: &Server, user_ids: &[&str], message: &str) -> String {
    try_send(&server.client, to(user_ids, says(message))).await.unwrap().notification_id
}

pub async fn broadcast(server: &Server, content: NotificationContent) -> String {
    let request = BroadcastNotificationRequest { content: Some(content), ..Default::default() };
    server.client.notifications().broadcast_notification(request).await.unwrap().into_inner().notification_id
}

pub async fn list_with(client: &Client, request: ListNotificationsRequest) -> ListNotificationsResponse {
    client.notifications().list_notifications(request).await.unwrap().into_inner()
}

pub async fn list(client: &Client, user_id: &str) -> ListNotificationsResponse {
    list_with(
        client,
        ListNotificationsRequest { user_id: user_id.into(), page_size: 500, ..Default::default() },
    )
    .await
}

pub fn messages(listed: &ListNotificationsResponse) -> Vec<&str> {
    listed.notifications.iter().map(|one| one.content.as_ref().unwrap().message.as_str()).collect()
}

pub fn pair(counts: Option<NotificationCounts>) -> (i64, i64) {
    let counts = counts.expect("counts");
    (counts.unread, counts.unseen)
}

pub async fn counts(client: &Client, user_id: &str) -> NotificationCounts {
    let request = GetUnreadCountRequest { user_id: user_id.into() };
    client.notifications().get_unread_count(request).await.unwrap().into_inner().counts.unwrap()
}

/// Unread and unseen.
pub async fn waiting(client: &Client, user_id: &str) -> (i64, i64) {
    pair(Some(counts(client, user_id).await))
}

pub fn these(user_id: &str, ids: &[&str]) -> Option<NotificationSelection> {
    let notification_ids = ids.iter().map(|&id| id.into()).collect();
    let which = Some(Which::Ids(NotificationIds { notification_ids }));
    Some(NotificationSelection { user_id: user_id.into(), which, ..Default::default() })
}

pub fn up_to(user_id: &str, id: &str) -> Option<NotificationSelection> {
    let which = Some(Which::UpToNotificationId(id.into()));
    Some(NotificationSelection { user_id: user_id.into(), which, ..Default::default() })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Do {
    Seen,
    Read,
    Unread,
    Archive,
    Unarchive,
}

/// How many were changed, and what waits then.
pub async fn mark(
    client: &Client,
    what: Do,
    selection: Option<NotificationSelection>,
) -> Result<(i64, (i64, i64)), Status> {
    let inbox = &mut client.notifications();
    Ok(match what {
        Do::Seen => {
            let done =
                inbox.mark_notifications_seen(MarkNotificationsSeenRequest { selection }).await?.into_inner();
            (done.changed, pair(done.counts))
        }
        Do::Read | Do::Unread => {
            let request = MarkNotificationsReadRequest { selection, unread: what == Do::Unread };
            let done = inbox.mark_notifications_read(request).await?.into_inner();
            (done.changed, pair(done.counts))
        }
        Do::Archive | Do::Unarchive => {
            let request = ArchiveNotificationsRequest { selection, unarchive: what == Do::Unarchive };
            let done = inbox.archive_notifications(request).await?.into_inner();
            (done.changed, pair(done.counts))
        }
    })
}

pub async fn update(
    server: &Server,
    id: &str,
    content: NotificationContent,
    fields: &[&str],
    mark_unread: bool,
) -> Result<NotificationContent, Status> {
    let paths: Vec<String> = fields.iter().map(|&field| field.into()).collect();
    let request = UpdateNotificationRequest {
        notification_id: id.into(),
        content: Some(content),
        update_mask: (!paths.is_empty()).then_some(FieldMask { paths }),
        mark_unread,
    };
    Ok(server.client.notifications().update_notification(request).await?.into_inner().content.unwrap())
}

pub async fn withdraw(server: &Server, id: &str) -> Result<(), Status> {
    let request = WithdrawNotificationRequest { notification_id: id.into() };
    server.client.notifications().withdraw_notification(request).await.map(drop)
}

pub fn wish(category: &str, channel: NotificationChannel, enabled: bool) -> NotificationPreference {
    NotificationPreference { category: category.into(), channel: channel.into(), enabled }
}

pub async fn prefer(
    server: &Server,
    user_id: &str,
    preferences: Vec<NotificationPreference>,
    email_address: &str,
    etag: &str,
) -> Result<NotificationPreferences, Status> {
    let (user_id, email_address, etag) = (user_id.into(), email_address.into(), etag.into());
    let preferences = NotificationPreferences { user_id, preferences, email_address, etag };
    let request = UpdateNotificationPreferencesRequest { preferences: Some(preferences), update_mask: None };
    let updated = server.client.notifications().update_notification_preferences(request).await?;
    Ok(updated.into_inner().preferences.unwrap())
}

/// The next `count` events of the log after a place, each as its type, its topic and its payload.
async fn events_after(server: &Server, cursor: &str, count: usize) -> Vec<(String, String, Value)> {
    let (mut stream, _) = subscribe(&server.client, after(cursor)).await;
    let mut found = Vec::new();
    while found.len() < count {
        let events = next(&mut stream).await.events.into_iter().filter(|event| !event.cursor.is_empty());
        found.extend(
            events
                .into_iter()
                .map(|event| (event.event_type, event.topic, serde_json::from_str(&event.data).unwrap())),
        );
    }
    found
}

/// Waits until these counts are told; answers their version.
async fn told(stream: &mut tonic::Streaming<SubscribeResponse>, expected: (i64, i64)) -> i64 {
    loop {
        for event in next(stream).await.events {
            let place = (event.topic.as_str(), event.collapse_key.as_str(), event.cursor.as_str());
            assert_eq!(place, ("user:jo", "counts", ""));
            let data: Value = serde_json::from_str(&event.data).unwrap();
            if (data["unread"].as_i64().unwrap(), data["unseen"].as_i64().unwrap()) == expected {
                return data["version"].as_i64().unwrap();
            }
        }
    }
}

on_both! {
    async fn what_is_sent_is_in_the_inbox_of_each_and_on_their_topics(server: Server) {
        let start = list(&server.client, "jo").await;
        assert!(start.notifications.is_empty() && pair(start.counts) == (0, 0));
        let content = NotificationContent {
            category: "chat.mention".into(),
            title: "Grace mentioned you".into(),
            message: "Could you look?\nNow.".into(),
            priority: NotificationPriority::High.into(),
            action_url: "/chat/9".into(),
            data: r#"{ "chat": 9.50 }"#.into(),
            expire_time: None,
        };
        let id = try_send(&server.client, to(&["jo", "sam@example.com", "jo"], content.clone())).await.unwrap();
        let (id, replayed) = (id.notification_id, id.replayed);
        assert!(id.starts_with("ntf_") && id.len() == 30 && !replayed, "{id}");
        for user_id in ["jo", "sam@example.com"] {
            let listed = list(&server.client, user_id).await;
            let [Notification { content: Some(found), .. }] = &listed.notifications[..] else { panic!("{listed:?}") };
            assert_eq!(found, &content);
            let one = &listed.notifications[0];
            assert_eq!((one.id.as_str(), one.user_id.as_str(), one.broadcast), (id.as_str(), user_id, false));
            assert!(one.seen_time.is_none() && one.read_time.is_none() && one.archive_time.is_none());
            assert_eq!(pair(listed.counts), (1, 1));
            let event = server.event(&one.event_id).await.event.unwrap();
            assert_eq!((event.event_type.as_str(), event.topic, event.subject), ("notification", format!("user:{user_id}"), format!("user:{user_id}")));
        }
        let events = events_after(&server, &start.cursor, 2).await;
        let topics: Vec<_> = events.iter().map(|(_, topic, _)| topic.as_str()).collect();
        assert_eq!(topics, ["user:jo", "user:sam@example.com"]);
        let data = &events[0].2;
        assert_eq!((&data["notification_id"], &data["message"], &data["type"], &data["priority"]), (&json!(id), &json!("Could you look?\nNow."), &json!("warning"), &json!("high")));
        assert_eq!(waiting(&server.client, "kim").await, (0, 0), "and in nobody else's");

        // A page after the other, by category, and unread ones only.
        for n in 0..5 {
            send(&server, &["jo"], &n.to_string()).await;
        }
        let mut request = ListNotificationsRequest { user_id: "jo".into(), page_size: 2, category: "general".into(), ..Default::default() };
        let mut all = Vec::new();
        loop {
            let page = list_with(&server.client, request.clone()).await;
            assert_eq!(pair(page.counts), (6, 6), "of all that the user has");
            all.extend(messages(&page).into_iter().map(str::to_owned));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(all, ["4", "3", "2", "1", "0"]);
    }

    async fn bad_requests_name_all_that_is_wrong_and_change_nothing(server: Server) {
        let bad = SendNotificationRequest {
            user_ids: vec!["jo".into(), "a b".into()],
            content: Some(NotificationContent {
                category: "Bad One".into(),
                title: "a\nb".into(),
                message: " ".into(),
                action_url: "javascript:alert(1)".into(),
                data: "[]".into(),
                expire_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
                ..Default::default()
            }),
            email_fallback: Some(switchboard_client::notification::v1::EmailFallback {
                after: Some(prost_types::Duration { seconds: 59, nanos: 0 }),
                email_address: "nobody".into(),
            }),
            replace_key: "x".repeat(129),
            request_id: "x".repeat(129),
        };
        status::expect_violations(&try_send(&server.client, bad).await.unwrap_err(), &[
            "user_ids[1]", "content.category", "content.title", "content.message", "content.action_url", "content.data",
            "content.expire_time", "replace_key", "email_fallback.after", "email_fallback.email_address", "request_id",
        ]);
        let many: Vec<String> = (0..501).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        status::expect_violations(&try_send(&server.client, to(&many, says("a"))).await.unwrap_err(), &["user_ids"]);
        status::expect_violations(&try_send(&server.client, to(&[], says("a"))).await.unwrap_err(), &["user_ids"]);
        let none = SendNotificationRequest { user_ids: vec!["jo".into()], ..Default::default() };
        status::expect_violations(&try_send(&server.client, none).await.unwrap_err(), &["content"]);
        let bad = [(None, "selection"), (these("jo", &[]), "selection.ids.notification_ids"), (these("jo", &["evt_1"]), "selection.ids.notification_ids[0]"),
            (up_to("", "ntf_01jgfjjz00000000000000000a"), "selection.user_id"), (up_to("jo", "x"), "selection.up_to_notification_id"),
            (Some(NotificationSelection { user_id: "jo".into(), ..Default::default() }), "selection")];
        for (selection, field) in bad {
            status::expect_violations(&mark(&server.client, Do::Read, selection).await.unwrap_err(), &[field]);
        }
        let twice = vec![wish("a", NotificationChannel::Inbox, true), wish("a", NotificationChannel::Inbox, false), wish("A", NotificationChannel::Unspecified, true)];
        let refused = prefer(&server, "jo", twice, "nobody", "").await.unwrap_err();
        status::expect_violations(&refused, &["preferences.preferences[1].category", "preferences.preferences[2].category", "preferences.preferences[2].channel", "preferences.email_address"]);
        for id in ["", "ntf_1", "evt_01jgfjjz00000000000000000a"] {
            status::expect(&withdraw(&server, id).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
        }
        let unknown = update(&server, "ntf_01jgfjjz00000000000000000a", says("a"), &[], false).await.unwrap_err();
        status::expect(&unknown, Code::NotFound, "NOT_FOUND");
        assert_eq!(counts(&server.client, "jo").await, counts(&server.client, "kim").await);
    }

    async fn a_repeat_sends_nothing_again(server: Server) {
        let request = SendNotificationRequest { request_id: "once".into(), ..to(&["jo", "sam", "kim"], says("Hi")) };
        let first = try_send(&server.client, request.clone()).await.unwrap();
        let again = try_send(&server.client, request.clone()).await.unwrap();
        assert_eq!((again.notification_id, again.replayed, first.replayed), (first.notification_id, true, false));
        for user_id in ["jo", "sam", "kim"] {
            assert_eq!(waiting(&server.client, user_id).await, (1, 1));
        }
        let other = SendNotificationRequest { content: Some(says("Ho")), ..request };
        status::expect(&try_send(&server.client, other).await.unwrap_err(), Code::InvalidArgument, "REQUEST_ID_REUSED");
        let request = BroadcastNotificationRequest { content: Some(says("All")), request_id: "all".into() };
        let send = async || server.client.notifications().broadcast_notification(request.clone()).await.unwrap().into_inner();
        let (first, again) = (send().await, send().await);
        assert_eq!((again.notification_id, again.replayed), (first.notification_id, true));
        assert_eq!(waiting(&server.client, "jo").await, (2, 2));
    }

    async fn marks_change_what_they_say_and_every_device_is_told(server: Server) {
        let [a, b, c] = [send(&server, &["jo"], "a").await, send(&server, &["jo"], "b").await, send(&server, &["jo"], "c").await];
        let client = &server.client;
        let cursor = list(client, "jo").await.cursor;
        let version = counts(client, "jo").await.version;
        let unknown = "ntf_01jgfjjz00000000000000000a";
        assert_eq!(mark(client, Do::Seen, these("jo", &[&a, unknown])).await.unwrap(), (1, (3, 2)));
        assert_eq!(mark(client, Do::Seen, these("jo", &[&a])).await.unwrap(), (0, (3, 2)), "it is seen already");
        assert_eq!(mark(client, Do::Read, these("jo", &[&b])).await.unwrap(), (1, (2, 1)), "and thereby seen");
        assert_eq!(mark(client, Do::Unread, these("jo", &[&b])).await.unwrap(), (1, (3, 1)), "and seen still");
        assert_eq!(mark(client, Do::Archive, these("jo", &[&c])).await.unwrap(), (1, (2, 0)));
        assert_eq!(messages(&list(client, "jo").await), ["b", "a"]);
        let archived = list_with(client, ListNotificationsRequest { user_id: "jo".into(), archived: true, ..Default::default() }).await;
        let put_away = &archived.notifications[0];
        assert!(messages(&archived) == ["c"] && put_away.read_time.is_some() && put_away.seen_time.is_some() && put_away.archive_time.is_some());
        assert_eq!(mark(client, Do::Unarchive, these("jo", &[&c])).await.unwrap(), (1, (2, 0)), "read still");
        let unread = list_with(client, ListNotificationsRequest { user_id: "jo".into(), unread_only: true, ..Default::default() }).await;
        assert_eq!(messages(&unread), ["b", "a"]);
        assert_eq!(counts(client, "jo").await.version, version + 5, "one for each change, and none for what changed nothing");
        assert_eq!(waiting(client, "sam").await, (0, 0));

        let told = events_after(&server, &cursor, 5).await;
        assert!(told.iter().all(|(kind, topic, _)| kind == "notification.updated" && topic == "user:jo"), "{told:?}");
        let changes: Vec<_> = told.iter().map(|(_, _, data)| data["change"].as_str().unwrap()).collect();
        assert_eq!(changes, ["seen", "read", "unread", "archived", "unarchived"]);
        assert_eq!(told[0].2["notification_ids"], json!([a, unknown]));
    }

    async fn all_up_to_one_leaves_alone_what_came_later(server: Server) {
        let client = &server.client;
        let old = send(&server, &["jo"], "old").await;
        broadcast(&server, says("everybody")).await;
        let mentioned = NotificationContent { category: "chat".into(), ..says("mention") };
        try_send(client, to(&["jo"], mentioned)).await.unwrap();
        let shown = send(&server, &["jo"], "shown").await;
        let later = send(&server, &["jo"], "later").await;
        let by_category = Some(NotificationSelection { category: "chat".into(), ..up_to("jo", &shown).unwrap() });
        assert_eq!(mark(client, Do::Seen, by_category).await.unwrap(), (1, (5, 4)));
        assert_eq!(mark(client, Do::Read, up_to("jo", &shown)).await.unwrap(), (4, (1, 1)), "also the broadcast");
        let unread = list_with(client, ListNotificationsRequest { user_id: "jo".into(), unread_only: true, ..Default::default() }).await;
        assert_eq!(messages(&unread), ["later"]);
        // One that is gone still says until when.
        withdraw(&server, &later).await.unwrap();
        send(&server, &["jo"], "last").await;
        assert_eq!(mark(client, Do::Archive, up_to("jo", &later)).await.unwrap(), (4, (1, 1)));
        assert_eq!(messages(&list(client, "jo").await), ["last"]);
        assert_eq!(mark(client, Do::Unarchive, these("jo", &[&old])).await.unwrap(), (1, (1, 1)));
    }

    async fn everybody_has_a_broadcast_and_marks_it_for_themselves(server: Server) {
        let client = &server.client;
        let start = list(client, "jo").await.cursor;
        let before = counts(client, "jo").await;
        let id = broadcast(&server, NotificationContent { priority: NotificationPriority::Critical.into(), ..says("We close at six") }).await;
        for user_id in ["jo", "sam"] {
            let listed = list(client, user_id).await;
            assert!(messages(&listed) == ["We close at six"] && listed.notifications[0].broadcast, "{listed:?}");
            assert_eq!((listed.notifications[0].id.as_str(), pair(listed.counts)), (id.as_str(), (1, 1)));
        }
        assert!(counts(client, "jo").await.version > before.version);
        let told = events_after(&server, &start, 1).await;
        assert_eq!((told[0].0.as_str(), told[0].1.as_str()), ("notification", "broadcast"));
        assert_eq!(mark(client, Do::Read, these("jo", &[&id])).await.unwrap(), (1, (0, 0)));
        assert_eq!(waiting(client, "sam").await, (1, 1));
        assert_eq!(mark(client, Do::Archive, these("sam", &[&id])).await.unwrap(), (1, (0, 0)));
        assert!(list(client, "sam").await.notifications.is_empty() && list(client, "jo").await.notifications.len() == 1);

        // As new for everybody, whatever they had done; then for nobody.
        let version = counts(client, "jo").await.version;
        let now = update(&server, &id, says("We close at seven"), &[], true).await.unwrap();
        assert_eq!((now.message.as_str(), now.priority()), ("We close at seven", NotificationPriority::Critical));
        for user_id in ["jo", "sam", "kim"] {
            assert_eq!((waiting(client, user_id).await, messages(&list(client, user_id).await)), ((1, 1), vec!["We close at seven"]));
        }
        assert!(counts(client, "jo").await.version > version);
        mark(client, Do::Seen, these("jo", &[&id])).await.unwrap();
        update(&server, &id, says("We close at eight"), &["message"], false).await.unwrap();
        assert_eq!(waiting(client, "jo").await, (1, 0), "what was seen stays so");
        withdraw(&server, &id).await.unwrap();
        assert_eq!((waiting(client, "jo").await, list(client, "sam").await.notifications.len()), ((0, 0), 0));
        withdraw(&server, &id).await.expect("it is out already");
    }

    async fn one_takes_the_place_of_another_and_changes_reach_all_who_have_it(server: Server) {
        let client = &server.client;
        let progress = |message: &str| SendNotificationRequest { replace_key: "build".into(), ..to(&["jo", "sam"], says(message)) };
        let first = try_send(client, progress("Build: 10 %")).await.unwrap().notification_id;
        send(&server, &["jo"], "between").await;
        mark(client, Do::Archive, these("jo", &[&first])).await.unwrap();
        let second = try_send(client, progress("Build: done")).await.unwrap().notification_id;
        assert_ne!(first, second);
        let listed = list(client, "jo").await;
        assert_eq!((messages(&listed), pair(listed.counts)), (vec!["Build: done", "between"], (2, 2)), "unread, and out of the archive");
        assert_eq!(messages(&list(client, "sam").await), ["Build: done"]);

        mark(client, Do::Read, these("jo", &[&second])).await.unwrap();
        let cursor = list(client, "jo").await.cursor;
        let content = NotificationContent { title: "Builds".into(), data: r#"{"n":1}"#.into(), ..says("Build: failed") };
        let now = update(&server, &second, content, &["title", "message", "data"], false).await.unwrap();
        assert_eq!((now.title.as_str(), now.message.as_str(), now.category.as_str()), ("Builds", "Build: failed", "general"));
        let listed = list(client, "jo").await;
        assert_eq!((messages(&listed), pair(listed.counts)), (vec!["Build: failed", "between"], (1, 1)), "read still");
        send(&server, &["jo"], "newest").await;
        update(&server, &second, NotificationContent::default(), &["title", "data"], true).await.unwrap();
        let listed = list(client, "jo").await;
        assert_eq!((messages(&listed), pair(listed.counts)), (vec!["Build: failed", "newest", "between"], (3, 3)), "as new");
        assert!(listed.notifications[0].content.as_ref().unwrap().title.is_empty());
        let bad = update(&server, &second, NotificationContent { title: "a\nb".into(), ..Default::default() }, &["title", "message"], false).await.unwrap_err();
        status::expect_violations(&bad, &["content.title", "content.message"]);
        withdraw(&server, &second).await.unwrap();
        assert_eq!((waiting(client, "jo").await, waiting(client, "sam").await), ((2, 2), (0, 0)));
        let told = events_after(&server, &cursor, 7).await;
        let to_sam: Vec<_> = told.iter().filter(|(_, topic, _)| topic == "user:sam").map(|(kind, ..)| kind.as_str()).collect();
        assert_eq!(to_sam, ["notification.updated", "notification.updated", "notification.withdrawn"]);
    }

    async fn preferences_keep_away_what_is_not_wanted_but_for_what_is_critical(server: Server) {
        let client = &server.client;
        let of_category = |category: &str, message: &str| NotificationContent { category: category.into(), ..says(message) };
        let wishes = vec![wish("*", NotificationChannel::Inbox, false), wish("chat", NotificationChannel::Inbox, true), wish("chat", NotificationChannel::Email, false)];
        broadcast(&server, of_category("news", "News")).await;
        assert_eq!(waiting(client, "jo").await, (1, 1));
        let version = counts(client, "jo").await.version;
        let kept = prefer(&server, "jo", wishes.clone(), "Jo <jo@example.com>", "").await.unwrap();
        assert_eq!((kept.preferences.len(), kept.email_address.as_str()), (3, "Jo <jo@example.com>"));
        assert_eq!(waiting(client, "jo").await, (0, 0), "broadcasts too");
        assert!(counts(client, "jo").await.version > version);
        assert!(list(client, "jo").await.notifications.is_empty());
        let cursor = list(client, "jo").await.cursor;
        for (category, priority) in [("billing", NotificationPriority::High), ("chat", NotificationPriority::Low), ("billing", NotificationPriority::Critical)] {
            let content = NotificationContent { priority: priority.into(), ..of_category(category, category) };
            try_send(client, to(&["jo", "sam"], content)).await.unwrap();
        }
        assert_eq!(messages(&list(client, "jo").await), ["billing", "chat"]);
        assert_eq!(waiting(client, "sam").await, (4, 4));
        let told = events_after(&server, &cursor, 5).await;
        assert_eq!(told.iter().filter(|(_, topic, _)| topic == "user:jo").count(), 2, "nor is a device told: {told:?}");

        status::expect(&prefer(&server, "jo", wishes, "", "0").await.unwrap_err(), Code::Aborted, "ETAG_MISMATCH");
        let request = UpdateNotificationPreferencesRequest {
            preferences: Some(NotificationPreferences { user_id: "jo".into(), etag: kept.etag, ..Default::default() }),
            update_mask: Some(FieldMask { paths: vec!["preferences".into()] }),
        };
        client.notifications().update_notification_preferences(request).await.unwrap();
        let request = GetNotificationPreferencesRequest { user_id: "jo".into() };
        let now = client.notifications().get_notification_preferences(request).await.unwrap().into_inner().preferences.unwrap();
        assert!(now.preferences.is_empty() && now.email_address == "Jo <jo@example.com>");
        assert_eq!(waiting(client, "jo").await, (3, 3), "the broadcast is there again");
    }

    async fn an_application_may_publish_notifications_and_nothing_else_of_an_inbox(server: Server) {
        let publish = async |event_type: &str, topic: &str, data: &str| {
            let request = PublishEventRequest { topic: topic.into(), ..event(event_type, data) };
            server.client.events().publish_event(request).await.map(tonic::Response::into_inner)
        };
        let plain = r#"{"message":"Water is warm\u0000","type":"warning","priority":"critical"}"#;
        let published = publish("notification", "user:jo", plain).await.unwrap();
        publish("notification", "broadcast", plain).await.unwrap();
        publish("notification", "", plain).await.unwrap();
        let listed = list(&server.client, "jo").await;
        assert_eq!(messages(&listed), ["Water is warm", "Water is warm"]);
        let own = &listed.notifications[1];
        assert_eq!((own.event_id.as_str(), own.id[4..].to_owned()), (published.event_id.as_str(), published.event_id[4..].to_owned()));
        assert_eq!(own.content.as_ref().unwrap().priority(), NotificationPriority::Critical);
        let outcomes = server.event(&published.event_id).await.outcomes;
        assert_eq!((outcomes.len(), outcomes[0].id.as_str(), outcomes[0].destination.as_str()), (1, own.id.as_str(), "jo"));
        let odd = format!(r#"{{"message":"{}","title":7,"data":[],"category":"Ä"}}"#, "x".repeat(9_000));
        publish("notification", "user:sam", &odd).await.unwrap();
        assert_eq!(messages(&list(&server.client, "sam").await)[0].len(), 4_096);
        for reserved in ["notification.updated", "notification.withdrawn", "notification.counts"] {
            let refused = publish(reserved, "user:jo", "{}").await.unwrap_err();
            let details = status::expect(&refused, Code::InvalidArgument, "EVENT_TYPE_RESERVED");
            assert_eq!(details.error_info().unwrap().metadata["event_type"], reserved);
        }
        let webhook = server.webhook("http://127.0.0.1:1/", &["notification.*"]).await;
        assert_eq!(webhook.0.event_types, ["notification.*"], "and endpoints may have them");
    }

    async fn what_expires_goes_by_itself_and_devices_are_told(server: Server) {
        let client = &server.client;
        let end = switchboard::clock::Clock::now(&*server.clock) + Duration::from_secs(3_600);
        let soon = NotificationContent { expire_time: Some(prost_types::Timestamp { seconds: end.seconds(), nanos: 0 }), ..says("soon over") };
        let id = try_send(client, to(&["jo"], soon.clone())).await.unwrap().notification_id;
        broadcast(&server, soon).await;
        send(&server, &["jo"], "stays").await;
        let before = list(client, "jo").await;
        assert_eq!(pair(before.counts), (3, 3));
        server.advance(Duration::from_secs(3_600));
        let listed = list(client, "jo").await;
        assert_eq!((messages(&listed), pair(listed.counts)), (vec!["stays"], (1, 1)));
        assert_eq!(mark(client, Do::Read, these("jo", &[&id])).await.unwrap(), (0, (1, 1)), "it is there no more");
        let told = events_after(&server, &before.cursor, 2).await;
        assert_eq!(told[0].2, json!({"notification_id": id, "reason": "expired"}));
        assert_eq!(told.iter().map(|(kind, topic, _)| (kind.as_str(), topic.as_str())).collect::<Vec<_>>(),
            [("notification.withdrawn", "user:jo"), ("notification.withdrawn", "broadcast")]);
        assert_eq!(waiting(client, "jo").await, (1, 1));
        assert!(counts(client, "jo").await.version > before.counts.unwrap().version);
    }

    async fn counts_are_told_after_each_change_and_to_whom_comes_later(server: Server) {
        let topics = vec!["user:jo".to_owned()];
        let of_jo = SubscribeRequest { topics, event_types: vec!["notification.counts".into()], ..Default::default() };
        let (mut stream, _) = subscribe(&server.client, of_jo.clone()).await;
        let mut version = 0;
        let id = send(&server, &["jo", "sam"], "a").await;
        for (expected, what) in [((1, 1), None), ((1, 0), Some(Do::Seen)), ((0, 0), Some(Do::Read))] {
            if let Some(what) = what {
                mark(&server.client, what, these("jo", &[&id])).await.unwrap();
            }
            let now = told(&mut stream, expected).await;
            assert!(now > version, "{now} after {version}");
            version = now;
        }
        let (mut later, _) = subscribe(&server.client, SubscribeRequest { snapshot: true, ..of_jo }).await;
        assert_eq!(told(&mut later, (0, 0)).await, version);
        assert_eq!(counts(&server.client, "jo").await.version, version);
    }

    async fn a_key_may_do_what_its_scopes_say(server: Server) {
        let id = send(&server, &["jo"], "a").await;
        let reader = server.client_that_may(&["inbox:read"]).await;
        assert_eq!(messages(&list(&reader, "jo").await), ["a"]);
        let refused = mark(&reader, Do::Read, these("jo", &[&id])).await.unwrap_err();
        status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");
        let refused = try_send(&reader, to(&["jo"], says("b"))).await.unwrap_err();
        status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");
        let writer = server.client_that_may(&["inbox:write"]).await;
        assert_eq!(mark(&writer, Do::Read, these("jo", &[&id])).await.unwrap(), (1, (0, 0)));
    }
}
