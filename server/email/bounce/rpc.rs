//! The wire: what a report says of a recipient.

use super::Bounced;
use crate::pb::switchboard::email::v1 as pb;

impl From<Bounced> for pb::BouncedRecipient {
    fn from(bounced: Bounced) -> Self {
        Self {
            address: bounced.address,
            kind: pb::EmailActivityKind::from(bounced.kind).into(),
            status: bounced.status,
            diagnostic: bounced.diagnostic,
            email_id: bounced.email_id.unwrap_or_default(),
            suppressed: bounced.suppressed,
        }
    }
}
