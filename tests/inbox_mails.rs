//! A mail goes to who has not seen a notification in time: once, and to nobody else.

use std::time::Duration;

use serde_json::json;
use switchboard_client::email::v1::{Email, GetEmailRequest, ListEmailsRequest};
use switchboard_client::notification::v1::{
    EmailFallback, NotificationChannel, NotificationContent, NotificationPriority, SendNotificationRequest,
};

use crate::harness::server::{Backend, Server, event};
use crate::harness::{eventually, on_both};
use crate::inbox::{Do, mark, prefer, says, these, to, try_send, wish, withdraw};
use crate::retention::rows;
use crate::settings::set;

async fn mails(server: &Server) -> Vec<Email> {
    let request = ListEmailsRequest { page_size: 500, ..Default::default() };
    let mut mails = server.client.emails().list_emails(request).await.unwrap().into_inner().emails;
    mails.reverse();
    mails
}

/// The first address of each mail.
async fn recipients(server: &Server) -> Vec<String> {
    let mut to: Vec<String> = mails(server).await.into_iter().map(|mail| mail.to[0].clone()).collect();
    to.sort_unstable();
    to
}

/// Sends a notification that goes by mail after five minutes; answers its id.
async fn send(server: &Server, user_ids: &[&str], content: NotificationContent, address: &str) -> String {
    let after = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    let email_fallback = Some(EmailFallback { after, email_address: address.into() });
    let request = SendNotificationRequest { email_fallback, ..to(user_ids, content) };
    try_send(&server.client, request).await.unwrap().notification_id
}

/// Lets time pass, and waits until no mail is due.
async fn pass(server: &Server, seconds: u64) {
    server.advance(Duration::from_secs(seconds));
    let due = "(SELECT 1 AS a FROM notification_mails) AS b";
    eventually("nothing is due", async || (rows(server, &[due]).await == 0).then_some(())).await;
}

on_both! {
    async fn who_has_not_seen_it_gets_a_mail_and_nobody_else(server: Server) {
        set(&server.client, json!({"general.site_url": "https://app.example.com/", "general.company_name": "Pumps"})).await;
        for user_id in ["jo", "sam", "kim", "max", "lee", "eve"] {
            let address = if user_id == "eve" { String::new() } else { format!("{user_id}@example.com") };
            prefer(&server, user_id, Vec::new(), &address, "").await.unwrap();
        }
        prefer(&server, "max", vec![wish("chat", NotificationChannel::Email, false)], "max@example.com", "").await.unwrap();
        let content = NotificationContent {
            category: "chat".into(), title: "Grace mentioned you".into(), action_url: "/chat/9?a=b".into(), ..says("Could you look?")
        };
        let id = send(&server, &["jo", "sam", "kim", "max", "eve"], content.clone(), "").await;
        let gone = send(&server, &["lee"], content.clone(), "").await;
        server.advance(Duration::from_secs(299));
        mark(&server.client, Do::Seen, these("sam", &[&id])).await.unwrap();
        mark(&server.client, Do::Archive, these("kim", &[&id])).await.unwrap();
        withdraw(&server, &gone).await.unwrap();
        assert!(mails(&server).await.is_empty());
        pass(&server, 1).await;
        assert_eq!(recipients(&server).await, ["jo@example.com"]);
        let id = mails(&server).await[0].id.clone();
        let captured = eventually("it is captured", async || {
            let request = GetEmailRequest { email_id: id.clone() };
            let found = server.client.emails().get_email(request).await.unwrap().into_inner();
            found.email.as_ref().is_some_and(|mail| mail.captured).then_some(found)
        }).await;
        assert_eq!(captured.email.as_ref().unwrap().subject, "Grace mentioned you");
        for part in [&captured.html_body, &captured.plain_body] {
            assert!(part.contains("Could you look?") && part.contains("https://app.example.com/chat/9?a=b") && part.contains("not seen"), "{part}");
        }

        // What is critical asks for no leave; an address of the sender's comes first.
        let critical = NotificationContent { priority: NotificationPriority::Critical.into(), ..content };
        send(&server, &["max"], critical, "max@work.example").await;
        pass(&server, 300).await;
        assert_eq!(recipients(&server).await, ["jo@example.com", "max@work.example"]);
        pass(&server, 24 * 60 * 60).await;
        assert_eq!(mails(&server).await.len(), 2, "and once only");
    }

    async fn a_restart_in_between_neither_loses_nor_doubles_a_mail(server: Server) {
        let content = says("First line\nSecond line");
        for n in 0..120 {
            send(&server, &["jo"], content.clone(), &format!("jo{n}@example.com")).await;
        }
        let server = server.restart().await;
        assert!(mails(&server).await.is_empty());
        server.advance(Duration::from_secs(300));
        let server = server.restart().await;
        pass(&server, 1).await;
        assert_eq!(mails(&server).await.len(), 120);
        pass(&server, 600).await;
        assert_eq!(mails(&server).await.len(), 120);
    }

    async fn an_application_may_ask_for_one_in_an_event_of_its_own(server: Server) {
        for (data, topic) in [
            (json!({"message": "a", "email_fallback": {"after_seconds": 60, "email_address": "jo@example.com"}}), "user:jo"),
            (json!({"message": "b", "email_fallback": {"after_seconds": 60, "email_address": "not an address"}}), "user:jo"),
            (json!({"message": "c", "email_fallback": {"after_seconds": 1}}), "user:jo"),
            (json!({"message": "d", "email_fallback": {"after_seconds": 60, "email_address": "all@example.com"}}), "broadcast"),
        ] {
            let request = switchboard_client::event::v1::PublishEventRequest { topic: topic.into(), ..event("notification", &data.to_string()) };
            server.client.events().publish_event(request).await.unwrap();
        }
        assert_eq!(rows(&server, &["notification_mails"]).await, 2);
        pass(&server, 60).await;
        assert_eq!(recipients(&server).await, ["jo@example.com"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_send_one_mail() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    for n in 0..150 {
        send(&one, &["jo"], says("a"), &format!("jo{n}@example.com")).await;
    }
    one.advance(Duration::from_secs(300));
    other.advance(Duration::from_secs(1));
    pass(&one, 1).await;
    let sent = recipients(&one).await;
    let mut distinct = sent.clone();
    distinct.dedup();
    assert_eq!((sent.len(), distinct.len()), (150, 150));
    other.stop().await;
}
