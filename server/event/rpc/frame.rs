//! A message as pieces of its wire form.
//!
//! The messages that carry many events are flat: their wire form is a concatenation of fields.  An event is encoded
//! once, with its length in front, and the same bytes go to everybody who reads it, in whichever message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{DecodeContext, WireType, encode_key, encode_varint, key_len, skip_field};
use prost::{DecodeError, Message};

use super::convert;
use crate::event::bus::Record;
use crate::event::ephemeral::Ephemeral;

/// A `SubscribeResponse` or a `PullWebhookEventsResponse`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frame(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
struct Piece {
    tag: u32,
    wire_type: WireType,
    bytes: Bytes,
}

impl Frame {
    /// Adds a field that is text or a message.
    #[must_use]
    pub fn with(mut self, tag: u32, bytes: &[u8]) -> Self {
        self.push_encoded(tag, delimited(bytes));
        self
    }

    /// Adds a field that is `true`.
    #[must_use]
    pub fn with_flag(mut self, tag: u32) -> Self {
        self.0.push(Piece { tag, wire_type: WireType::Varint, bytes: Bytes::from_static(&[1]) });
        self
    }

    /// Adds a field that has its length in front already, such as an event that is [`encoded`].
    pub fn push_encoded(&mut self, tag: u32, bytes: Bytes) {
        self.0.push(Piece { tag, wire_type: WireType::LengthDelimited, bytes });
    }
}

/// An event with its length in front; encoded by whoever asks first.
pub fn encoded(record: &Record, epoch: i64) -> Bytes {
    let encode = || delimited(&convert::event(&record.event, epoch).encode_to_vec());
    record.encoded.get_or_init(encode).clone()
}

/// An ephemeral event with its length in front; encoded by whoever asks first.
pub fn encoded_ephemeral(event: &Ephemeral) -> Bytes {
    let encode = || delimited(&convert::ephemeral(event).encode_to_vec());
    event.encoded.get_or_init(encode).clone()
}

fn delimited(bytes: &[u8]) -> Bytes {
    let mut piece = BytesMut::with_capacity(bytes.len() + 5);
    encode_varint(bytes.len() as u64, &mut piece);
    piece.put_slice(bytes);
    piece.freeze()
}

impl Message for Frame {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        for Piece { tag, wire_type, bytes } in &self.0 {
            encode_key(*tag, *wire_type, buffer);
            buffer.put_slice(bytes);
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
        self.0.iter().map(|piece| key_len(piece.tag) + piece.bytes.len()).sum()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
