//! Distance: a TCP relay that hands on every byte a fixed time after it came, in order, as a long line would.
//!
//! Nothing is throttled: any number of bytes are under way. Threads rather than tasks, because the runtime's timers are
//! a millisecond coarse, which would be a tenth of the delay. A relay can not delay the opening of a connection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Context, Result};

/// The most that is taken from a connection at once.
const CHUNK: usize = 64 * 1_024;

/// A relay before a server on loopback. Dropping it ends its connections.
pub struct DelayLine {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl DelayLine {
    /// Listens on a free port, and relays to `port` with this delay each way.
    pub fn start(port: u16, delay: Duration) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the delay line's port")?;
        let own = listener.local_addr().context("the delay line's port")?.port();
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || {
            for client in listener.incoming() {
                if for_thread.ended.load(Ordering::Acquire) {
                    return;
                }
                // An error concerns one connection, and whoever made it notices.
                let _ = client.and_then(|client| relay(client, port, delay, &for_thread));
            }
        });
        Ok(Self { port: own, shared, accepting: Some(accepting) })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // Wakes the one who accepts; it ends then, whoever connected.
        let woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let (Ok(_), Some(accepting)) = (woken, self.accepting.take()) {
            let _ = accepting.join();
        }
        for connection in lock(&self.shared.connections).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Relays one connection, both ways, until either end closes it.
fn relay(client: TcpStream, port: u16, delay: Duration, shared: &Shared) -> std::io::Result<()> {
    let server = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    for (from, to) in [(&client, &server), (&server, &client)] {
        from.set_nodelay(true)?;
        let (line, end) = channel();
        let (reading, writing) = (from.try_clone()?, to.try_clone()?);
        std::thread::spawn(move || enter(reading, &line, delay));
        std::thread::spawn(move || leave(writing, &end));
    }
    lock(&shared.connections).extend([client, server]);
    Ok(())
}

/// Puts what comes on the line, with the moment at which it is due at the other end.
fn enter(mut from: impl Read, line: &Sender<(Instant, Vec<u8>)>, delay: Duration) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        if line.send((Instant::now() + delay, chunk[..length].to_vec())).is_err() {
            return;
        }
    }
}

/// Takes it off the line when it is due; closes the connection behind the last of it.
fn leave(mut to: TcpStream, line: &Receiver<(Instant, Vec<u8>)>) {
    for (due, bytes) in line {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_in_order_and_many_are_under_way() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let delay = Duration::from_millis(200);
        let line = DelayLine::start(server.local_addr().unwrap().port(), delay).unwrap();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, line.port())).unwrap();
        client.set_nodelay(true).unwrap();
        let (mut peer, _) = server.accept().unwrap();

        let begin = Instant::now();
        let sent: Vec<u8> = (0..50).collect();
        for byte in &sent {
            client.write_all(&[*byte]).unwrap();
        }
        let mut came = vec![0; sent.len()];
        peer.read_exact(&mut came[..1]).unwrap();
        assert!(begin.elapsed() >= delay);
        peer.read_exact(&mut came[1..]).unwrap();
        assert_eq!(came, sent);
        // One after the other they would have taken ten seconds.
        assert!(begin.elapsed() < delay * 25, "{:?}", begin.elapsed());

        peer.write_all(b"back").unwrap();
        let mut back = [0; 4];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"back");
        assert!(begin.elapsed() >= delay * 2);

        drop(line);
        assert_eq!(client.read(&mut back).unwrap_or(0), 0);
    }
}
