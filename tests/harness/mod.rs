//! What every test uses: servers on both databases, and real peers.

pub mod chromium;
pub mod disk;
pub mod hostile;
pub mod hostile_http;
pub mod http2;
pub mod load;
pub mod nginx;
pub mod pages;
pub mod postfix;
pub mod postgres;
pub mod process;
pub mod program;
pub mod proxy;
pub mod receiver;
pub mod server;
pub mod smtp;
pub mod status;
pub mod tls;
pub mod tools;

/// Runs an async test once on each database: `on_both! { async fn name(server: Server) { … } }`, or with a
/// configuration, `async fn name(server: Server = |config| …)`.
macro_rules! on_both {
    ($($(#[$attribute:meta])* async fn $name:ident($server:ident : Server $(= $configure:expr)?) $body:block)*) => {
        $(
            $(#[$attribute])*
            mod $name {
                #[allow(unused_imports)]
                use super::*;
                use $crate::harness::server::{Backend, Server};

                async fn run($server: Server) $body

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn sqlite() {
                    run(Server::start_with(Backend::Sqlite, on_both!(@configure $($configure)?)).await).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn postgres() {
                    run(Server::start_with(Backend::Postgres, on_both!(@configure $($configure)?)).await).await;
                }
            }
        )*
    };
    (@configure) => { |_: &mut switchboard::config::Config| {} };
    (@configure $configure:expr) => { $configure };
}
pub(crate) use on_both;

use std::time::Duration;

/// Lets the others do something before one looks again.
pub async fn breath() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// How long a test waits for what must happen: far beyond what it takes, on the busiest machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Waits until `ask` answers something.
///
/// # Panics
/// When it does not within [`SOON`].
pub async fn eventually<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut ask: F) -> T {
    let asking = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        loop {
            pause.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    match tokio::time::timeout(SOON, asking).await {
        Ok(answer) => answer,
        Err(_) => panic!("{what}: not within {SOON:?}"),
    }
}
