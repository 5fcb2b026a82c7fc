//! The fields of a `SubscribeResponse`, as pieces of its wire form.

use bytes::Bytes;
use prost::Message;

use crate::event::cursor::Cursor;
pub use crate::event::rpc::frame::{Frame, encoded};
use crate::pb::switchboard::notification::v1::{Closing, Opened, Resync};

const OPENED: u32 = 1;
const EVENTS: u32 = 2;
const CURSOR: u32 = 3;
const RESYNC: u32 = 4;
const CLOSING: u32 = 5;

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

    fn push(&mut self, event: Bytes) {
        self.push_encoded(EVENTS, event);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use switchboard_client::notification::v1::SubscribeResponse;

    use super::*;
    use crate::clock::Timestamp;
    use crate::event::bus::Record;
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
        let record = Record { event: Event { position: 7, fact: Arc::new(fact) }, encoded: OnceLock::new() };
        let cursor = Cursor { epoch: 3, position: 7 };
        let mut frame = Frame::at(cursor).opened(&Opened { resumed: true, ..Opened::default() });
        frame.push(encoded(&record, 3));
        frame.push(encoded(&record, 3));
        let bytes = frame.encode_to_vec();
        assert_eq!(bytes.len(), frame.encoded_len());
        let message = SubscribeResponse::decode(&*bytes).unwrap();
        assert!(message.opened.unwrap().resumed);
        assert_eq!(message.cursor, cursor.encode());
        assert_eq!(message.events.len(), 2);
        assert_eq!(message.events[0].data, "{\"a\":\"ä\"}");
        assert_eq!(message.events[1].cursor, cursor.encode());
    }
}
