//! TLS on the server's own port: both HTTP versions, certificates that change, clients that must show one, and peers that
//! do not do their part.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use switchboard::app::App;
use switchboard::config::Config;
use switchboard::rpc::tls::Files;
use switchboard_client::event::v1::ListEventsRequest;
use switchboard_client::notification::v1::SubscribeRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::command_line::switchboard_in;
use crate::harness::server::{Backend, Server};
use crate::harness::tls::{Authority, Issued, name_of};
use crate::harness::tools::{run, tool};
use crate::harness::{SOON, eventually};
use crate::live::{events, subscribe};

/// A server whose port has a certificate of this authority.
async fn start(backend: Backend, authority: &Authority, configure: impl FnOnce(&mut Config)) -> Server {
    let identity = authority.server().await;
    Server::start_with(backend, |config| {
        config.tls = Some(identity.files(authority, &config.data));
        configure(config);
    })
    .await
}

/// Makes a connection that trusts this authority, offers these protocols, and shows this certificate.
async fn connect(
    address: &str,
    authority: &Authority,
    protocols: &[&str],
    identity: Option<&Issued>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&authority.certificate)).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Issued { certificate: chain, key }) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate(chain)], key).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// The status of `/healthz` over HTTP/1.1 on a connection.
async fn health(stream: TlsStream<TcpStream>) -> Result<StatusCode, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/healthz").header("host", "localhost").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

/// The name of the authority that signed what the port shows.
async fn signed_by(server: &Server, authorities: [&Authority; 2]) -> Option<usize> {
    for (index, authority) in authorities.into_iter().enumerate() {
        if connect(&server.address(), authority, &["h2"], None).await.is_ok() {
            return Some(index);
        }
    }
    None
}

/// What is read until the server closes.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
    // A reset is an end too.
    let _ = read.expect("it is closed");
    rest
}

async fn both_http_versions_are_spoken(backend: Backend) {
    let authority = Authority::new().await;
    let server = start(backend, &authority, |_| {}).await;
    assert!(server.url().starts_with("https://127.0.0.1:"), "{}", server.url());

    // The Rust client, with a stream.
    let (mut stream, _) = subscribe(&server.client, SubscribeRequest::default()).await;
    server.publish("a.b", r#"{"n":1}"#).await;
    assert_eq!(events(&mut stream, 1).await, [r#"{"n":1}"#]);

    // grpcurl, which knows nothing of us.
    let file = server.folder().join("ca.pem").display().to_string();
    let header = format!("x-api-key: {}", server.key.reveal());
    let method = "switchboard.event.v1.EventService/ListEvents";
    let address = server.address();
    let listed = run(tool("grpcurl"), ["-cacert", &file, "-H", &header, &address, method], b"").await;
    assert!(listed.expect_success().contains("a.b"));

    for (offered, agreed) in
        [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let stream = connect(&address, &authority, offered, None).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed, "{offered:?}");
        if agreed != Some(b"h2") {
            assert_eq!(health(stream).await.unwrap(), StatusCode::OK, "{offered:?}");
        }
    }
    assert!(connect(&address, &authority, &["spdy/3"], None).await.is_err());

    // Who speaks HTTP in the clear is told.
    let mut plain = TcpStream::connect(&address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let said = String::from_utf8(rest(plain).await).unwrap();
    assert!(said.starts_with("HTTP/1.1 400 ") && said.ends_with("use an https:// URL"), "{said}");

    // And a restart serves on.
    let server = server.restart().await;
    server.client.events().list_events(ListEventsRequest::default()).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_http_versions_are_spoken_on_sqlite() {
    both_http_versions_are_spoken(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_http_versions_are_spoken_on_postgres() {
    both_http_versions_are_spoken(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_changes_is_read_anew() {
    let (old, new) = (Authority::named("old").await, Authority::named("new").await);
    let server =
        start(Backend::Sqlite, &old, |config| config.port.certificate_check = Duration::from_millis(20))
            .await;
    let (mut stream, _) = subscribe(&server.client, SubscribeRequest::default()).await;
    assert_eq!(signed_by(&server, [&old, &new]).await, Some(0));

    // Half of a change, and nonsense: the last good one stays.
    let (folder, issued) = (server.folder(), new.server().await);
    let files = server.config.tls.clone().unwrap();
    std::fs::write(&files.certificate, &issued.certificate).unwrap();
    for text in [issued.certificate.as_str(), "nonsense", ""] {
        std::fs::write(&files.certificate, text).unwrap();
        assert_eq!(signed_by(&server, [&old, &new]).await, Some(0));
    }

    issued.files(&new, folder);
    eventually("the new certificate is shown", async || {
        (signed_by(&server, [&old, &new]).await == Some(1)).then_some(())
    })
    .await;
    let stream_of = connect(&server.address(), &new, &["h2"], None).await.unwrap();
    let shown = stream_of.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    assert_eq!(name_of(&shown).await, "server");
    server.publish("a.b", "{}").await;
    assert_eq!(events(&mut stream, 1).await, ["{}"], "what is open stays open");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_without_a_certificate_are_turned_away_where_one_is_needed() {
    let (authority, other) = (Authority::new().await, Authority::named("other").await);
    let identity = authority.server().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::local(folder.path().to_owned());
    let files = identity.files(&authority, folder.path());
    config.tls = Some(Files { client_authority: Some(folder.path().join("ca.pem")), ..files });
    let app = App::start(config).await.unwrap();
    let address = app.address().to_string();

    let known = authority.client("billing").await;
    let stream = connect(&address, &authority, &["http/1.1"], Some(&known)).await.unwrap();
    assert_eq!(health(stream).await.unwrap(), StatusCode::OK);
    let stranger = other.client("billing").await;
    for identity in [None, Some(&stranger)] {
        // In TLS 1.3 a client learns of its refusal with the first thing that it reads.
        let refused = match connect(&address, &authority, &["http/1.1"], identity).await {
            Ok(stream) => health(stream).await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "{identity:?}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_are_bounded_in_time_and_number() {
    let authority = Authority::new().await;
    let server = start(Backend::Sqlite, &authority, |config| {
        config.port.first_byte = Duration::from_millis(300);
        config.port.handshakes = 1;
    })
    .await;
    // The head of a record of 512 bytes, of which no more comes.
    let half = [22, 3, 1, 2, 0, 1, 0];
    let mut stuck = Vec::new();
    for said in [&[][..], &half[..1], &half] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(said).await.unwrap();
        stuck.push(stream);
    }
    eventually("the others have their turn", async || {
        connect(&server.address(), &authority, &["h2"], None).await.ok()
    })
    .await;
    for stream in stuck {
        assert_eq!(rest(stream).await, b"");
    }
    // One whose handshake is over, and who says nothing then.
    let mut silent = connect(&server.address(), &authority, &["h2"], None).await.unwrap();
    let closed = tokio::time::timeout(SOON, silent.read_to_end(&mut Vec::new())).await;
    let _ = closed.expect("it is closed");
    server.stop().await;
}

/// The error of a start with these files.
async fn refused(folder: &Path, files: Files) -> String {
    let mut config = Config::local(folder.join("data"));
    config.tls = Some(files);
    match App::start(config).await {
        Ok(_) => panic!("the server started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn bad_files_are_told_at_the_start() {
    let authority = Authority::new().await;
    let (identity, other) = (authority.server().await, authority.client("other").await);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let good = identity.files(&authority, folder.path());
    let other_key = write("other.key", &other.key);
    let nonsense = write("nonsense", "hello");
    let cut = write("cut", &identity.key[..80]);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted = write("encrypted", encrypted);
    let missing = folder.path().join("missing");
    let with = |certificate: &Path, key: &Path| Files {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        client_authority: None,
    };
    for (files, words) in [
        (with(&missing, &good.key), &["the TLS certificate ", "missing: can not be read: No such file"][..]),
        (with(&nonsense, &good.key), &["the TLS certificate ", "nonsense: has no certificate as PEM"]),
        (with(&good.certificate, &nonsense), &["the TLS key ", "nonsense: has no private key as PEM"]),
        (with(&good.certificate, &cut), &["the TLS key ", "cut: is not PEM: a section has no end"]),
        (with(&good.certificate, &encrypted), &["the TLS key ", "is encrypted, and must not be"]),
        (with(&good.certificate, &other_key), &["the TLS certificate ", "does not belong to the key"]),
        (with(&missing, &nonsense), &["missing: can not be read", "nonsense: has no private key"]),
        (
            Files { client_authority: Some(nonsense.clone()), ..good.clone() },
            &["the TLS client authority ", "nonsense: has no certificate"],
        ),
    ] {
        let error = refused(folder.path(), files.clone()).await;
        for word in words {
            assert!(error.contains(word), "{files:?}: {word:?} is not in {error}");
        }
        assert!(!error.contains(&identity.key[40..80]), "a key is not repeated: {error}");
    }
    assert!(!folder.path().join("data").exists(), "nothing was begun");
}

#[tokio::test]
async fn the_certificate_is_given_by_flags_or_variables_or_the_file() {
    let authority = Authority::new().await;
    let folder = tempfile::tempdir().unwrap();
    authority.server().await.files(&authority, folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key) = (path("port.pem"), path("port.key"));
    let configuration = path("switchboard.toml");
    std::fs::write(
        &configuration,
        "[tls]\ncert = \"port.pem\"\nkey = \"port.key\"\n\n[email]\nsmtp_port = 25\n",
    )
    .unwrap();
    let variables = [("SWITCHBOARD_TLS_CERT", certificate.as_str()), ("SWITCHBOARD_TLS_KEY", key.as_str())];
    let admin = switchboard_in(&[], &["key", "generate"]).await.expect_success();
    let admin = ("SWITCHBOARD_ADMIN_KEY", admin.trim());
    for (number, given) in [&variables[..], &[("SWITCHBOARD_CONFIG", &configuration)]].into_iter().enumerate()
    {
        let data = folder.path().join(number.to_string());
        let mut server = crate::command_line::Served::start(&data, &[given, &[admin]].concat());
        let url = server.address().await;
        assert!(url.starts_with("https://127.0.0.1:"), "{url}");
        // The commands that ask a running server trust what they are told to.
        let trust = format!("SSL_CERT_FILE={}", path("ca.pem"));
        let asked = ["doctor", "--server", &url, "--key", admin.1];
        let doctor = switchboard_in(&[&trust], &asked).await;
        assert!(
            doctor.stdout.contains("knows the key") && !doctor.stdout.contains("can not be reached"),
            "{doctor:?}"
        );
        let doctor = switchboard_in(&[], &asked).await;
        assert!(doctor.stdout.contains("can not be reached"), "{doctor:?}");
        server.stop().await;
    }
    let half = switchboard_in(&[], &["serve", "--data", &path("data"), "--tls-cert", &certificate]).await;
    assert!(half.code == Some(1) && half.stderr.contains("--tls-key"), "{half:?}");
}
