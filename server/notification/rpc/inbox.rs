//! Inboxes.

use tonic::{Request, Status};

use super::{Rpc, pb};

pub(super) async fn send_notification(
    _rpc: &Rpc,
    _request: Request<pb::SendNotificationRequest>,
) -> Result<pb::SendNotificationResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn broadcast_notification(
    _rpc: &Rpc,
    _request: Request<pb::BroadcastNotificationRequest>,
) -> Result<pb::BroadcastNotificationResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn update_notification(
    _rpc: &Rpc,
    _request: Request<pb::UpdateNotificationRequest>,
) -> Result<pb::UpdateNotificationResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn withdraw_notification(
    _rpc: &Rpc,
    _request: Request<pb::WithdrawNotificationRequest>,
) -> Result<pb::WithdrawNotificationResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn list_notifications(
    _rpc: &Rpc,
    _request: Request<pb::ListNotificationsRequest>,
) -> Result<pb::ListNotificationsResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn get_unread_count(
    _rpc: &Rpc,
    _request: Request<pb::GetUnreadCountRequest>,
) -> Result<pb::GetUnreadCountResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn mark_notifications_seen(
    _rpc: &Rpc,
    _request: Request<pb::MarkNotificationsSeenRequest>,
) -> Result<pb::MarkNotificationsSeenResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn mark_notifications_read(
    _rpc: &Rpc,
    _request: Request<pb::MarkNotificationsReadRequest>,
) -> Result<pb::MarkNotificationsReadResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn archive_notifications(
    _rpc: &Rpc,
    _request: Request<pb::ArchiveNotificationsRequest>,
) -> Result<pb::ArchiveNotificationsResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn get_notification_preferences(
    _rpc: &Rpc,
    _request: Request<pb::GetNotificationPreferencesRequest>,
) -> Result<pb::GetNotificationPreferencesResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn update_notification_preferences(
    _rpc: &Rpc,
    _request: Request<pb::UpdateNotificationPreferencesRequest>,
) -> Result<pb::UpdateNotificationPreferencesResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}
