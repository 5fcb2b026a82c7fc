//! The laws of inboxes: counts are those of the rows whatever happens at the same time, nothing is half done, and nothing
//! grows without end.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as Cases, TestRunner};
use serde_json::json;
use switchboard_client::Client;
use switchboard_client::event::v1::{BatchPublishEventsRequest, EraseEventsRequest, PublishEventRequest};
use switchboard_client::notification::v1::{
    BroadcastNotificationRequest, NotificationContent, NotificationPriority, SendNotificationRequest,
};

use crate::harness::server::{Backend, Server, event};
use crate::harness::{eventually, on_both};
use crate::inbox::{
    Do, broadcast, counts, list, mark, messages, prefer, says, send, these, to, try_send, up_to, update,
    waiting, wish, withdraw,
};
use crate::live::{after, next, subscribe};
use crate::retention::rows;
use crate::settings::{in_database, set};

const USERS: [&str; 3] = ["jo", "sam", "kim"];

/// The inboxes whose counts are not those of their rows.
const WRONG: &str = "(SELECT i.user_id FROM inboxes i WHERE
    i.unread <> (SELECT count(*) FROM notifications n WHERE n.user_id = i.user_id AND n.read_at IS NULL AND n.archived_at IS NULL)
    OR i.unseen <> (SELECT count(*) FROM notifications n WHERE n.user_id = i.user_id AND n.seen_at IS NULL AND n.archived_at IS NULL)
    OR i.total <> (SELECT count(*) FROM notifications n WHERE n.user_id = i.user_id)) AS wrong";

#[derive(Debug, Clone)]
enum Step {
    Send { users: Vec<usize>, key: Option<u8>, chat: bool },
    Broadcast,
    Mark { user: usize, what: Do, one: prop::sample::Index, all: bool, chat: bool },
    Update { one: prop::sample::Index, unread: bool },
    Withdraw { one: prop::sample::Index },
}

fn step() -> impl Strategy<Value = Step> {
    let users = prop::sample::subsequence(vec![0, 1, 2], 1..=3);
    let what = prop::sample::select(vec![Do::Seen, Do::Read, Do::Unread, Do::Archive, Do::Unarchive]);
    prop_oneof![
        4 => (users, prop::option::of(0..3u8), any::<bool>()).prop_map(|(users, key, chat)| Step::Send { users, key, chat }),
        1 => Just(Step::Broadcast),
        8 => (0..3usize, what, any::<prop::sample::Index>(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(user, what, one, all, chat)| Step::Mark { user, what, one, all, chat }),
        1 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(one, unread)| Step::Update { one, unread }),
        1 => any::<prop::sample::Index>().prop_map(|one| Step::Withdraw { one }),
    ]
}

fn steps(count: usize) -> Vec<Step> {
    let mut runner = TestRunner::new(Cases::default());
    prop::collection::vec(step(), count).new_tree(&mut runner).unwrap().current()
}

/// What a test thinks of one notification in one inbox.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    place: u64,
    chat: bool,
    key: Option<u8>,
    everybody: bool,
    seen: bool,
    read: bool,
    archived: bool,
}

/// What a test thinks is there: by user, by id.
#[derive(Default)]
struct Model {
    inboxes: [BTreeMap<String, Known>; 3],
    ids: Vec<String>,
    next: u64,
}

impl Model {
    fn add(&mut self, user: usize, id: &str, known: Known) {
        if known.key.is_some() {
            self.inboxes[user].retain(|_, other| other.key != known.key);
        }
        self.next += 1;
        self.inboxes[user].insert(id.to_owned(), Known { place: self.next, ..known });
    }

    /// How many a mark changes.
    fn mark(&mut self, user: usize, what: Do, id: &str, all: bool, chat: bool) -> i64 {
        let place = self.inboxes[user].get(id).map(|known| known.place);
        let mut changed = 0;
        for (other, known) in &mut self.inboxes[user] {
            let is_meant = match (all, place) {
                (false, _) => other == id,
                (true, Some(place)) => known.place <= place,
                (true, None) => other.as_str() <= id,
            };
            if !is_meant || (chat && !known.chat) {
                continue;
            }
            let before = (known.seen, known.read, known.archived);
            match what {
                Do::Seen => known.seen = true,
                Do::Read if known.read => {}
                Do::Read => (known.seen, known.read) = (true, true),
                Do::Unread => known.read = false,
                Do::Archive if known.archived => {}
                Do::Archive => (known.seen, known.read, known.archived) = (true, true, true),
                Do::Unarchive => known.archived = false,
            }
            changed += i64::from(before != (known.seen, known.read, known.archived));
        }
        changed
    }

    fn waiting(&self, user: usize) -> (i64, i64) {
        let open = || self.inboxes[user].values().filter(|known| !known.archived);
        (open().filter(|known| !known.read).count() as i64, open().filter(|known| !known.seen).count() as i64)
    }

    fn of(&self, one: prop::sample::Index) -> Option<String> {
        (!self.ids.is_empty()).then(|| one.get(&self.ids).clone())
    }
}

async fn apply(server: &Server, model: &mut Model, step: Step) {
    let client = &server.client;
    match step {
        Step::Send { users, key, chat } => {
            let names: Vec<&str> = users.iter().map(|&user| USERS[user]).collect();
            let category = if chat { "chat".into() } else { String::new() };
            let replace_key = key.map(|key| key.to_string()).unwrap_or_default();
            let request = SendNotificationRequest {
                replace_key,
                ..to(&names, NotificationContent { category, ..says("a") })
            };
            let id = try_send(client, request).await.unwrap().notification_id;
            // In the order of their ids, as the events are.
            let mut users = users;
            users.sort_by_key(|&user| USERS[user]);
            for user in users {
                model.add(user, &id, Known { chat, key, ..Known::default() });
            }
            model.ids.push(id);
        }
        Step::Broadcast => {
            let id = broadcast(server, says("all")).await;
            for user in 0..3 {
                model.add(user, &id, Known { everybody: true, ..Known::default() });
            }
            model.ids.push(id);
        }
        Step::Mark { user, what, one, all, chat } => {
            let Some(id) = model.of(one) else { return };
            let mut selection = if all { up_to(USERS[user], &id) } else { these(USERS[user], &[&id]) };
            if chat {
                selection.as_mut().unwrap().category = "chat".into();
            }
            let (changed, now) = mark(client, what, selection).await.unwrap();
            let expected = model.mark(user, what, &id, all, chat);
            assert_eq!((changed, now), (expected, model.waiting(user)), "{what:?} {all} {chat}");
        }
        Step::Update { one, unread } => {
            let Some(id) = model.of(one) else { return };
            let is_there = model.inboxes.iter().any(|inbox| inbox.contains_key(&id));
            let updated = update(server, &id, says("changed"), &[], unread).await;
            assert_eq!(updated.is_ok(), is_there);
            if unread {
                model.next += 1;
                for known in model.inboxes.iter_mut().filter_map(|inbox| inbox.get_mut(&id)) {
                    known.place = model.next;
                    (known.seen, known.read) = (false, false);
                    // A broadcast that is as new has no state at all.
                    known.archived &= !known.everybody;
                }
            }
        }
        Step::Withdraw { one } => {
            let Some(id) = model.of(one) else { return };
            withdraw(server, &id).await.unwrap();
            for inbox in &mut model.inboxes {
                inbox.remove(&id);
            }
        }
    }
}

/// Does something at random, whatever comes of it.
async fn disturb(client: Client, steps: Vec<Step>) {
    let mut ids: Vec<String> = Vec::new();
    for step in steps {
        match step {
            Step::Send { users, key, .. } => {
                let names: Vec<&str> = users.iter().map(|&user| USERS[user]).collect();
                let replace_key = key.map(|key| key.to_string()).unwrap_or_default();
                let request = SendNotificationRequest { replace_key, ..to(&names, says("a")) };
                ids.push(try_send(&client, request).await.unwrap().notification_id);
            }
            Step::Broadcast => {
                let request =
                    BroadcastNotificationRequest { content: Some(says("all")), ..Default::default() };
                let sent = client.notifications().broadcast_notification(request).await.unwrap().into_inner();
                ids.push(sent.notification_id);
            }
            Step::Mark { user, what, one, all, .. } if !ids.is_empty() => {
                let id = one.get(&ids);
                let selection = if all { up_to(USERS[user], id) } else { these(USERS[user], &[id]) };
                mark(&client, what, selection).await.unwrap();
            }
            Step::Withdraw { one } if !ids.is_empty() => {
                let notification_id = one.get(&ids).clone();
                let request =
                    switchboard_client::notification::v1::WithdrawNotificationRequest { notification_id };
                client.notifications().withdraw_notification(request).await.unwrap();
            }
            _ => {}
        }
    }
}

on_both! {
    async fn counts_and_marks_are_those_of_a_model(server: Server) {
        let mut model = Model::default();
        for (number, step) in steps(120).into_iter().enumerate() {
            apply(&server, &mut model, step).await;
            if number % 10 == 9 {
                for (user, name) in USERS.iter().enumerate() {
                    assert_eq!(waiting(&server.client, name).await, model.waiting(user), "{name}");
                    let mut expected: Vec<_> = model.inboxes[user].iter().filter(|(_, known)| !known.archived).collect();
                    expected.sort_by_key(|(_, known)| std::cmp::Reverse(known.place));
                    let listed = list(&server.client, name).await;
                    let found: Vec<_> = listed.notifications.iter().map(|one| &one.id).collect();
                    assert_eq!(found, expected.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), "{name}");
                }
                assert_eq!(rows(&server, &[WRONG]).await, 0);
            }
        }
    }

    async fn counts_hold_whatever_happens_at_the_same_time(server: Server) {
        let tasks: Vec<_> = (0..6).map(|_| tokio::spawn(disturb(server.client.clone(), steps(30)))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(rows(&server, &[WRONG]).await, 0);
        for user in USERS {
            let listed = list(&server.client, user).await;
            let unread = listed.notifications.iter().filter(|one| one.read_time.is_none()).count() as i64;
            let unseen = listed.notifications.iter().filter(|one| one.seen_time.is_none()).count() as i64;
            assert_eq!(waiting(&server.client, user).await, (unread, unseen));
        }
    }

    async fn marking_all_while_more_comes_takes_nothing_that_was_not_shown(server: Server) {
        let client = server.client.clone();
        let sender = tokio::spawn(async move {
            for n in 0..40 {
                try_send(&client, to(&["jo"], says(&n.to_string()))).await.unwrap();
            }
        });
        let mut shown = 0;
        loop {
            let ended = sender.is_finished();
            let listed = list(&server.client, "jo").await;
            if let Some(newest) = listed.notifications.first() {
                mark(&server.client, Do::Read, up_to("jo", &newest.id)).await.unwrap();
                let now = list(&server.client, "jo").await;
                for one in &now.notifications {
                    let was_shown = listed.notifications.iter().any(|before| before.id == one.id);
                    assert_eq!(one.read_time.is_some(), was_shown, "{}", one.content.as_ref().unwrap().message);
                }
                shown = listed.notifications.len();
            }
            if ended {
                break;
            }
        }
        assert_eq!((shown, waiting(&server.client, "jo").await), (40, (0, 0)));
    }

    async fn a_stream_from_the_cursor_of_a_list_misses_nothing(server: Server) {
        send(&server, &["jo"], "before").await;
        let listed = list(&server.client, "jo").await;
        let id = send(&server, &["jo"], "after").await;
        mark(&server.client, Do::Read, these("jo", &[&id])).await.unwrap();
        let server = server.restart().await;
        withdraw(&server, &id).await.unwrap();
        let (mut stream, first) = subscribe(&server.client, after(&listed.cursor)).await;
        assert!(first.resync.is_none() && first.opened.unwrap().resumed);
        let mut kinds = Vec::new();
        while kinds.len() < 3 {
            let events = next(&mut stream).await.events.into_iter().filter(|event| !event.cursor.is_empty());
            kinds.extend(events.map(|event| event.event_type));
        }
        assert_eq!(kinds, ["notification", "notification.updated", "notification.withdrawn"]);
        assert_eq!(messages(&list(&server.client, "jo").await), ["before"]);
    }

    async fn a_publish_that_is_refused_leaves_nothing_in_any_inbox(server: Server) {
        let good = PublishEventRequest { topic: "user:jo".into(), request_id: "once".into(), ..event("notification", r#"{"message":"a"}"#) };
        server.client.events().publish_event(good.clone()).await.unwrap();
        let other = PublishEventRequest { data: r#"{"message":"b"}"#.into(), ..good.clone() };
        let new = PublishEventRequest { request_id: String::new(), topic: "user:sam".into(), ..good };
        let batch = BatchPublishEventsRequest { requests: vec![new, other] };
        server.client.events().batch_publish_events(batch).await.unwrap_err();
        assert_eq!((waiting(&server.client, "jo").await, waiting(&server.client, "sam").await), ((1, 1), (0, 0)));
        assert_eq!(rows(&server, &["events", "notifications"]).await, 2);
    }

    async fn an_inbox_holds_the_newest_and_no_more(server: Server) {
        let batch = |range: std::ops::Range<usize>| {
            let request = |n| PublishEventRequest { topic: "user:jo".into(), ..event("notification", &format!(r#"{{"message":"{n}"}}"#)) };
            BatchPublishEventsRequest { requests: range.map(request).collect() }
        };
        let publish = async |range| { server.client.events().batch_publish_events(batch(range)).await.unwrap(); };
        for start in 0..20 {
            publish(start * 500..(start + 1) * 500).await;
        }
        let oldest = "(SELECT 1 AS a FROM notifications WHERE message IN ('0', '1', '2')) AS b";
        assert_eq!((waiting(&server.client, "jo").await, rows(&server, &[oldest]).await), ((10_000, 10_000), 3));
        publish(10_000..10_003).await;
        assert_eq!((waiting(&server.client, "jo").await, rows(&server, &[oldest]).await), ((10_000, 10_000), 0));
        assert_eq!(rows(&server, &[WRONG]).await, 0);
        let newest = list(&server.client, "jo").await.notifications[0].id.clone();
        assert_eq!(mark(&server.client, Do::Read, up_to("jo", &newest)).await.unwrap(), (10_000, (0, 0)));
        assert_eq!(rows(&server, &[WRONG]).await, 0);
    }

    async fn what_is_old_goes_as_the_setting_says(server: Server) {
        set(&server.client, json!({"notifications.retention_days": 7})).await;
        send(&server, &["jo", "sam"], "old").await;
        let everybody = broadcast(&server, says("old for all")).await;
        mark(&server.client, Do::Seen, these("jo", &[&everybody])).await.unwrap();
        server.advance(Duration::from_secs(6 * 24 * 60 * 60));
        send(&server, &["jo"], "new").await;
        assert_eq!(waiting(&server.client, "jo").await, (3, 2));
        let version = counts(&server.client, "jo").await.version;
        server.advance(Duration::from_secs(2 * 24 * 60 * 60));
        eventually("the old ones are gone", async || {
            (rows(&server, &["notifications", "broadcasts", "broadcast_states"]).await == 1).then_some(())
        }).await;
        assert_eq!((waiting(&server.client, "jo").await, waiting(&server.client, "sam").await), ((1, 1), (0, 0)));
        assert!(counts(&server.client, "jo").await.version > version);
        assert_eq!(rows(&server, &[WRONG]).await, 0);
    }

    async fn wrong_counts_are_put_right_once_a_day(server: Server) {
        send(&server, &["jo", "sam"], "a").await;
        let db = switchboard::db::Db::open(&server.config.database).await.unwrap();
        let spoil = "UPDATE inboxes SET unread = 7, unseen = 0 WHERE user_id = 'jo'";
        db.transaction(move |conn| Box::pin(async move { switchboard::db::execute(conn, spoil).await })).await.unwrap();
        assert_eq!(waiting(&server.client, "jo").await, (7, 0));
        let others = counts(&server.client, "sam").await;
        server.advance(Duration::from_secs(25 * 60 * 60));
        eventually("it is counted again", async || (waiting(&server.client, "jo").await == (1, 1)).then_some(())).await;
        assert_eq!(counts(&server.client, "sam").await, others);
    }

    async fn what_is_known_of_a_user_is_erased_with_them(server: Server) {
        let secret = |n: usize| NotificationContent { priority: NotificationPriority::High.into(), ..says(&format!("about-jo-{n}")) };
        for n in 0..3 {
            try_send(&server.client, to(&["jo", "sam"], secret(n))).await.unwrap();
        }
        let request = PublishEventRequest { topic: "user:jo".into(), subject: "ticket:1".into(), ..event("notification", r#"{"message":"about-jo-too"}"#) };
        server.client.events().publish_event(request).await.unwrap();
        let everybody = broadcast(&server, says("all")).await;
        mark(&server.client, Do::Read, these("jo", &[&everybody])).await.unwrap();
        prefer(&server, "jo", vec![wish("chat", switchboard_client::notification::v1::NotificationChannel::Inbox, false)], "jo@example.com", "").await.unwrap();
        let erase = async |subject: &str, validate_only| {
            let request = EraseEventsRequest { subject: subject.into(), validate_only };
            let erased = server.client.events().erase_events(request).await.unwrap().into_inner();
            (erased.events, erased.notifications)
        };
        // The mark is an event too.
        assert_eq!(erase("user:jo", true).await, (4, 4));
        assert_eq!(erase("user:jo", false).await, (4, 4));
        assert_eq!(rows(&server, &["notification_preferences", "broadcast_states"]).await, 0);
        assert_eq!((waiting(&server.client, "jo").await, waiting(&server.client, "sam").await), ((1, 1), (4, 4)));
        assert_eq!(erase("ticket:1", false).await, (1, 0));
        assert_eq!(rows(&server, &[WRONG]).await, 0);

        let request = PublishEventRequest { topic: "user:sam".into(), subject: "ticket:2".into(), ..event("notification", r#"{"message":"of the ticket"}"#) };
        server.client.events().publish_event(request).await.unwrap();
        assert_eq!(waiting(&server.client, "sam").await, (5, 5));
        assert_eq!(erase("ticket:2", false).await, (1, 1));
        assert_eq!((waiting(&server.client, "sam").await, rows(&server, &[WRONG]).await), ((4, 4), 0));
        // Stopped, so that everything is in the file.
        let server = server.restart().await;
        assert!(!in_database(&server, "jo@example.com").await, "not in a free page either");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_mark_at_once_agree() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let nodes = [one.client.clone(), other.client.clone()];
    let tasks: Vec<_> = (0..6).map(|n| tokio::spawn(disturb(nodes[n % 2].clone(), steps(30)))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(rows(&one, &[WRONG]).await, 0);
    // What is archived may be unread, and a mark up to another changes it too; counts are of what is not archived.
    let newest = send(&one, &["jo"], "newest").await;
    mark(&one.client, Do::Read, up_to("jo", &newest)).await.unwrap();
    let ids: Vec<String> = {
        let mut ids = Vec::new();
        for n in 0..20 {
            ids.push(send(&one, &["jo"], &n.to_string()).await);
        }
        ids
    };
    let before = waiting(&one.client, "jo").await;
    let marks = ids.iter().enumerate().flat_map(|(n, id)| {
        let id = id.clone();
        nodes.clone().map(|client| {
            let (id, all) = (id.clone(), n % 5 == 0);
            tokio::spawn(async move {
                let selection = if all { up_to("jo", &id) } else { these("jo", &[&id]) };
                mark(&client, Do::Read, selection).await.unwrap().0
            })
        })
    });
    let mut changed = 0;
    for task in marks.collect::<Vec<_>>() {
        changed += task.await.unwrap();
    }
    let now = waiting(&one.client, "jo").await;
    assert_eq!(now, waiting(&other.client, "jo").await);
    assert_eq!(before.0 - now.0, changed, "each was changed once, and told by who changed it");
    assert_eq!(rows(&one, &[WRONG]).await, 0);
    assert_eq!(list(&one.client, "jo").await.notifications, list(&other.client, "jo").await.notifications);
    other.stop().await;
}
