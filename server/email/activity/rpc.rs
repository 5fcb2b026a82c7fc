//! The wire: what happened to a mail.

use super::{Activity, ActivityKind};
use crate::pb::switchboard::email::v1 as pb;
use crate::rpc::convert::timestamp;

impl From<ActivityKind> for pb::EmailActivityKind {
    fn from(kind: ActivityKind) -> Self {
        match kind {
            ActivityKind::Opened => Self::Opened,
            ActivityKind::Clicked => Self::Clicked,
            ActivityKind::Unsubscribed => Self::Unsubscribed,
            ActivityKind::Bounced => Self::Bounced,
            ActivityKind::Complained => Self::Complained,
        }
    }
}

impl From<Activity> for pb::EmailActivity {
    fn from(activity: Activity) -> Self {
        let kind = activity.kind.map_or(pb::EmailActivityKind::Unspecified, pb::EmailActivityKind::from);
        Self {
            address: activity.address,
            kind: kind.into(),
            detail: activity.detail,
            automated: activity.automated,
            create_time: Some(timestamp(activity.created_at)),
        }
    }
}
