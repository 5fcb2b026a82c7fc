//! The wire: events that are read instead of sent, and events from before.

use std::time::Duration;

use super::super::backfill::Backfill;
use super::super::pull::{Pull, Pulled};
use super::super::service::WebhookService;
use super::convert::length;
use crate::error::{Error, Result};
use crate::event::rpc::frame::{Frame, encoded};
use crate::pb::switchboard::webhook::v1 as pb;
use crate::rpc::convert::from_timestamp;
use crate::rpc::page::Page;

// The fields of a `PullWebhookEventsResponse`.
const EVENTS: u32 = 1;
const CURSOR: u32 = 2;
const GAP: u32 = 3;

pub(super) async fn pull(service: &WebhookService, request: pb::PullWebhookEventsRequest) -> Result<Frame> {
    let pb::PullWebhookEventsRequest { webhook_id, cursor, page_size, wait } = request;
    let wait = wait.map_or(Duration::ZERO, length);
    let Pulled { records, cursor, gap } = service.pull(Pull { webhook_id, cursor, page_size, wait }).await?;
    let mut frame = Frame::default().with(CURSOR, cursor.encode().as_bytes());
    if gap {
        frame = frame.with_flag(GAP);
    }
    for record in records {
        frame.push_encoded(EVENTS, encoded(&record, cursor.epoch));
    }
    Ok(frame)
}

pub(super) async fn replay_events(
    service: &WebhookService,
    request: pb::ReplayWebhookEventsRequest,
) -> Result<pb::ReplayWebhookEventsResponse> {
    let pb::ReplayWebhookEventsRequest { webhook_id, created_after, created_before, page_token } = request;
    let page = Page::read(
        "replayed webhook events",
        0,
        &page_token,
        &[&webhook_id, &created_after, &created_before],
    )?;
    let after = created_after.ok_or_else(|| Error::field("created_after", "is required"))?;
    let backfill = Backfill {
        webhook_id,
        created_after: from_timestamp(after),
        created_before: created_before.map(from_timestamp),
        go_on: page.after.clone(),
    };
    let (count, next) = service.backfill(backfill).await?;
    let next_page_token = next.map(|key| page.token(&key)).unwrap_or_default();
    Ok(pb::ReplayWebhookEventsResponse { count, next_page_token })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use prost::Message;
    use switchboard_client::webhook::v1::PullWebhookEventsResponse;

    use super::*;
    use crate::clock::Timestamp;
    use crate::event::bus::Record;
    use crate::event::cursor::Cursor;
    use crate::event::{Event, Fact};

    #[test]
    fn an_answer_is_read_as_the_message_that_the_contract_says() {
        let fact = Fact {
            id: "evt_1".into(),
            event_type: "ticket.created".into(),
            data: "{\"a\":\"ä\"}".into(),
            actor: "jo".into(),
            subject: "ticket:1".into(),
            topic: "events".into(),
            created_at: Timestamp::from_micros(1_500_000),
        };
        let record = Record { event: Event { position: 7, fact: Arc::new(fact) }, encoded: OnceLock::new() };
        let cursor = Cursor { epoch: 3, position: 8 }.encode();
        let mut frame = Frame::default().with(CURSOR, cursor.as_bytes()).with_flag(GAP);
        frame.push_encoded(EVENTS, encoded(&record, 3));
        frame.push_encoded(EVENTS, encoded(&record, 3));
        let bytes = frame.encode_to_vec();
        assert_eq!(bytes.len(), frame.encoded_len());
        let message = PullWebhookEventsResponse::decode(&*bytes).unwrap();
        assert_eq!((message.cursor, message.gap), (cursor, true));
        assert_eq!(message.events.len(), 2);
        assert_eq!((&*message.events[1].data, &*message.events[1].subject), ("{\"a\":\"ä\"}", "ticket:1"));
        assert_eq!(message.events[1].cursor, Cursor { epoch: 3, position: 7 }.encode());
    }
}
