//! A message of a stream, as pieces of its wire form.
//!
//! `SubscribeResponse` is flat: its wire form is a concatenation of fields.  An event is encoded once, as the field
//! `events` with its tag and length, and the same bytes go to every subscriber.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{DecodeContext, WireType, encode_key, encode_varint, skip_field};
use prost::{DecodeError, Message};

use crate::event::bus::Record;
use crate::event::cursor::Cursor;
use crate::event::rpc::convert;
use crate::pb::switchboard::notification::v1::{Closing, Opened, Resync};

const OPENED: u32 = 1;
const EVENTS: u32 = 2;
const CURSOR: u32 = 3;
const RESYNC: u32 = 4;
const CLOSING: u32 = 5;

/// A `SubscribeResponse`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frame(Vec<Bytes>);

impl Frame {
    /// An empty frame with a cursor: a heartbeat.
    pub fn at(cursor: Cursor) -> Self {
        Self(vec![field(CURSOR, cursor.encode().as_bytes())])
    }

    /// Adds the greeting.
    pub fn opened(mut self, opened: &Opened) -> Self {
        self.0.push(field(OPENED, &opened.encode_to_vec()));
        self
    }

    /// Adds the notice of a gap.
    pub fn resync(mut self, resync: Resync) -> Self {
        self.0.push(field(RESYNC, &resync.encode_to_vec()));
        self
    }

    /// Adds the farewell.
    pub fn closing(mut self, closing: &Closing) -> Self {
        self.0.push(field(CLOSING, &closing.encode_to_vec()));
        self
    }

    /// Adds an event that is encoded already.
    pub fn push(&mut self, event: Bytes) {
        self.0.push(event);
    }
}

/// An event as a piece of a frame; encoded by whoever asks first.
pub fn piece(record: &Record, epoch: i64) -> Bytes {
    let encode = || field(EVENTS, &convert::event(&record.event, epoch).encode_to_vec());
    record.encoded.get_or_init(encode).clone()
}

fn field(tag: u32, bytes: &[u8]) -> Bytes {
    let mut piece = BytesMut::with_capacity(bytes.len() + 6);
    encode_key(tag, WireType::LengthDelimited, &mut piece);
    encode_varint(bytes.len() as u64, &mut piece);
    piece.put_slice(bytes);
    piece.freeze()
}

impl Message for Frame {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        for piece in &self.0 {
            buffer.put_slice(piece);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // The server only sends it.
        skip_field(wire_type, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use switchboard_client::notification::v1::SubscribeResponse;

    use super::*;
    use crate::clock::Timestamp;
    use crate::event::{Event, Fact};

    #[test]
    fn a_frame_is_read_as_the_message_that_the_contract_says() {
        let fact = Fact {
            id: "evt_1".into(),
            event_type: "ticket.created".into(),
            data: "{\"a\":\"ä\"}".into(),
            actor: "jo".into(),
            subject: "ticket:1".into(),
            created_at: Timestamp::from_micros(1_500_000),
        };
        let record = Record { event: Event { position: 7, fact: Arc::new(fact) }, encoded: OnceLock::new() };
        let cursor = Cursor { epoch: 3, position: 7 };
        let mut frame = Frame::at(cursor).opened(&Opened { resumed: true, ..Opened::default() });
        frame.push(piece(&record, 3));
        frame.push(piece(&record, 3));
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
