//! Inboxes.

use std::time::Duration;

use tonic::{Request, Status};

use super::super::inbox::apply::Change;
use super::super::inbox::preferences::PreferencesChange;
use super::super::inbox::{
    Content, Counts, Fallback, Listing, Mark, NewNotification, Preference, Preferences, Priority, Row,
    Selection, Which,
};
use super::{Rpc, pb};
use crate::error::{Error, Kind, Result as ServerResult};
use crate::rpc::Principal;
use crate::rpc::convert::{from_duration, from_timestamp, timestamp};
use crate::rpc::mask::{self, Mask};
use crate::rpc::page::Page;

const CONTENT: [&str; 7] = ["category", "title", "message", "priority", "action_url", "data", "expire_time"];
const PREFERENCES: [&str; 2] = ["preferences", "email_address"];

/// Whose inbox a request is about: a user acts for nobody else.
///
/// # Errors
/// `PERMISSION_DENIED` for that of another.
fn acting_for(principal: &Principal, user_id: String) -> ServerResult<String> {
    // What an application says is checked with the other fields of its request.
    if principal.user.is_some() { principal.acting_for(&user_id) } else { Ok(user_id) }
}

/// Refuses a user what only applications do.
fn application(principal: &Principal) -> ServerResult<()> {
    if principal.user.is_some() { Err(not_theirs()) } else { Ok(()) }
}

fn not_theirs() -> Error {
    Error::new(Kind::PermissionDenied, "USER_MISMATCH", "a user acts for themselves only")
}

pub(super) async fn send_notification(
    rpc: &Rpc,
    request: Request<pb::SendNotificationRequest>,
) -> Result<pb::SendNotificationResponse, Status> {
    let principal = Principal::of(&request)?.clone();
    let pb::SendNotificationRequest { user_ids, content, email_fallback, replace_key, request_id } =
        request.into_inner();
    let user_ids =
        user_ids.into_iter().map(|id| acting_for(&principal, id)).collect::<ServerResult<Vec<_>>>()?;
    let fallback = email_fallback.map(|fallback| {
        let after = fallback.after.and_then(from_duration).unwrap_or_default();
        Fallback { after_seconds: whole_seconds(after), email_address: fallback.email_address }
    });
    let content = required(content)?;
    let new = NewNotification { user_ids, content, fallback, replace_key, request_id };
    let sent = rpc.inbox.send(&principal.actor(), new).await?;
    Ok(pb::SendNotificationResponse { notification_id: sent.notification_id, replayed: sent.replayed })
}

/// Zero for what is no whole number of seconds: it is refused then.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    if duration.subsec_nanos() == 0 { duration.as_secs() } else { 0 }
}

pub(super) async fn broadcast_notification(
    rpc: &Rpc,
    request: Request<pb::BroadcastNotificationRequest>,
) -> Result<pb::BroadcastNotificationResponse, Status> {
    let principal = Principal::of(&request)?.clone();
    application(&principal)?;
    let pb::BroadcastNotificationRequest { content, request_id } = request.into_inner();
    let sent = rpc.inbox.broadcast(&principal.actor(), required(content)?, &request_id).await?;
    Ok(pb::BroadcastNotificationResponse { notification_id: sent.notification_id, replayed: sent.replayed })
}

pub(super) async fn update_notification(
    rpc: &Rpc,
    request: Request<pb::UpdateNotificationRequest>,
) -> Result<pb::UpdateNotificationResponse, Status> {
    application(Principal::of(&request)?)?;
    let pb::UpdateNotificationRequest { notification_id, content, update_mask, mark_unread } =
        request.into_inner();
    let mask = Mask::read(update_mask, &CONTENT)?;
    let content = content.unwrap_or_default();
    let priority = priority(content.priority)?;
    let change = Change {
        category: mask.take("category", content.category).map(|category| {
            if category.is_empty() { super::super::inbox::model::GENERAL.to_owned() } else { category }
        }),
        title: mask.take("title", content.title),
        message: mask.take("message", content.message),
        priority: mask.take("priority", content.priority).map(|_| priority),
        action_url: mask.take("action_url", content.action_url),
        data: mask.take("data", content.data),
        expires_at: mask.take("expire_time", content.expire_time).map(|at| at.map(from_timestamp)),
    };
    let content = rpc.inbox.update(&notification_id, change, mark_unread).await?;
    Ok(pb::UpdateNotificationResponse { content: Some(content.into()) })
}

pub(super) async fn withdraw_notification(
    rpc: &Rpc,
    request: Request<pb::WithdrawNotificationRequest>,
) -> Result<pb::WithdrawNotificationResponse, Status> {
    application(Principal::of(&request)?)?;
    rpc.inbox.withdraw(&request.into_inner().notification_id).await?;
    Ok(pb::WithdrawNotificationResponse {})
}

pub(super) async fn list_notifications(
    rpc: &Rpc,
    request: Request<pb::ListNotificationsRequest>,
) -> Result<pb::ListNotificationsResponse, Status> {
    let principal = Principal::of(&request)?.clone();
    let pb::ListNotificationsRequest { user_id, unread_only, archived, category, page_size, page_token } =
        request.into_inner();
    let user_id = acting_for(&principal, user_id)?;
    let page =
        Page::read("notifications", page_size, &page_token, &[&user_id, &unread_only, &archived, &category])?;
    let before = page.after.as_ref().and_then(|key| key.parse().ok());
    let listing = Listing { user_id: user_id.clone(), unread_only, archived, category, before };
    let mut listed = rpc.inbox.list(&listing, page.limit() as i64).await?;
    let next_page_token = page.cut(&mut listed.rows, |row| row.position.to_string());
    let notifications = listed.rows.into_iter().map(|row| notification(row, &user_id)).collect();
    let counts = Some(listed.counts.into());
    Ok(pb::ListNotificationsResponse { notifications, next_page_token, counts, cursor: listed.cursor })
}

pub(super) async fn get_unread_count(
    rpc: &Rpc,
    request: Request<pb::GetUnreadCountRequest>,
) -> Result<pb::GetUnreadCountResponse, Status> {
    let principal = Principal::of(&request)?.clone();
    let user_id = acting_for(&principal, request.into_inner().user_id)?;
    let counts = rpc.inbox.counts(&user_id).await?;
    Ok(pb::GetUnreadCountResponse { counts: Some(counts.into()) })
}

pub(super) async fn mark_notifications_seen(
    rpc: &Rpc,
    request: Request<pb::MarkNotificationsSeenRequest>,
) -> Result<pb::MarkNotificationsSeenResponse, Status> {
    let principal = Principal::of(&request)?.clone();
    let selection = selection(&principal, request.into_inner().selection)?;
    let (changed, counts) = rpc.inbox.mark(Mark::Seen, selection).await?;
    Ok(pb::MarkNotificationsSeenResponse { changed, counts: Some(counts.into()) })
}

pub(super) async fn mark_notifications_read(
    rpc: &Rpc,
    request: Request<pb::MarkNotificationsReadRequest>,
) -> Result<pb::MarkNotificationsReadResponse, Status> {
    let principal = Principal::of(&request)?.clone();
    let pb::MarkNotificationsReadRequest { selection: of, unread } = request.into_inner();
    let mark = if unread { Mark::Unread } else { Mark::Read };
    let (changed, counts) = rpc.inbox.mark(mark, selection(&principal, of)?).await?;
    Ok(pb::MarkNotificationsReadResponse { changed, counts: Some(counts.into()) })
}

pub(super) async fn archive_notifications(
    rpc: &Rpc,
    request: Request<pb::ArchiveNotificationsRequest>,
) -> Result<pb::ArchiveNotificationsResponse, Status> {
    let principal = Principal::of(&request)?.clone();
    let pb::ArchiveNotificationsRequest { selection: of, unarchive } = request.into_inner();
    let mark = if unarchive { Mark::Unarchived } else { Mark::Archived };
    let (changed, counts) = rpc.inbox.mark(mark, selection(&principal, of)?).await?;
    Ok(pb::ArchiveNotificationsResponse { changed, counts: Some(counts.into()) })
}

pub(super) async fn get_notification_preferences(
    rpc: &Rpc,
    request: Request<pb::GetNotificationPreferencesRequest>,
) -> Result<pb::GetNotificationPreferencesResponse, Status> {
    let principal = Principal::of(&request)?.clone();
    let user_id = acting_for(&principal, request.into_inner().user_id)?;
    let preferences = rpc.inbox.preferences(&user_id).await?;
    Ok(pb::GetNotificationPreferencesResponse { preferences: Some(of_preferences(preferences, user_id)) })
}

pub(super) async fn update_notification_preferences(
    rpc: &Rpc,
    request: Request<pb::UpdateNotificationPreferencesRequest>,
) -> Result<pb::UpdateNotificationPreferencesResponse, Status> {
    let principal = Principal::of(&request)?.clone();
    let pb::UpdateNotificationPreferencesRequest { preferences, update_mask } = request.into_inner();
    let preferences = preferences.ok_or_else(|| Error::field("preferences", "is required"))?;
    let user_id = acting_for(&principal, preferences.user_id)?;
    let mask = Mask::read(update_mask, &PREFERENCES)?;
    let wishes = mask.take("preferences", preferences.preferences);
    let change = PreferencesChange {
        preferences: wishes.map(|wishes| wishes.into_iter().map(preference).collect()),
        email_address: mask.take("email_address", preferences.email_address),
        version: mask::version(&preferences.etag)?,
    };
    let preferences = rpc.inbox.update_preferences(user_id.clone(), change).await?;
    Ok(pb::UpdateNotificationPreferencesResponse { preferences: Some(of_preferences(preferences, user_id)) })
}

pub(super) fn selection(
    principal: &Principal,
    selection: Option<pb::NotificationSelection>,
) -> ServerResult<Selection> {
    use pb::notification_selection::Which as Wire;
    let pb::NotificationSelection { user_id, which, category } =
        selection.ok_or_else(|| Error::field("selection", "is required"))?;
    let user_id = acting_for(principal, user_id)?;
    let which = match which {
        Some(Wire::Ids(ids)) => Which::Ids(ids.notification_ids),
        Some(Wire::UpToNotificationId(id)) => Which::UpTo(id),
        None => return Err(Error::field("selection", "must have ids or up_to_notification_id")),
    };
    Ok(Selection { user_id, which, category })
}

pub(super) fn priority(number: i32) -> ServerResult<Priority> {
    match pb::NotificationPriority::try_from(number) {
        Ok(pb::NotificationPriority::Low) => Ok(Priority::Low),
        Ok(pb::NotificationPriority::Unspecified | pb::NotificationPriority::Normal) => Ok(Priority::Normal),
        Ok(pb::NotificationPriority::High) => Ok(Priority::High),
        Ok(pb::NotificationPriority::Critical) => Ok(Priority::Critical),
        Err(_) => Err(Error::field("content.priority", "is not a priority")),
    }
}

pub(super) fn required(content: Option<pb::NotificationContent>) -> ServerResult<Content> {
    let content = content.ok_or_else(|| Error::field("content", "is required"))?;
    Ok(Content {
        priority: priority(content.priority)?,
        category: content.category,
        title: content.title,
        message: content.message,
        action_url: content.action_url,
        data: content.data,
        expires_at: content.expire_time.map(from_timestamp),
    })
}

impl From<Content> for pb::NotificationContent {
    fn from(content: Content) -> Self {
        let priority = match content.priority {
            Priority::Low => pb::NotificationPriority::Low,
            Priority::Normal => pb::NotificationPriority::Normal,
            Priority::High => pb::NotificationPriority::High,
            Priority::Critical => pb::NotificationPriority::Critical,
        };
        Self {
            category: content.category,
            title: content.title,
            message: content.message,
            priority: priority.into(),
            action_url: content.action_url,
            data: content.data,
            expire_time: content.expires_at.map(timestamp),
        }
    }
}

impl From<Counts> for pb::NotificationCounts {
    fn from(Counts { unread, unseen, version }: Counts) -> Self {
        Self { unread, unseen, version }
    }
}

fn notification(row: Row, user_id: &str) -> pb::Notification {
    pb::Notification {
        content: Some(row.content().into()),
        broadcast: row.is_broadcast(),
        id: row.id,
        user_id: user_id.to_owned(),
        create_time: Some(timestamp(row.created_at)),
        update_time: Some(timestamp(row.updated_at)),
        seen_time: row.seen_at.map(timestamp),
        read_time: row.read_at.map(timestamp),
        archive_time: row.archived_at.map(timestamp),
        event_id: row.event_id,
    }
}

pub(super) fn preference(wish: pb::NotificationPreference) -> Preference {
    let channel = match wish.channel() {
        pb::NotificationChannel::Inbox => "inbox",
        pb::NotificationChannel::Email => "email",
        pb::NotificationChannel::Unspecified => "",
    };
    Preference { category: wish.category, channel, enabled: wish.enabled }
}

fn of_preferences(preferences: Preferences, user_id: String) -> pb::NotificationPreferences {
    let wish = |Preference { category, channel, enabled }: Preference| {
        let channel = match channel {
            "email" => pb::NotificationChannel::Email,
            _ => pb::NotificationChannel::Inbox,
        };
        pb::NotificationPreference { category, channel: channel.into(), enabled }
    };
    pb::NotificationPreferences {
        user_id,
        preferences: preferences.preferences.into_iter().map(wish).collect(),
        email_address: preferences.email_address,
        etag: preferences.version.to_string(),
    }
}
