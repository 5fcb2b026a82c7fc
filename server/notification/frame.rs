//! The fields of a `SubscribeResponse`, as pieces of its wire form.

use bytes::Bytes;
use prost::Message;

use crate::clock::Timestamp;
use crate::event::cursor::Cursor;
pub use crate::event::rpc::frame::{Frame, encoded, encoded_ephemeral};
use crate::pb::switchboard::notification::v1::{Closing, Opened, Resync, SubscriptionUpdated};
use crate::rpc::convert::timestamp;

const OPENED: u32 = 1;
const EVENTS: u32 = 2;
const CURSOR: u32 = 3;
const RESYNC: u32 = 4;
const CLOSING: u32 = 5;
const SNAPSHOT_END: u32 = 6;
const UPDATED: u32 = 7;
const TOKEN_EXPIRE_TIME: u32 = 8;

/// A frame that is a `SubscribeResponse`.
pub trait SubscribeFrame: Sized {
    /// An empty frame with a cursor: a heartbeat.
    fn at(cursor: Cursor) -> Self;
    /// Adds the greeting.
    #[must_use]
    fn opened(self, opened: &Opened) -> Self;
    /// Adds the notice of a gap.
    #[must_use]
    fn resync(self, resync: Resync) -> Self;
    /// Adds the farewell.
    #[must_use]
    fn closing(self, closing: &Closing) -> Self;
    /// Says that the snapshot is complete.
    #[must_use]
    fn snapshot_end(self) -> Self;
    /// Says that a change has come into force.
    #[must_use]
    fn updated(self, generation: i64) -> Self;
    /// Says when the token ends.
    #[must_use]
    fn token_expire_time(self, end: Timestamp) -> Self;
    /// Adds an event that is encoded already.
    fn push(&mut self, event: Bytes);
}

impl SubscribeFrame for Frame {
    fn at(cursor: Cursor) -> Self {
        Self::default().with(CURSOR, cursor.encode().as_bytes())
    }

    fn opened(self, opened: &Opened) -> Self {
        self.with(OPENED, &opened.encode_to_vec())
    }

    fn resync(self, resync: Resync) -> Self {
        self.with(RESYNC, &resync.encode_to_vec())
    }

    fn closing(self, closing: &Closing) -> Self {
        self.with(CLOSING, &closing.encode_to_vec())
    }

    fn snapshot_end(self) -> Self {
        self.with_flag(SNAPSHOT_END)
    }

    fn updated(self, generation: i64) -> Self {
        self.with(UPDATED, &SubscriptionUpdated { generation }.encode_to_vec())
    }

    fn token_expire_time(self, end: Timestamp) -> Self {
        self.with(TOKEN_EXPIRE_TIME, &timestamp(end).encode_to_vec())
    }

    fn push(&mut self, event: Bytes) {
        self.push_encoded(EVENTS, event);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use switchboard_client::notification::v1::SubscribeResponse;

    use super::*;
    use crate::event::bus::Record;
    use crate::event::ephemeral::Ephemeral;
    use crate::event::{Event, Fact};

    #[test]
    fn a_frame_is_read_as_the_message_that_the_contract_says() {
        let fact = Fact {
            id: "evt_1".into(),
            event_type: "ticket.created".into(),
            data: "{\"a\":\"ä\"}".into(),
            actor: "jo".into(),
            subject: "ticket:1".into(),
            topic: "events".into(),
            created_at: Timestamp::from_micros(1_500_000),
        };
        let fact = Arc::new(fact);
        let record =
            Record { event: Event { position: 7, fact: Arc::clone(&fact) }, encoded: OnceLock::new() };
        let cursor = Cursor { epoch: 3, position: 7 };
        let mut frame = Frame::at(cursor).opened(&Opened { resumed: true, ..Opened::default() });
        frame.push(encoded(&record, 3));
        frame.push(encoded(&record, 3));
        frame.push(encoded_ephemeral(&Ephemeral::new(fact, "k")));
        let frame = frame.snapshot_end().updated(4).token_expire_time(Timestamp::from_micros(1_500_000));
        let bytes = frame.encode_to_vec();
        assert_eq!(bytes.len(), frame.encoded_len());
        let message = SubscribeResponse::decode(&*bytes).unwrap();
        assert!(message.opened.unwrap().resumed);
        assert_eq!(message.cursor, cursor.encode());
        assert_eq!(message.events.len(), 3);
        assert_eq!((&*message.events[2].cursor, &*message.events[2].collapse_key), ("", "k"));
        assert_eq!((message.snapshot_end, message.updated.unwrap().generation), (true, 4));
        assert_eq!(message.token_expire_time.unwrap().nanos, 500_000_000);
        assert_eq!(message.events[0].data, "{\"a\":\"ä\"}");
        assert_eq!(message.events[1].cursor, cursor.encode());
    }
}
