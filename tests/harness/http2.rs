//! A peer that speaks HTTP/2 a frame at a time (RFC 9113), and so can say what no client does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

/// The kinds of frames that are used here.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

/// Flags.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A setting: how many bytes of a stream may be sent before the reader gives leave to more.
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// What the server said.
#[derive(Debug, Default)]
pub struct Heard {
    frames: [AtomicUsize; 10],
    ended: AtomicBool,
    /// The code of GOAWAY, and one more; 0 before there was one.
    goodbye: AtomicU32,
}

impl Heard {
    /// How many frames of a kind came.
    pub fn frames(&self, kind: u8) -> usize {
        self.frames[usize::from(kind)].load(Ordering::Relaxed)
    }

    /// Whether the server has ended the connection, or said that it will.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || self.goodbye().is_some()
    }

    /// With which code it said so (RFC 9113, section 7).
    pub fn goodbye(&self) -> Option<u32> {
        self.goodbye.load(Ordering::Relaxed).checked_sub(1)
    }
}

/// A connection.
pub struct Peer {
    writer: OwnedWriteHalf,
    reading: JoinHandle<()>,
    /// What the server said so far.
    pub heard: Arc<Heard>,
}

impl Peer {
    /// Connects, and says these settings.
    pub async fn connect(address: &str, settings: &[(u16, u32)]) -> Self {
        let (reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        let heard = Arc::<Heard>::default();
        let reading = tokio::spawn(listen(reader, Arc::clone(&heard)));
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut payload = Vec::new();
        for (setting, value) in settings {
            payload.extend(setting.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        put_frame(&mut hello, SETTINGS, 0, 0, &payload);
        put_frame(&mut hello, SETTINGS, ACK, 0, b"");
        writer.write_all(&hello).await.unwrap();
        Self { writer, reading, heard }
    }

    /// Sends bytes; answers whether they went out.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.writer.write_all(bytes).await.is_ok()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn listen(mut reader: OwnedReadHalf, heard: Arc<Heard>) {
    let mut payload = Vec::new();
    loop {
        let mut head = [0; 9];
        if reader.read_exact(&mut head).await.is_err() {
            break;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        payload.resize(length, 0);
        if reader.read_exact(&mut payload).await.is_err() {
            break;
        }
        if let Some(count) = heard.frames.get(usize::from(head[3])) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if head[3] == GOAWAY
            && let Some(code) = payload.get(4..8)
        {
            let code = u32::from_be_bytes(code.try_into().unwrap());
            heard.goodbye.store(code + 1, Ordering::Relaxed);
        }
    }
    heard.ended.store(true, Ordering::Relaxed);
}

/// Writes a frame.
pub fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// The header block of a gRPC call, without compression.
pub fn call(path: &str, key: &str) -> Vec<u8> {
    // `:method POST` and `:scheme http` are in the static table of HPACK (RFC 7541, appendix A).
    let mut block = vec![0x83, 0x86];
    put_header(&mut block, ":path", path);
    put_header(&mut block, ":authority", "localhost");
    put_header(&mut block, "content-type", "application/grpc");
    put_header(&mut block, "te", "trailers");
    put_header(&mut block, "x-api-key", key);
    block
}

/// Writes a header that is not to be remembered.
pub fn put_header(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    put_text(block, name);
    put_text(block, value);
}

/// Writes a header that is to be remembered: it is number 62 from then on.
pub fn put_remembered_header(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0x40);
    put_text(block, name);
    put_text(block, value);
}

fn put_text(block: &mut Vec<u8>, text: &str) {
    // A number of seven bits, and more when it does not fit (RFC 7541, section 5.1).
    match text.len().checked_sub(127) {
        None => block.push(u8::try_from(text.len()).unwrap()),
        Some(mut rest) => {
            block.push(127);
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap());
        }
    }
    block.extend(text.as_bytes());
}
