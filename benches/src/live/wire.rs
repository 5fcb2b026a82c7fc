//! As much of HTTP/2 as a subscriber needs (RFC 9113), written and read by hand.
//!
//! A library would keep a state for each stream and wake a task for each frame, and the load would take more of the
//! machine than the server that it is to measure.  Response headers are not read: a stream that is refused ends with
//! them, and that is all that counts here.

/// The octets of a frame's head.
pub const HEAD: usize = 9;
/// Frame types (section 6).
pub const DATA: u8 = 0;
/// Request and response heads, and trailers.
pub const HEADERS: u8 = 1;
/// The end of a stream before its time.
pub const RST_STREAM: u8 = 3;
/// What each side may do.
pub const SETTINGS: u8 = 4;
/// A question for a sign of life.
pub const PING: u8 = 6;
/// The other side will take no more streams.
pub const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// The last frame of its sender on this stream.
pub const END_STREAM: u8 = 1;
/// The answer to SETTINGS and PING.
pub const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// Padding in front of and behind the data. The server sends none.
pub const PADDED: u8 = 8;

/// What may be under way to one stream before it says that it has read: what HTTP/2 begins with.
pub const STREAM_WINDOW: u32 = 65_535;
/// The most that a window may be.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// How much of a connection's window may be used before it is opened again.
pub const CONNECTION_CREDIT: u32 = 1 << 30;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const ENABLE_PUSH: u16 = 2;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many octets follow.
    pub length: usize,
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
}

impl Head {
    /// Reads a head; `None` when it is not there yet.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, rest @ ..] = bytes.get(..HEAD)? else { return None };
        let stream = u32::from_be_bytes(rest.try_into().ok()?) & LARGEST_WINDOW;
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        Some(Self { length, kind: *kind, flags: *flags, stream })
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.length as u32).to_be_bytes()[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    Head { length: payload.len(), kind, flags, stream }.write(out);
    out.extend_from_slice(payload);
}

/// What a connection begins with: windows of the usual size for the streams, and one for all of them that is never full.
pub fn greeting(out: &mut Vec<u8>) {
    out.extend_from_slice(PREFACE);
    let mut settings = ENABLE_PUSH.to_be_bytes().to_vec();
    settings.extend_from_slice(&0_u32.to_be_bytes());
    frame(out, SETTINGS, 0, 0, &settings);
    window_update(out, 0, LARGEST_WINDOW - STREAM_WINDOW);
}

/// Takes so many octets more.
pub fn window_update(out: &mut Vec<u8>, stream: u32, octets: u32) {
    frame(out, WINDOW_UPDATE, 0, stream, &octets.to_be_bytes());
}

/// Answers SETTINGS, or PING with what it brought.
pub fn acknowledge(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    frame(out, kind, ACK, 0, payload);
}

/// A gRPC request with one message.
pub fn request(out: &mut Vec<u8>, stream: u32, authority: &str, path: &str, key: &str, message: &[u8]) {
    // Indexed names of HPACK's static table (RFC 7541, appendix A); nothing is compressed or remembered.
    let mut block = vec![0x83, 0x86];
    literal(&mut block, &[0x04], path);
    literal(&mut block, &[0x01], authority);
    literal(&mut block, &[0x0f, 0x10], "application/grpc");
    for (name, value) in [("te", "trailers"), ("x-api-key", key)] {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    frame(out, HEADERS, END_HEADERS, stream, &block);
    let mut body = vec![0];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(message);
    frame(out, DATA, END_STREAM, stream, &body);
}

fn literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    block.extend_from_slice(name);
    text(block, value);
}

/// Text without Huffman's code; the length has seven bits of its first octet.
fn text(block: &mut Vec<u8>, text: &str) {
    match text.len() {
        short @ 0..127 => block.push(short as u8),
        long => {
            block.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                block.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            block.push(rest as u8);
        }
    }
    block.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_as_it_was_written() {
        let head = Head { length: 70_000, kind: DATA, flags: END_STREAM, stream: 4_711 };
        let mut bytes = Vec::new();
        head.write(&mut bytes);
        assert_eq!(Head::read(&bytes), Some(head));
        assert_eq!(Head::read(&bytes[..8]), None);
    }
}
