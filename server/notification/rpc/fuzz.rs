//! Requests of subscribers, and about inboxes and tokens.

use super::super::inbox::{marks, preferences};
use super::super::registry::Update;
use super::super::token::model::NOT_FOR_USERS;
use super::super::view::Wish;
use super::{inbox, pb, tokens};
use crate::clock::Timestamp;
use crate::event::topic;
use crate::fuzz::accepts;
use crate::fuzz::wire::{choose, decode, decode_as};
use crate::rpc::Principal;
use crate::scope;

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn application() -> Principal {
    Principal { key_id: "key_1".into(), scopes: ["admin:*".to_owned()].into(), user: None }
}

fn content(content: Option<pb::NotificationContent>) {
    let Ok(content) = inbox::required(content) else { return };
    if !accepts(|violations| content.check(violations, NOW, |_| true)) {
        return;
    }
    assert!(content.title.chars().count() <= 256 && !content.title.contains(char::is_control));
    assert!((1..=4_096).contains(&content.message.chars().count()) && !content.message.contains('\0'));
    assert!(content.data.len() <= 16 * 1024 && content.category.len() <= 128);
    // Where it leads: to the application's own pages, or to a secured one, in every browser.
    if !content.action_url.is_empty() {
        let base = url::Url::parse("https://app.example.com/inbox").expect("it is a URL");
        let url = base
            .join(&content.action_url)
            .unwrap_or_else(|error| panic!("{:?}: {error}", content.action_url));
        let own = content.action_url.starts_with('/');
        assert_eq!(url.scheme(), "https");
        assert!(!own || url.host_str() == Some("app.example.com"), "{:?} leads to {url}", content.action_url);
    }
    assert!(content.expires_at.is_none_or(|at| at > NOW));
}

fn token(request: pb::CreateSubscriberTokenRequest) {
    let Ok(new) = tokens::new_token(request) else { return };
    let longest = std::time::Duration::from_secs(3_600);
    if !accepts(|violations| new.check(longest, violations)) {
        return;
    }
    assert_eq!(topic::check_user_id(&new.user_id), Ok(()));
    assert!(new.lifetime.is_none_or(|lifetime| (10..=3_600).contains(&lifetime.as_secs())));
    assert!(new.scopes.len() <= 100 && new.topics.len() <= 100);
    let escalates = |held: &String| NOT_FOR_USERS.iter().any(|needed| scope::covers(held, needed));
    assert!(!new.scopes.iter().any(escalates));
}

fn selection(selection: Option<pb::NotificationSelection>) {
    if let Ok(selection) = inbox::selection(&application(), selection)
        && marks::check(&selection).is_ok()
    {
        assert_eq!(topic::check_user_id(&selection.user_id), Ok(()));
    }
}

/// A request, and which one it is.
pub fn notification_requests(data: &[u8]) {
    let Some((which, message)) = choose(data, 9) else { return };
    match which {
        0 => {
            if let Some(request) = decode::<pb::SendNotificationRequest>(message) {
                if let Some(after) = request.email_fallback.and_then(|fallback| fallback.after)
                    && let Some(after) = crate::rpc::convert::from_duration(after)
                {
                    assert!(inbox::whole_seconds(after) <= after.as_secs());
                }
                content(request.content);
            }
        }
        1 => {
            if let Some(request) = decode::<pb::BroadcastNotificationRequest>(message) {
                content(request.content);
            }
        }
        2 => decode(message).into_iter().for_each(token),
        3 => {
            if let Some(request) = decode::<pb::MarkNotificationsReadRequest>(message) {
                selection(request.selection);
            }
        }
        4 => {
            if let Some(pb::SubscribeRequest { event_types, subjects, topics, .. }) = decode(message) {
                let wish = Wish { event_types, subjects, topics };
                if let Ok(filter) = wish.check() {
                    assert_eq!(filter.types.len(), wish.event_types.len());
                    assert_eq!(filter.topics.len(), wish.topics.len());
                    assert!(filter.subjects.len() <= 100);
                }
            }
        }
        5 => {
            if let Some(request) = decode::<pb::UpdateSubscriptionRequest>(message) {
                let pb::UpdateSubscriptionRequest { generation, event_types, subjects, topics, .. } = request;
                let update = Update { generation, wish: Wish { event_types, subjects, topics } };
                assert!(update.check().is_err() || generation > 0);
            }
        }
        6 => {
            if let Some(pb::UpdateNotificationPreferencesRequest { preferences: Some(wishes), .. }) =
                decode(message)
            {
                let wishes: Vec<_> = wishes.preferences.into_iter().map(inbox::preference).collect();
                if accepts(|violations| preferences::check(violations, &wishes)) {
                    assert!(wishes.len() <= 100 && wishes.iter().all(|wish| !wish.channel.is_empty()));
                }
            }
        }
        _ => decode_as!(message;
            RefreshSubscriptionRequest RevokeSubscriberTokensRequest UpdateNotificationRequest
            WithdrawNotificationRequest ListNotificationsRequest GetUnreadCountRequest
            MarkNotificationsSeenRequest ArchiveNotificationsRequest GetNotificationPreferencesRequest
            ListPresenceRequest
        ),
    }
}
