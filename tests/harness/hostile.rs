//! An SMTP server that misbehaves as a test tells it to, and writes down what it got.
#![allow(dead_code, reason = "a shared harness offers more than each test uses")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::tools::{run, tool};

/// How often a tarpit sends a byte.
const DRIP: Duration = Duration::from_millis(100);

/// How it misbehaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Not at all.
    Healthy,
    /// Accepts the connection and says nothing.
    NoGreeting,
    /// Greets a byte at a time, without end.
    Tarpit,
    /// Greets with this line and closes.
    Greets(&'static str),
    /// Does not answer EHLO.
    HangAfterEhlo,
    /// Does not answer DATA.
    HangInData,
    /// Does not answer the dot.
    HangAfterDot,
    /// Does not answer the dot of mails from this sender.
    HangFor(&'static str),
    /// Answers EHLO with lines without end.
    EndlessLines,
    /// Answers EHLO with one line without end.
    EndlessLine,
    /// Agrees to STARTTLS and goes on with anything but TLS.
    GarbageAfterStartTls,
    /// Agrees to STARTTLS, and has another answer behind it already.
    InjectAfterStartTls,
    /// Answers MAIL with this.
    RefuseMail(&'static str),
    /// Answers RCPT with this.
    RefuseRecipients(&'static str),
    /// Answers the dot with this.
    RefuseContent(&'static str),
    /// Closes instead of answering MAIL after so many mails, having said 421 or not.
    DropAfter(usize, bool),
    /// Closes instead of answering the dot.
    DropAfterDot,
    /// Closes when so many bytes of content came.
    DropInContent(usize),
}

/// What it is like.
#[derive(Clone)]
pub struct Script {
    /// How it misbehaves.
    pub kind: Kind,
    /// Whether it knows PIPELINING.
    pub pipelining: bool,
    /// Whether it takes DATA although nobody is to get the mail.
    pub data_for_nobody: bool,
    /// How long each group of answers is under way.
    pub delay: Duration,
    /// What it says to RCPT of these addresses.
    pub recipients: HashMap<&'static str, &'static str>,
    /// Further lines of its answer to EHLO.
    pub extensions: Vec<&'static str>,
    /// The logins that it takes, as they are in AUTH lines (`PLAIN …`); without any it wants none.
    pub logins: Vec<String>,
    /// What it says to other logins.
    pub bad_login: &'static str,
    /// Its certificate.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether TLS begins with the first byte.
    pub implicit: bool,
}

impl Script {
    /// A server that only misbehaves in this way.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            pipelining: true,
            data_for_nobody: false,
            delay: Duration::ZERO,
            recipients: HashMap::new(),
            extensions: Vec::new(),
            logins: Vec::new(),
            bad_login: "535 5.7.8 Username and Password not accepted",
            tls: None,
            implicit: false,
        }
    }
}

/// A mail that it has taken, or has all of.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The arguments of MAIL.
    pub from: String,
    /// The accepted recipients.
    pub to: Vec<String>,
    /// The content, dots undone.
    pub content: Vec<u8>,
    /// Which connection brought it; the first is 1.
    pub connection: usize,
}

impl Taken {
    /// The Message-ID.
    pub fn id(&self) -> String {
        let text = String::from_utf8_lossy(&self.content);
        let line = text.lines().find_map(|line| line.strip_prefix("Message-ID: "));
        line.unwrap_or_default().to_owned()
    }
}

/// What it saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Connections so far.
    pub connections: usize,
    /// Connections that are open, and the most that were.
    pub open: usize,
    /// The most that were open at once.
    pub most_open: usize,
    /// Every command, in order.
    pub commands: Vec<String>,
    /// Every mail whose dot came.
    pub mails: Vec<Taken>,
    /// Bare CR or LF that came.
    pub bare: usize,
    /// How often it had to read: the client's groups, more or less.
    pub reads: usize,
    /// How many bytes it got rid of.
    pub said: usize,
}

impl Seen {
    /// The Message-IDs that came more than once.
    pub fn duplicates(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.mails.iter().map(Taken::id).collect();
        ids.sort();
        let mut twice: Vec<String> =
            ids.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0].clone()).collect();
        twice.dedup();
        twice
    }
}

struct Shared {
    script: Mutex<Script>,
    seen: Mutex<Seen>,
}

impl Shared {
    fn script(&self) -> Script {
        self.script.lock().expect("no panic holds the script").clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic holds what was seen")
    }
}

/// A server that listens until it is dropped; its connections are cut then.
pub struct Hostile {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Hostile {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared { script: Mutex::new(script), seen: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self { address, shared, accepting }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes how it misbehaves, for connections and commands to come.
    pub fn becomes(&self, kind: Kind) {
        self.shared.script.lock().expect("no panic holds the script").kind = kind;
    }

    /// What it saw so far.
    pub fn seen(&self) -> Seen {
        self.shared.seen().clone()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((tcp, _)) = accepted else { continue };
                tcp.set_nodelay(true).expect("a TCP socket takes this option");
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let number = {
                        let mut seen = shared.seen();
                        seen.connections += 1;
                        seen.open += 1;
                        seen.most_open = seen.most_open.max(seen.open);
                        seen.connections
                    };
                    // How a connection ends is the client's affair.
                    let _ = serve(tcp, number, &shared).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

trait Link: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Link for T {}

async fn serve(tcp: TcpStream, number: usize, shared: &Shared) -> std::io::Result<()> {
    let script = shared.script();
    let mut peer = Peer { number, shared, buffer: Vec::new(), mails: 0, last: 0, left: false };
    if script.implicit {
        let config = script.tls.expect("implicit TLS needs a certificate");
        let mut tls: Box<dyn Link> = Box::new(TlsAcceptor::from(config).accept(tcp).await?);
        return peer.talk(&mut tls, true).await.map(drop);
    }
    let mut tcp = tcp;
    let upgrade = {
        let mut plain: Box<dyn Link + '_> = Box::new(&mut tcp);
        peer.talk(&mut plain, true).await?
    };
    match (upgrade, script.tls) {
        (true, Some(config)) => {
            let mut tls: Box<dyn Link> = Box::new(TlsAcceptor::from(config).accept(tcp).await?);
            peer.buffer.clear();
            peer.talk(&mut tls, false).await.map(drop)
        }
        _ => Ok(()),
    }
}

struct Peer<'a> {
    number: usize,
    shared: &'a Shared,
    buffer: Vec<u8>,
    mails: usize,
    last: u8,
    /// Whether the client took leave.
    left: bool,
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        if !self.left {
            self.shared.seen().open -= 1;
        }
    }
}

impl Peer<'_> {
    async fn say(&self, link: &mut Box<dyn Link + '_>, words: &[u8]) -> std::io::Result<()> {
        link.write_all(words).await?;
        link.flush().await?;
        self.shared.seen().said += words.len();
        Ok(())
    }

    async fn hang(&self, link: &mut Box<dyn Link + '_>) -> std::io::Result<bool> {
        // Until the client goes.
        let mut rest = [0; 1024];
        while link.read(&mut rest).await? > 0 {}
        Ok(false)
    }

    async fn endless(&self, link: &mut Box<dyn Link + '_>, words: &[u8]) -> std::io::Result<bool> {
        loop {
            self.say(link, words).await?;
        }
    }

    /// Reads more; `false` when the client is gone.
    async fn fill(&mut self, link: &mut Box<dyn Link + '_>) -> std::io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        let read = link.read(&mut chunk).await?;
        let mut seen = self.shared.seen();
        seen.reads += 1;
        for byte in &chunk[..read] {
            seen.bare += usize::from((*byte == b'\n') != (self.last == b'\r'));
            self.last = *byte;
        }
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read > 0)
    }

    /// Talks until one of both goes; `true` when TLS is to begin.
    async fn talk(&mut self, link: &mut Box<dyn Link + '_>, greets: bool) -> std::io::Result<bool> {
        let script = self.shared.script();
        if greets {
            match &script.kind {
                Kind::NoGreeting => return self.hang(link).await,
                Kind::Tarpit => loop {
                    self.say(link, b"220-").await?;
                    for _ in 0..1000 {
                        tokio::time::sleep(DRIP).await;
                        self.say(link, b"x").await?;
                    }
                    self.say(link, b"\r\n").await?;
                },
                Kind::Greets(line) => {
                    self.say(link, format!("{line}\r\n").as_bytes()).await?;
                    return Ok(false);
                }
                _ => self.say(link, b"220 hostile.example.com ESMTP\r\n").await?,
            }
        }
        let mut out = Vec::new();
        let mut envelope = Envelope::default();
        let mut secret = None;
        loop {
            let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") else {
                if !out.is_empty() {
                    tokio::time::sleep(script.delay).await;
                    self.say(link, &out).await?;
                    out.clear();
                }
                if !self.fill(link).await? {
                    return Ok(false);
                }
                continue;
            };
            let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            self.buffer.drain(..end + 2);
            self.shared.seen().commands.push(line.clone());
            let script = self.shared.script();
            let upper = line.to_ascii_uppercase();
            let verb = upper.split([' ', ':']).next().unwrap_or_default();
            let mut answer = |words: &str| out.extend_from_slice(format!("{words}\r\n").as_bytes());
            if let Some(login) = secret.take() {
                match script.logins.contains(&format!("{login} {line}")) {
                    true => answer("235 2.7.0 Welcome"),
                    false => answer(script.bad_login),
                }
                continue;
            }
            match verb {
                "EHLO" => match script.kind {
                    Kind::HangAfterEhlo => return self.hang(link).await,
                    Kind::EndlessLines => return self.endless(link, b"250-AND SO ON\r\n").await,
                    Kind::EndlessLine => return self.endless(link, &[b'2'; 1000]).await,
                    _ => {
                        answer("250-hostile.example.com");
                        if script.pipelining {
                            answer("250-PIPELINING");
                        }
                        let garbles =
                            matches!(script.kind, Kind::GarbageAfterStartTls | Kind::InjectAfterStartTls);
                        if (script.tls.is_some() && !script.implicit && greets) || garbles {
                            answer("250-STARTTLS");
                        }
                        script.extensions.iter().for_each(|line| answer(&format!("250-{line}")));
                        answer("250 ENHANCEDSTATUSCODES");
                    }
                },
                "STARTTLS" => match script.kind {
                    Kind::GarbageAfterStartTls => {
                        self.say(link, b"220 go\r\n").await?;
                        self.fill(link).await?;
                        self.say(link, b"this is no TLS at all, is it\r\n").await?;
                        return self.hang(link).await;
                    }
                    Kind::InjectAfterStartTls => {
                        self.say(link, b"220 go\r\n250-injected\r\n250 AUTH PLAIN\r\n").await?;
                        return self.hang(link).await;
                    }
                    _ => {
                        self.say(link, b"220 2.0.0 Go ahead\r\n").await?;
                        return Ok(true);
                    }
                },
                "AUTH" => {
                    let login = line.split_once(' ').map_or("", |(_, login)| login);
                    if script.logins.iter().any(|own| own == login) {
                        answer("235 2.7.0 Welcome");
                    } else if login.starts_with("XOAUTH2 ") {
                        // {"status":"401"}
                        answer("334 eyJzdGF0dXMiOiI0MDEifQ==");
                        secret = Some("no such login".to_owned());
                    } else if login == "LOGIN" {
                        answer("334 VXNlcm5hbWU6");
                        secret = None;
                        envelope.login = Some(String::new());
                    } else {
                        answer(script.bad_login);
                    }
                }
                "MAIL" => match script.kind {
                    Kind::DropAfter(mails, farewell) if self.mails >= mails => {
                        if farewell {
                            answer("421 4.7.0 Enough for now");
                        }
                        self.say(link, &out).await?;
                        return Ok(false);
                    }
                    Kind::RefuseMail(words) => answer(words),
                    _ if envelope.mailed => answer("503 5.5.1 Nested MAIL"),
                    _ => {
                        envelope =
                            Envelope { mailed: true, from: line[10..].to_owned(), ..Envelope::default() };
                        answer("250 2.1.0 Ok");
                    }
                },
                "RCPT" => {
                    let to = line.get(8..).unwrap_or_default();
                    let own = script.recipients.get(to.trim_matches(['<', '>']));
                    match (&script.kind, own) {
                        _ if !envelope.mailed => answer("503 5.5.1 MAIL first"),
                        (Kind::RefuseRecipients(words), _) => answer(words),
                        (_, Some(words)) => answer(words),
                        _ => {
                            envelope.to.push(to.to_owned());
                            answer("250 2.1.5 Ok");
                        }
                    }
                }
                "DATA" => match script.kind {
                    Kind::HangInData => {
                        self.say(link, &out).await?;
                        return self.hang(link).await;
                    }
                    _ if envelope.to.is_empty() && !(envelope.mailed && script.data_for_nobody) => {
                        answer("503 5.5.1 RCPT first");
                    }
                    _ => {
                        answer("354 Go on");
                        tokio::time::sleep(script.delay).await;
                        self.say(link, &out).await?;
                        out.clear();
                        let Some(content) = self.content(link, &script.kind).await? else {
                            return Ok(false);
                        };
                        let own = std::mem::take(&mut envelope);
                        let from = own.from.clone();
                        self.shared.seen().mails.push(Taken {
                            from: own.from,
                            to: own.to,
                            content,
                            connection: self.number,
                        });
                        self.mails += 1;
                        match script.kind {
                            Kind::HangAfterDot => return self.hang(link).await,
                            Kind::HangFor(sender) if from.contains(sender) => return self.hang(link).await,
                            Kind::DropAfterDot => return Ok(false),
                            Kind::RefuseContent(words) => {
                                out.extend_from_slice(format!("{words}\r\n").as_bytes());
                            }
                            _ => out.extend_from_slice(b"250 2.0.0 Ok: queued\r\n"),
                        }
                    }
                },
                "RSET" => {
                    envelope = Envelope::default();
                    answer("250 2.0.0 Ok");
                }
                "QUIT" => {
                    answer("221 2.0.0 Bye");
                    // Before the client knows: it may come back at once.
                    self.left = true;
                    self.shared.seen().open -= 1;
                    self.say(link, &out).await?;
                    return Ok(false);
                }
                _ => answer("500 5.5.2 What?"),
            }
            if let Some(login) = envelope.login.take() {
                // The user's name, then the password.
                self.say(link, &std::mem::take(&mut out)).await?;
                let user = self.line(link).await?;
                self.say(link, b"334 UGFzc3dvcmQ6\r\n").await?;
                secret = Some(format!("LOGIN {login}{user}"));
            }
        }
    }

    async fn line(&mut self, link: &mut Box<dyn Link + '_>) -> std::io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if !self.fill(link).await? {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn content(
        &mut self,
        link: &mut Box<dyn Link + '_>,
        kind: &Kind,
    ) -> std::io::Result<Option<Vec<u8>>> {
        let mut content = Vec::new();
        loop {
            while let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if line == b".\r\n" {
                    return Ok(Some(content));
                }
                content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
                if matches!(kind, Kind::DropInContent(limit) if content.len() >= *limit) {
                    return Ok(None);
                }
            }
            if !self.fill(link).await? {
                return Ok(None);
            }
        }
    }
}

#[derive(Default)]
struct Envelope {
    mailed: bool,
    from: String,
    to: Vec<String>,
    login: Option<String>,
}

/// A certificate for a name that nobody vouches for: what a server needs, and the certificate as PEM.
pub async fn certificate(name: &str) -> (Arc<ServerConfig>, String) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = |file: &str| folder.path().join(file).to_str().expect("a readable path").to_owned();
    let settings = format!(
        "[req]\ndistinguished_name=dn\nx509_extensions=ext\nprompt=no\n[dn]\nCN={name}\n\
         [ext]\nsubjectAltName=DNS:{name}\nbasicConstraints=critical,CA:FALSE\n"
    );
    std::fs::write(path("openssl.cnf"), settings).expect("the folder is writable");
    let arguments = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let files =
        ["-days", "2", "-config", &path("openssl.cnf"), "-keyout", &path("key"), "-out", &path("cert")];
    run(tool("openssl"), arguments.iter().chain(&files), b"").await.expect_success();
    let pem = std::fs::read_to_string(path("cert")).expect("the certificate was written");
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(path("key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has both")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key belongs to the certificate");
    (Arc::new(config), pem)
}
