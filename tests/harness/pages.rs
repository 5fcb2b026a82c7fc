//! A small web server for pages: the test page, and the TypeScript client as its build leaves it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::{AbortHandle, JoinSet};

use super::tools::run;

/// The package of the TypeScript client.
pub fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("client-sdk/typescript")
}

/// Builds the client, once for all tests.
pub async fn build() {
    static BUILT: OnceCell<()> = OnceCell::const_new();
    let build = async || {
        let compiler = package().join("node_modules/.bin/tsc");
        assert!(compiler.exists(), "tsc is missing: run tests/tools/install, which brings it");
        let project = package().join("tsconfig.json");
        run(compiler, [Path::new("-p"), &project], b"").await.expect_success();
    };
    BUILT.get_or_init(build).await;
}

/// Serves `tests/browser/page.html` as `/`, and the client with what it needs.
pub struct Pages {
    address: SocketAddr,
    accepting: AbortHandle,
}

impl Pages {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        build().await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let accepting = tokio::spawn(accept(listener)).abort_handle();
        Self { address, accepting }
    }

    /// Its origin.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener) {
    // Owned here, so that ending this task cuts its connections.
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            Ok((stream, _)) = listener.accept() => stream,
            Some(_) = connections.join_next() => continue,
        };
        // How a connection ends is the browser's affair.
        connections.spawn(async move {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let file = match path {
        "/" => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/page.html"),
        _ => package().join(path.trim_start_matches('/')),
    };
    let kind = match file.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        _ => "application/octet-stream",
    };
    let text = if path.contains("..") { None } else { tokio::fs::read(file).await.ok() };
    let status = if text.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let response = Response::builder().status(status).header("content-type", kind);
    Ok(response.body(Full::from(text.unwrap_or_default())).expect("a valid response"))
}
