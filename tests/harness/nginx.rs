//! nginx, started on loopback in a folder of its own, before a server and an application.

use std::path::PathBuf;
use std::process::Stdio;

use http::Response;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::eventually;
use super::tools::{Watchdog, free_port, tool};

/// nginx with one site.
pub struct Nginx {
    port: u16,
    /// Ends it and removes its folder.
    _watchdog: Watchdog,
}

impl Nginx {
    /// Starts it with what the site's `server` block has.
    pub async fn start(site: &str) -> Self {
        for _ in 0..5 {
            let port = free_port();
            let folder =
                tempfile::Builder::new().prefix("nginx").tempdir().expect("a temporary folder").keep();
            if let Some(nginx) = Self::try_start(port, folder, site).await {
                return nginx;
            }
        }
        panic!("nginx found no free port");
    }

    async fn try_start(port: u16, folder: PathBuf, site: &str) -> Option<Self> {
        let at = folder.display();
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;
             events {{ worker_connections 64; }}
             http {{
                 access_log off;
                 client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
                 uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
                 server {{ listen 127.0.0.1:{port}; {site} }}
             }}"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config).expect("the folder can be written to");
        let mut child = tokio::process::Command::new(tool("nginx"))
            .args(["-p", &at.to_string(), "-e", &format!("{at}/error.log"), "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        let process = child.id().expect("it was just started").to_string();
        let watchdog = Watchdog::new("kill -9 \"$1\" 2>/dev/null; rm -rf \"$2\"", [process, at.to_string()]);
        let up = eventually("nginx listens or has ended", async || {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Some(true);
            }
            child.try_wait().expect("a child can be asked").map(|_| false)
        });
        up.await.then_some(Self { port, _watchdog: watchdog })
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it answers to a request for a path with these headers.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response<bytes::Bytes> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::get(path).header("host", "app.example.com");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::<bytes::Bytes>::default()).unwrap();
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }
}
