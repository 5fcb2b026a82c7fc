//! Messages as they come from the wire.

use prost::Message;

/// Decodes a message as a request is, and holds that it stays the same when it is encoded and decoded again.
pub fn decode<M: Message + Default + Clone + PartialEq>(data: &[u8]) -> Option<M> {
    let message = M::decode(data).ok()?;
    let encoded = message.encode_to_vec();
    assert_eq!(encoded.len(), message.encoded_len());
    let again = M::decode(encoded.as_slice()).expect("what was encoded can be decoded");
    // A number that is none (NaN) is not equal to itself.
    assert!(again == message || message.clone() != message, "a message changes on its way");
    Some(message)
}

/// Decodes the bytes as each of these messages, one after the other: what one field means to one of them may be the length of
/// another to the next.
macro_rules! decode_as {
    ($data:expr; $($message:ident)*) => {{
        $(let _ = $crate::fuzz::wire::decode::<pb::$message>($data);)*
    }};
}
pub(crate) use decode_as;

/// The message that is chosen by the first byte of an input, and the rest.
pub fn choose(data: &[u8], count: u8) -> Option<(u8, &[u8])> {
    let (first, message) = data.split_first()?;
    Some((first % count, message))
}
