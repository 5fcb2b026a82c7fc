//! The wire: NotificationService.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod inbox;
mod live;
mod presence;
mod tokens;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::Stream as FuturesStream;
use tonic::{Request, Response, Status};

use super::frame::Frame;
use super::inbox::InboxService;
use super::presence::Presence;
use super::registry::Elsewhere;
use super::stream::Source;
use super::token::TokenService;
use crate::pb::switchboard::notification::v1 as pb;

/// The service.
pub struct Rpc {
    /// What streams need.
    pub source: Arc<Source>,
    /// Who is online.
    pub presence: Arc<Presence>,
    /// Inboxes.
    pub inbox: Arc<InboxService>,
    /// Reaches the streams of other nodes.
    pub elsewhere: Arc<dyn Elsewhere>,
    /// Tokens of users.
    pub tokens: Arc<TokenService>,
}

/// Hands each method to the file of its area.
macro_rules! methods {
    ($($method:ident: $request:ident -> $response:ident = $area:ident;)*) => {
        #[tonic::async_trait]
        impl pb::notification_service_server::NotificationService for Rpc {
            type SubscribeStream = Pin<Box<dyn FuturesStream<Item = Result<Frame, Status>> + Send>>;

            async fn subscribe(
                &self,
                request: Request<pb::SubscribeRequest>,
            ) -> Result<Response<Self::SubscribeStream>, Status> {
                live::subscribe(self, request).await
            }

            $(async fn $method(
                &self,
                request: Request<pb::$request>,
            ) -> Result<Response<pb::$response>, Status> {
                $area::$method(self, request).await.map(Response::new)
            })*
        }
    };
}

methods! {
    update_subscription: UpdateSubscriptionRequest -> UpdateSubscriptionResponse = live;
    refresh_subscription: RefreshSubscriptionRequest -> RefreshSubscriptionResponse = live;
    create_subscriber_token: CreateSubscriberTokenRequest -> CreateSubscriberTokenResponse = tokens;
    revoke_subscriber_tokens: RevokeSubscriberTokensRequest -> RevokeSubscriberTokensResponse = tokens;
    send_notification: SendNotificationRequest -> SendNotificationResponse = inbox;
    broadcast_notification: BroadcastNotificationRequest -> BroadcastNotificationResponse = inbox;
    update_notification: UpdateNotificationRequest -> UpdateNotificationResponse = inbox;
    withdraw_notification: WithdrawNotificationRequest -> WithdrawNotificationResponse = inbox;
    list_notifications: ListNotificationsRequest -> ListNotificationsResponse = inbox;
    get_unread_count: GetUnreadCountRequest -> GetUnreadCountResponse = inbox;
    mark_notifications_seen: MarkNotificationsSeenRequest -> MarkNotificationsSeenResponse = inbox;
    mark_notifications_read: MarkNotificationsReadRequest -> MarkNotificationsReadResponse = inbox;
    archive_notifications: ArchiveNotificationsRequest -> ArchiveNotificationsResponse = inbox;
    get_notification_preferences:
        GetNotificationPreferencesRequest -> GetNotificationPreferencesResponse = inbox;
    update_notification_preferences:
        UpdateNotificationPreferencesRequest -> UpdateNotificationPreferencesResponse = inbox;
    list_presence: ListPresenceRequest -> ListPresenceResponse = presence;
}
