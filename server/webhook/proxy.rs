//! The way out through an HTTP proxy: a tunnel (CONNECT; RFC 9110, 9.3.6) to an address that the guard permitted.
//!
//! The proxy is asked for an address and never for a name: what was checked is what is connected to, whatever the proxy
//! would find.  TLS and `Host` keep the name.  The proxy itself is the operator's choice, and the guard has no say in
//! it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::{fmt, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{StatusCode, Uri};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::Service;
use url::{Host, Url};

use super::guard::{GuardedResolver, Lookup};
use super::network::CONNECT_TIMEOUT;
use crate::secret::SecretText;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The greatest head of a proxy's answer.
const HEAD_LIMIT: usize = 16 * 1024;
/// How many addresses of a name are tried: the proxy may have no way to some, as where it has no IPv6.
const ADDRESSES: usize = 4;

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// The value of `Proxy-Authorization`; empty for none.
    authorization: SecretText,
}

impl Proxy {
    /// The proxy at a URL such as `http://proxy.example:3128`, with a user name and a password where it wants them
    /// (RFC 7617); `None` for an empty URL.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(url: &str, username: &str, password: &SecretText) -> Result<Option<Self>, String> {
        if url.is_empty() {
            return Ok(None);
        }
        let url = Url::parse(url).map_err(|error| format!("is not a URL with a scheme: {error}"))?;
        if url.scheme() != "http" {
            return Err("must be http: what goes through the tunnel has its own TLS".into());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not carry a user name or password: they have settings of their own".into());
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("must be a host and a port alone".into());
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err("must have a host".into()),
        };
        let port = url.port_or_known_default().unwrap_or(80);
        let authorization = if username.is_empty() && password.reveal().is_empty() {
            SecretText::default()
        } else {
            let pair = SecretText::new(format!("{username}:{}", password.reveal()));
            SecretText::new(format!("Basic {}", STANDARD.encode(pair.reveal())))
        };
        Ok(Some(Self { host, port, authorization }))
    }

    /// The request for a tunnel.
    fn request(&self, destination: SocketAddr) -> SecretText {
        let mut head = format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n");
        if !self.authorization.reveal().is_empty() {
            head = format!("{head}Proxy-Authorization: {}\r\n", self.authorization.reveal());
        }
        SecretText::new(head + "\r\n")
    }
}

/// The proxy does not make the tunnel.
#[derive(Debug)]
pub struct Rejected {
    status: StatusCode,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy refused to connect: it answered {}", self.status)?;
        match self.status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED => {
                f.write_str(" (settings webhook.proxy_username and webhook.proxy_password)")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Rejected {}

/// Makes tunnels through a proxy.
#[derive(Clone)]
pub struct Tunnels {
    proxy: Arc<Proxy>,
    lookup: Arc<dyn Lookup>,
    resolver: GuardedResolver,
}

impl Tunnels {
    /// Tunnels through `proxy`, which `lookup` finds, to what `resolver` answers.
    pub fn new(proxy: Arc<Proxy>, lookup: Arc<dyn Lookup>, resolver: GuardedResolver) -> Self {
        Self { proxy, lookup, resolver }
    }

    /// A connection to the host of `uri`, whose port, and whose host where it is an address, the guard has permitted.
    pub(super) async fn connect(mut self, uri: Uri) -> Result<TokioIo<TcpStream>, BoxError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect_to(&uri)).await {
            Ok(connected) => Ok(TokioIo::new(connected?)),
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the proxy took too long to connect").into())
            }
        }
    }

    async fn connect_to(&mut self, uri: &Uri) -> Result<TcpStream, BoxError> {
        let host = uri.host().unwrap_or_default();
        let default = if uri.scheme() == Some(&http::uri::Scheme::HTTPS) { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let destinations: Vec<SocketAddr> = match literal {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => {
                let found = self.resolver.call(host.parse::<Name>()?).await?;
                found.map(|found| SocketAddr::new(found.ip(), port)).take(ADDRESSES).collect()
            }
        };
        let mut last: BoxError = "the host has no address".into();
        for destination in destinations {
            match self.tunnel(destination).await {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    // What the proxy forbids, or wants a password for, it does for every address.
                    let final_word = error
                        .downcast_ref::<Rejected>()
                        .is_none_or(|rejected| !rejected.status.is_server_error());
                    last = error;
                    if final_word {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    async fn tunnel(&self, destination: SocketAddr) -> Result<TcpStream, BoxError> {
        let mut stream = self.reach().await.map_err(Unreached)?;
        stream.write_all(self.proxy.request(destination).reveal().as_bytes()).await?;
        let status = read_status(&mut stream).await?;
        if status.is_success() { Ok(stream) } else { Err(Rejected { status }.into()) }
    }

    /// A connection to the proxy.
    async fn reach(&self) -> io::Result<TcpStream> {
        let Proxy { host, port, .. } = &*self.proxy;
        let found = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, *port)],
            Err(_) => self.lookup.lookup(host.clone()).await?,
        };
        let addresses: Vec<_> = found.into_iter().map(|found| SocketAddr::new(found.ip(), *port)).collect();
        let stream = TcpStream::connect(&addresses[..]).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// There is no connection to the proxy.
#[derive(Debug)]
struct Unreached(io::Error);

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy can not be reached: {}", self.0)
    }
}

impl std::error::Error for Unreached {}

/// Reads the head of the proxy's answer, and what it says.
async fn read_status(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<StatusCode, BoxError> {
    let mut head = Vec::new();
    loop {
        if let Some(end) = head.windows(4).position(|end| end == b"\r\n\r\n") {
            let status = parse_status(&head)?;
            // Nobody speaks first through a new tunnel: what comes is not from the destination.
            if status.is_success() && head.len() > end + 4 {
                return Err("the proxy sent more than its answer".into());
            }
            return Ok(status);
        }
        if head.len() >= HEAD_LIMIT {
            return Err("the head of the proxy's answer is too long".into());
        }
        let room = (HEAD_LIMIT - head.len()) as u64;
        if (&mut *stream).take(room).read_buf(&mut head).await? == 0 {
            return Err("the proxy closed the connection without an answer".into());
        }
    }
}

/// The status in a status line (RFC 9112, 4).
fn parse_status(head: &[u8]) -> Result<StatusCode, &'static str> {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let (version, rest) = line.split_at_checked(9).unwrap_or_default();
    let known = version == b"HTTP/1.0 " || version == b"HTTP/1.1 ";
    let code = rest.split(|&byte| byte == b' ').next().unwrap_or_default();
    match StatusCode::from_bytes(code) {
        Ok(status) if known => Ok(status),
        _ => Err("the proxy does not speak HTTP"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str) -> Result<Option<Proxy>, String> {
        Proxy::new(url, "", &SecretText::default())
    }

    #[test]
    fn a_proxy_is_a_host_and_a_port() {
        assert_eq!(proxy(""), Ok(None));
        for (url, host, port) in [
            ("http://proxy.example:3128", "proxy.example", 3128),
            ("http://proxy.example/", "proxy.example", 80),
            ("http://10.0.0.1:8080", "10.0.0.1", 8080),
            ("http://[::1]:8080", "::1", 8080),
        ] {
            let proxy = proxy(url).unwrap().unwrap();
            assert_eq!((proxy.host.as_str(), proxy.port), (host, port), "{url}");
        }
        for bad in [
            "proxy.example:3128",
            "https://proxy.example",
            "socks5://proxy.example",
            "http://user:pass@proxy.example",
            "http://proxy.example/path",
            "http://proxy.example/?query",
            "http://",
        ] {
            assert!(proxy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tunnel_is_asked_for_by_address_and_with_the_login() {
        let destination = "[2001:db8::1]:443".parse().unwrap();
        let plain = proxy("http://proxy.example").unwrap().unwrap().request(destination);
        let expected = "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n";
        assert_eq!(plain.reveal(), expected);
        let proxy = Proxy::new("http://proxy.example", "Aladdin", &SecretText::new("open sesame"));
        let with_login = proxy.unwrap().unwrap();
        // The example of RFC 7617.
        let header = "\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n";
        assert!(with_login.request(destination).reveal().ends_with(header));
        assert!(!format!("{with_login:?}").contains("QWxh"));
    }

    async fn status_in(answer: &[u8]) -> Result<StatusCode, String> {
        let mut answer = answer;
        read_status(&mut answer).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_proxys_answer_is_read_within_bounds() {
        for (answer, status) in [
            (&b"HTTP/1.1 200 Connection established\r\n\r\n"[..], 200),
            (b"HTTP/1.0 200\r\nVia: x\r\n\r\n", 200),
            (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 3\r\n\r\nno!", 407),
        ] {
            assert_eq!(status_in(answer).await.map(|status| status.as_u16()), Ok(status));
        }
        let endless = [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"a: b\r\n".repeat(HEAD_LIMIT)].concat();
        for (answer, why) in [
            (&b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n"[..], "more than its answer"),
            (&endless, "too long"),
            (b"HTTP/1.1 200 OK\r\n", "without an answer"),
            (b"", "without an answer"),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not speak HTTP"),
            (b"HTTP/1.1 2000 OK\r\n\r\n", "does not speak HTTP"),
            (b"\r\n\r\n", "does not speak HTTP"),
        ] {
            let error = status_in(answer).await.unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
