//! Counts the events in the messages of a stream without decoding them.
//!
//! An event tells in its data when it was due and which number it has, both at fixed places, so that a glance is enough.

use prost::encoding::decode_varint;

/// A gRPC message has a flag and a length in front.
pub const PREFIX: usize = 5;
/// The octets of an event's data.
pub const DATA_SIZE: usize = 200;

const DIGITS: usize = 16;
const DUE: &str = r#"{"due":""#;
const NUMBER: &str = r#"","number":""#;
const TEXT: &str = r#"","text":""#;
const END: &str = r#""}"#;

/// The data of an event that was due at this time, in nanoseconds after the clock's zero, and has this number.
pub fn data(due: u64, number: u64) -> String {
    let start = format!("{DUE}{due:0DIGITS$}{NUMBER}{number:0DIGITS$}{TEXT}");
    let filler = "A pump in hall B has stopped. ".repeat(DATA_SIZE / 30 + 1);
    let room = DATA_SIZE - start.len() - END.len();
    format!("{start}{}{END}", &filler[..room])
}

/// What an event's data says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When it was due; 0 when its way is not measured.
    pub due: u64,
    /// Its number.
    pub number: u64,
}

/// What a `SubscribeResponse` has beside its events.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Around<'a> {
    /// It is the first one.
    pub opened: bool,
    /// From where to resume.
    pub cursor: &'a [u8],
    /// There is a gap.
    pub resync: bool,
    /// It is the last one.
    pub closing: bool,
}

/// Goes through a `SubscribeResponse`; `None` when it is none, or has an event that was not published here.
pub fn scan<'a>(message: &'a [u8], mut on_event: impl FnMut(Event)) -> Option<Around<'a>> {
    let mut around = Around::default();
    let mut rest = message;
    while !rest.is_empty() {
        let (tag, value) = field(&mut rest)?;
        match tag {
            1 => around.opened = true,
            2 => on_event(event(value)?),
            3 => around.cursor = value,
            4 => around.resync = true,
            5 => around.closing = true,
            _ => {}
        }
    }
    Some(around)
}

fn event(bytes: &[u8]) -> Option<Event> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (tag, value) = field(&mut rest)?;
        if tag == 3 {
            let due = number(value, DUE.len())?;
            let number = number(value, DUE.len() + DIGITS + NUMBER.len())?;
            return Some(Event { due, number });
        }
    }
    None
}

fn number(data: &[u8], at: usize) -> Option<u64> {
    let digits = data.get(at..at + DIGITS)?;
    digits.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

/// The next field: its tag and, when it has a length, its content.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let key = decode_varint(rest).ok()?;
    let length = match key & 7 {
        0 => {
            decode_varint(rest).ok()?;
            0
        }
        1 => 8,
        2 => usize::try_from(decode_varint(rest).ok()?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (value, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some((key >> 3, value))
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use switchboard_client::event::v1 as event;
    use switchboard_client::notification::v1::{Opened, SubscribeResponse};

    use super::*;

    #[test]
    fn events_are_found_in_a_real_message() {
        let of = |due, number| event::Event {
            id: "evt_1".to_owned(),
            data: data(due, number),
            cursor: "c".to_owned(),
            create_time: Some(prost_types::Timestamp { seconds: 1, nanos: 2 }),
            ..event::Event::default()
        };
        assert_eq!(data(1, 2).len(), DATA_SIZE);
        assert!(serde_json::from_str::<serde_json::Value>(&data(1, 2)).is_ok());
        let message = SubscribeResponse {
            opened: Some(Opened { resumed: true, ..Opened::default() }),
            events: vec![of(7, 1), of(9_999_999_999, 2)],
            cursor: "abc".to_owned(),
            snapshot_end: true,
            ..SubscribeResponse::default()
        };
        let mut found = Vec::new();
        let bytes = message.encode_to_vec();
        let around = scan(&bytes, |event| found.push(event)).unwrap();
        assert_eq!(around, Around { opened: true, cursor: b"abc", ..Around::default() });
        assert_eq!(found, [Event { due: 7, number: 1 }, Event { due: 9_999_999_999, number: 2 }]);
        assert_eq!(scan(&bytes[..bytes.len() - 1], |_| {}), None);
    }
}
