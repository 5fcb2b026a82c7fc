//! Webhook receivers that mean harm: real sockets on loopback that answer as no honest server would.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::tools;

/// Where a guard that allows only 127.0.0.1 must not connect to.
pub const FORBIDDEN: [u8; 4] = [127, 0, 0, 2];
/// Names below this one are for the rebinding attack.
pub const REBINDING: &str = ".rebind.example";
const HUGE: u64 = 10_000_000_000;
const PAUSE: Duration = Duration::from_secs(1);

/// What is done to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attack {
    /// The head of the answer comes a line a second.
    SlowHead,
    /// The body comes a byte a second.
    SlowBody,
    /// The body has 10 GB.
    HugeBody,
    /// The head never ends.
    EndlessHeaders,
    /// The chunks of the body never end.
    EndlessChunks,
    /// The body is small until it is decompressed.
    GzipBomb,
    /// The answer sends the client to a metadata address, or to one that it may not connect to.
    Redirect,
    /// The name leads to an allowed address at first, and to a forbidden one ever after.
    Rebinding,
    /// The connection is reset as soon as it is accepted.
    Reset,
    /// The connection is accepted, and the handshake never answered.
    TlsStall,
    /// Interim answers never end.
    EndlessInterim,
    /// The trailers after the body never end.
    EndlessTrailers,
}

impl Attack {
    /// The ten kinds that a server has to bear in numbers.
    pub const KINDS: [Attack; 10] = [
        Self::SlowHead,
        Self::SlowBody,
        Self::HugeBody,
        Self::EndlessHeaders,
        Self::EndlessChunks,
        Self::GzipBomb,
        Self::Redirect,
        Self::Rebinding,
        Self::Reset,
        Self::TlsStall,
    ];

    const PATHS: [(&str, Attack); 10] = [
        ("/slow-head", Self::SlowHead),
        ("/slow-body", Self::SlowBody),
        ("/huge-body", Self::HugeBody),
        ("/endless-headers", Self::EndlessHeaders),
        ("/endless-chunks", Self::EndlessChunks),
        ("/gzip-bomb", Self::GzipBomb),
        ("/redirect", Self::Redirect),
        ("/rebinding", Self::Rebinding),
        ("/endless-interim", Self::EndlessInterim),
        ("/endless-trailers", Self::EndlessTrailers),
    ];

    fn path(self) -> &'static str {
        Self::PATHS.iter().find(|(_, attack)| *attack == self).map_or("/", |(path, _)| path)
    }
}

#[derive(Default)]
struct Shared {
    bomb: Bytes,
    /// The most bytes that one connection took, by the attack.
    taken: Mutex<HashMap<Attack, u64>>,
    connections: Mutex<HashMap<&'static str, usize>>,
}

impl Shared {
    fn count(&self, listener: &'static str) {
        *self.connections.lock().expect("no panic holds it").entry(listener).or_default() += 1;
    }
}

/// Hostile receivers of every kind; they are gone when this is dropped.
pub struct HostileHttp {
    address: SocketAddr,
    resetting: SocketAddr,
    shared: Arc<Shared>,
    accepting: Vec<AbortHandle>,
}

impl HostileHttp {
    /// Listens on free ports of 127.0.0.1, and on one of them at the forbidden address too.
    pub async fn start() -> Self {
        let zip = tools::run("sh", ["-c", "head -c 50000000 /dev/zero | gzip -9 | base64 -w 0"], b"").await;
        let bomb = base64_decoded(zip.expect_success().trim());
        let shared = Arc::new(Shared { bomb: bomb.into(), ..Shared::default() });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let resets = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let resetting = resets.local_addr().expect("a bound listener has an address");
        let forbidden = SocketAddr::from((FORBIDDEN, address.port()));
        let forbidden = TcpListener::bind(forbidden).await.expect("all of 127.0.0.0/8 is loopback");
        let accepting = vec![
            tokio::spawn(accept(listener, "open", Arc::clone(&shared))).abort_handle(),
            tokio::spawn(accept(resets, "resetting", Arc::clone(&shared))).abort_handle(),
            tokio::spawn(accept(forbidden, "forbidden", Arc::clone(&shared))).abort_handle(),
        ];
        Self { address, resetting, shared, accepting }
    }

    /// The URL of a victim's endpoint.
    pub fn url(&self, attack: Attack, number: usize) -> String {
        let Self { address, resetting, .. } = self;
        match attack {
            Attack::TlsStall => format!("https://{address}/{number}"),
            Attack::Reset => format!("http://{resetting}/{number}"),
            Attack::Rebinding => {
                format!("http://r{number}{REBINDING}:{}{}/{number}", address.port(), attack.path())
            }
            _ => format!("http://{address}{}/{number}", attack.path()),
        }
    }

    /// How many connections were made to where none must be made.
    pub fn forbidden_connections(&self) -> usize {
        self.connections("forbidden")
    }

    /// How many connections were made to the others.
    pub fn connections_in_all(&self) -> usize {
        self.connections("open") + self.connections("resetting")
    }

    fn connections(&self, listener: &str) -> usize {
        self.shared.connections.lock().expect("no panic holds it").get(listener).copied().unwrap_or_default()
    }

    /// The most bytes that a client took from one connection of this attack, with what the system held for it.
    pub fn most_taken(&self, attack: Attack) -> u64 {
        self.shared.taken.lock().expect("no panic holds it").get(&attack).copied().unwrap_or_default()
    }

    /// The size of the gzip bomb as it is sent.
    pub fn bomb_size(&self) -> usize {
        self.shared.bomb.len()
    }
}

impl Drop for HostileHttp {
    fn drop(&mut self) {
        for accepting in &self.accepting {
            accepting.abort();
        }
    }
}

fn base64_decoded(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).expect("the tool writes base64")
}

async fn accept(listener: TcpListener, name: &'static str, shared: Arc<Shared>) {
    // Owned here, so that ending this task cuts its connections.
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
            Some(_) = connections.join_next() => continue,
        };
        shared.count(name);
        if name == "resetting" {
            // Closing it says RST instead of FIN then.
            let _ = stream.set_zero_linger();
            continue;
        }
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // The victim's going away is how most of them end.
            let _ = attack(stream, &shared).await;
        });
    }
}

async fn attack(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut connection = Connection { stream, sent: 0 };
    let Some((attack, number)) = connection.request().await? else {
        // A handshake: it is never answered.
        return std::future::pending().await;
    };
    let result = connection.answer(attack, number, shared).await;
    let mut taken = shared.taken.lock().expect("no panic holds it");
    let most = taken.entry(attack).or_default();
    *most = connection.sent.max(*most);
    drop(taken);
    result
}

struct Connection {
    stream: TcpStream,
    sent: u64,
}

impl Connection {
    /// Reads a request with its body; `None` when it is no HTTP.
    async fn request(&mut self) -> io::Result<Option<(Attack, usize)>> {
        let mut read = Vec::new();
        loop {
            if self.stream.read_buf(&mut read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if read[0] == 0x16 {
                return Ok(None);
            }
            let Some(head) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or_default();
            if read.len() >= head + 4 + length {
                let path = text.split(' ').nth(1).unwrap_or_default();
                let (path, number) = path.rsplit_once('/').unwrap_or_default();
                let found = Attack::PATHS.iter().find(|(known, _)| *known == path);
                let (_, attack) = found.ok_or(io::ErrorKind::InvalidInput)?;
                return Ok(Some((*attack, number.parse().unwrap_or_default())));
            }
        }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let mut rest = bytes.as_ref();
        while !rest.is_empty() {
            let sent = self.stream.write(rest).await?;
            self.sent += sent as u64;
            rest = &rest[sent..];
        }
        Ok(())
    }

    async fn send_without_end(&mut self, piece: &str) -> io::Result<()> {
        let block = piece.repeat((64 * 1024 / piece.len()).max(1));
        while self.sent < HUGE {
            self.send(&block).await?;
        }
        Ok(())
    }

    /// Sends a piece a second, until the victim has gone.
    async fn drip(&mut self, piece: &str) -> io::Result<()> {
        loop {
            self.send(piece).await?;
            let mut nothing = [0];
            let gone = tokio::time::timeout(PAUSE, self.stream.read(&mut nothing)).await;
            if gone.is_ok() {
                return Ok(());
            }
        }
    }

    async fn answer(&mut self, attack: Attack, number: usize, shared: &Shared) -> io::Result<()> {
        match attack {
            Attack::SlowHead => {
                self.send("HTTP/1.1 200 OK\r\n").await?;
                self.drip("x-more: 1\r\n").await
            }
            Attack::SlowBody => {
                self.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await?;
                self.drip("x").await
            }
            Attack::HugeBody => {
                self.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {HUGE}\r\n\r\n")).await?;
                self.send_without_end("x").await
            }
            Attack::EndlessHeaders => {
                self.send("HTTP/1.1 200 OK\r\n").await?;
                self.send_without_end("x-more: and more\r\n").await
            }
            Attack::EndlessChunks => {
                self.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
                self.send_without_end(&format!("40\r\n{}\r\n", "x".repeat(64))).await
            }
            Attack::GzipBomb => {
                let length = shared.bomb.len();
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-encoding: gzip\r\n";
                self.send(format!("{head}content-length: {length}\r\n\r\n")).await?;
                self.send(&shared.bomb).await
            }
            Attack::Redirect => {
                let port = self.stream.local_addr()?.port();
                let [a, b, c, d] = FORBIDDEN;
                let target = match number % 2 {
                    0 => "http://169.254.169.254/latest/meta-data/".to_owned(),
                    _ => format!("http://{a}.{b}.{c}.{d}:{port}/"),
                };
                let status = ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"][number / 2 % 4];
                let head = format!("HTTP/1.1 {status}\r\nlocation: {target}\r\n");
                self.send(format!("{head}connection: close\r\ncontent-length: 0\r\n\r\n")).await
            }
            Attack::Rebinding => {
                self.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await
            }
            Attack::EndlessInterim => self.send_without_end("HTTP/1.1 103 Early Hints\r\n\r\n").await,
            Attack::EndlessTrailers => {
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
                self.send(head).await?;
                self.send_without_end("x-more: and more\r\n").await
            }
            Attack::Reset | Attack::TlsStall => unreachable!("they have no path"),
        }
    }
}
