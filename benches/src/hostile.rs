//! Receivers of webhooks that mean harm, on a thread of their own: they answer as no honest server would.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::error::{Context, Result};

/// Ten gigabytes: more than anybody waits for.
const HUGE: usize = 10_000_000_000;
const PAUSE: Duration = Duration::from_secs(1);
/// 50 MB of nothing.
const BOMB: &str = "head -c 50000000 /dev/zero | gzip -9";

/// What is done to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
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
    /// The answer sends the server to a metadata address, or to a trap.
    Redirect,
    /// The connection is reset as soon as it is accepted.
    Reset,
    /// The connection is accepted, and the handshake never answered.
    TlsStall,
}

const KINDS: [Attack; 9] = [
    Attack::SlowHead,
    Attack::SlowBody,
    Attack::HugeBody,
    Attack::EndlessHeaders,
    Attack::EndlessChunks,
    Attack::GzipBomb,
    Attack::Redirect,
    Attack::Reset,
    Attack::TlsStall,
];

#[derive(Default)]
struct Shared {
    bomb: Vec<u8>,
    trap: String,
    connections: AtomicUsize,
    trapped: AtomicUsize,
}

/// The receivers. Dropping them cuts all their connections.
pub struct Hostile {
    open: SocketAddr,
    resetting: SocketAddr,
    shared: Arc<Shared>,
    // Ends the thread by being dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Hostile {
    /// Listens on free ports of loopback.
    pub fn start() -> Result<Self> {
        let bomb = Command::new("sh").args(["-c", BOMB]).stdin(Stdio::null()).output().context("gzip")?;
        let (open, resetting, trap) = (listener()?, listener()?, listener()?);
        let address = |listener: &std::net::TcpListener| listener.local_addr().context("a port");
        let trap_url = format!("http://{}/", address(&trap)?);
        let shared = Arc::new(Shared { bomb: bomb.stdout, trap: trap_url, ..Shared::default() });
        let addresses = (address(&open)?, address(&resetting)?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the runtime of the hostile receivers")?;
        let (stop, stopped) = oneshot::channel();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("hostile".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = accept_all(open, resetting, trap, for_thread) => {}
                    _ = stopped => {}
                }
            });
        });
        let thread = thread.context("the thread of the hostile receivers")?;
        Ok(Self { open: addresses.0, resetting: addresses.1, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// The URL of an endpoint; they take turns with what they do.
    pub fn url(&self, number: usize) -> String {
        let kind = number % KINDS.len();
        match KINDS[kind] {
            Attack::TlsStall => format!("https://{}/{number}", self.open),
            Attack::Reset => format!("http://{}/{number}", self.resetting),
            _ => format!("http://{}/{kind}/{number}", self.open),
        }
    }

    /// How many connections were made to them.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many connections were made to where a redirect leads.
    pub fn trapped(&self) -> usize {
        self.shared.trapped.load(Ordering::Relaxed)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listener() -> Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("a hostile port")?;
    listener.set_nonblocking(true).context("a hostile port")?;
    Ok(listener)
}

async fn accept_all(
    open: std::net::TcpListener,
    resetting: std::net::TcpListener,
    trap: std::net::TcpListener,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let (open, resetting) = (TcpListener::from_std(open)?, TcpListener::from_std(resetting)?);
    let trap = TcpListener::from_std(trap)?;
    loop {
        // An error concerns one connection, and whoever made it notices.
        tokio::select! {
            Ok((stream, _)) = open.accept() => {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                // The server's going away is how most of them end.
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { attack(stream, &shared).await });
            }
            Ok((stream, _)) = resetting.accept() => {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                // Closing it says RST instead of FIN then.
                let _ = stream.set_zero_linger();
            }
            Ok(_) = trap.accept() => {
                shared.trapped.fetch_add(1, Ordering::Relaxed);
            }
            else => tokio::task::yield_now().await,
        }
    }
}

async fn attack(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    match request(&mut stream).await? {
        Some((attack, number)) => answer(&mut stream, attack, number, shared).await,
        // A handshake: it is never answered.
        None => std::future::pending().await,
    }
}

/// Reads the request; `None` when it is no HTTP.
async fn request(stream: &mut TcpStream) -> io::Result<Option<(Attack, usize)>> {
    let mut read = Vec::new();
    loop {
        if stream.read_buf(&mut read).await? == 0 {
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
            return wanted(&text).map(Some).ok_or_else(|| io::ErrorKind::InvalidInput.into());
        }
    }
}

/// What the path of a request asks for.
fn wanted(head: &str) -> Option<(Attack, usize)> {
    let (kind, number) = head.split(' ').nth(1)?.trim_start_matches('/').split_once('/')?;
    Some((*KINDS.get(kind.parse::<usize>().ok()?)?, number.parse().ok()?))
}

async fn answer(stream: &mut TcpStream, attack: Attack, number: usize, shared: &Shared) -> io::Result<()> {
    let ok = "HTTP/1.1 200 OK\r\n";
    match attack {
        Attack::SlowHead => drip(stream, ok, "x-more: 1\r\n").await,
        Attack::SlowBody => drip(stream, &format!("{ok}content-length: 1000000\r\n\r\n"), "x").await,
        Attack::HugeBody => without_end(stream, &format!("{ok}content-length: {HUGE}\r\n\r\n"), "x").await,
        Attack::EndlessHeaders => without_end(stream, ok, "x-more: and more\r\n").await,
        Attack::EndlessChunks => {
            let chunk = format!("40\r\n{}\r\n", "x".repeat(64));
            without_end(stream, &format!("{ok}transfer-encoding: chunked\r\n\r\n"), &chunk).await
        }
        Attack::GzipBomb => {
            let length = shared.bomb.len();
            let head = format!("{ok}connection: close\r\ncontent-encoding: gzip\r\n");
            stream.write_all(format!("{head}content-length: {length}\r\n\r\n").as_bytes()).await?;
            stream.write_all(&shared.bomb).await
        }
        Attack::Redirect => {
            let metadata = "http://169.254.169.254/latest/meta-data/";
            let target = if number.is_multiple_of(2) { metadata } else { &shared.trap };
            let head = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {target}\r\n");
            stream.write_all(format!("{head}connection: close\r\ncontent-length: 0\r\n\r\n").as_bytes()).await
        }
        // They have no path of their own.
        Attack::Reset | Attack::TlsStall => Ok(()),
    }
}

/// Sends the head, and a piece a second until the server has gone.
async fn drip(stream: &mut TcpStream, head: &str, piece: &str) -> io::Result<()> {
    stream.write_all(head.as_bytes()).await?;
    let mut nothing = [0];
    while tokio::time::timeout(PAUSE, stream.read(&mut nothing)).await.is_err() {
        stream.write_all(piece.as_bytes()).await?;
    }
    Ok(())
}

/// Sends the head, and pieces for as long as the server takes them.
async fn without_end(stream: &mut TcpStream, head: &str, piece: &str) -> io::Result<()> {
    stream.write_all(head.as_bytes()).await?;
    let block = piece.repeat(64 * 1024 / piece.len());
    for _ in 0..HUGE / block.len() {
        stream.write_all(block.as_bytes()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_it_wants() {
        assert_eq!(wanted("post /6/33 http/1.1\r\nhost: a"), Some((Attack::Redirect, 33)));
        assert_eq!(wanted("post /9/33 http/1.1"), None);
        assert_eq!(wanted("post / http/1.1"), None);
    }
}
