//! TLS of a test's own: an authority that signs certificates, and a receiver that speaks TLS and may demand a client
//! certificate.
#![allow(dead_code, reason = "a shared harness offers more than each test uses")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use switchboard::rpc::tls::Files;

use super::receiver::Receiver;
use super::tools::{run, tool};

/// The authority's certificate, beside that of a server's port.
pub const AUTHORITY: &str = "ca.pem";

/// An authority that nobody knows.
pub struct Authority {
    folder: tempfile::TempDir,
    /// Its certificate, as PEM.
    pub certificate: String,
}

/// A certificate with its private key, as PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Issued {
    /// Writes it into a folder, for a server's port: the authority's certificate is beside it, as `ca.pem`.
    pub fn files(&self, authority: &Authority, folder: &Path) -> Files {
        let write = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).expect("the folder can be written");
            folder.join(name)
        };
        write(AUTHORITY, &authority.certificate);
        let (certificate, key) = (write("port.pem", &self.certificate), write("port.key", &self.key));
        Files { certificate, key, client_authority: None }
    }
}

impl Authority {
    /// Makes one; all have the same name.
    pub async fn new() -> Self {
        Self::named("Switchboard test CA").await
    }

    /// Makes one with this name.
    pub async fn named(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"];
        openssl(folder.path(), name, "ca", &[], &extensions).await;
        let certificate = read(folder.path(), "ca.pem");
        Self { folder, certificate }
    }

    /// Signs the certificate of a server that is `localhost` and `127.0.0.1`.
    pub async fn server(&self) -> Issued {
        self.issue("server", &["extendedKeyUsage=serverAuth", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .await
    }

    /// Signs the certificate of a client with this name.
    pub async fn client(&self, name: &str) -> Issued {
        self.issue(name, &["extendedKeyUsage=clientAuth"]).await
    }

    async fn issue(&self, name: &str, extensions: &[&str]) -> Issued {
        let folder = self.folder.path();
        let extensions = [&["basicConstraints=critical,CA:FALSE"], extensions].concat();
        let path = |file: &str| folder.join(file).to_str().expect("a readable path").to_owned();
        let signed = ["-CA", &path("ca.pem"), "-CAkey", &path("ca.key")];
        openssl(folder, name, name, &signed, &extensions).await;
        Issued {
            certificate: read(folder, &format!("{name}.pem")),
            key: read(folder, &format!("{name}.key")),
        }
    }
}

async fn openssl(folder: &Path, name: &str, file: &str, more: &[&str], extensions: &[&str]) {
    let path = |ending: &str| folder.join(format!("{file}.{ending}")).to_str().unwrap().to_owned();
    let subject = format!("/CN={name}");
    let (key, certificate) = (path("key"), path("pem"));
    let mut arguments =
        vec!["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    arguments.extend(["-days", "2", "-subj", &subject, "-keyout", &key, "-out", &certificate]);
    arguments.extend(more);
    arguments.extend(extensions.iter().flat_map(|extension| ["-addext", extension]));
    run(tool("openssl"), arguments, b"").await.expect_success();
}

fn read(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).expect("it was written")
}

/// The name in a certificate, as `openssl` reads it.
pub async fn name_of(certificate: &[u8]) -> String {
    let arguments = ["x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "RFC2253"];
    let subject = run(tool("openssl"), arguments, certificate).await.expect_success();
    subject.trim().trim_start_matches("subject=").trim_start_matches("CN=").to_owned()
}

/// A receiver behind TLS: what arrives over it, arrives at `inner`.
pub struct TlsReceiver {
    /// Has what arrived.
    pub inner: Receiver,
    address: SocketAddr,
    shown: Arc<Mutex<Vec<Option<Vec<u8>>>>>,
    accepting: AbortHandle,
}

impl TlsReceiver {
    /// Listens on a free port of 127.0.0.1, speaks these protocols, and takes only clients with a certificate of
    /// `clients` when that is given.
    pub async fn start(identity: &Issued, protocols: &[&str], clients: Option<&Authority>) -> Self {
        let inner = Receiver::start().await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let acceptor = TlsAcceptor::from(Arc::new(config(identity, protocols, clients)));
        let shown = Arc::default();
        let accepting = tokio::spawn(accept(listener, acceptor, inner.address(), Arc::clone(&shown)));
        Self { inner, address, shown, accepting: accepting.abort_handle() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    /// The certificates that clients showed, one for each connection that was made, in their order.
    pub fn shown(&self) -> Vec<Option<Vec<u8>>> {
        self.shown.lock().unwrap().clone()
    }
}

impl Drop for TlsReceiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn config(identity: &Issued, protocols: &[&str], clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has both");
    let builder = match clients {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("the authority can be trusted"))
        }
        None => builder.with_no_client_auth(),
    };
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).expect("the key belongs to the certificate");
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    inner: SocketAddr,
    shown: Arc<Mutex<Vec<Option<Vec<u8>>>>>,
) {
    // Owned here, so that ending this task cuts its connections.
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            Ok((stream, _)) = listener.accept() => stream,
            Some(_) = connections.join_next() => continue,
        };
        let (acceptor, shown) = (acceptor.clone(), Arc::clone(&shown));
        connections.spawn(async move {
            let mut outer = match acceptor.accept(stream).into_fallible().await {
                Ok(stream) => stream,
                Err((_, mut stream)) => {
                    // What is not read would make the system reset the connection, and the alert be lost.
                    let _ = stream.shutdown().await;
                    let mut rest = Vec::new();
                    let _ = stream.read_to_end(&mut rest).await;
                    return;
                }
            };
            let certificate = outer.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec());
            shown.lock().unwrap().push(certificate);
            let mut inner = TcpStream::connect(inner).await.expect("the receiver listens");
            // How a connection ends is the client's affair.
            let _ = copy_bidirectional(&mut outer, &mut inner).await;
        });
    }
}
