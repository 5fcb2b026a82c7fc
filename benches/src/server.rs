//! The server that is measured: a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::key::admin_key;
use crate::process::{Watchdog, run, tail};

/// How long the server may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// What would keep back those who make the load.
const UNLIMITED: [&str; 2] =
    ["security.rate_limit_per_key=0", "notifications.stream_opens_per_second=100000"];

/// Starts the server as a child of the watchdog. Its process id comes first, before anything that it prints.
const BEGIN: &str = r#"
folder=$1; shift
: >"$folder/running"
sh -c 'echo "$$"; exec "$@"' server "$@" </dev/null 2>"$folder/log" &
server=$!
"#;

/// Asks the server to end, gives it half a minute, and says that it has gone.
const END: &str = r#"
kill -TERM "$server"
left=300
while kill -0 "$server" && [ "$left" -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
kill -KILL "$server"
wait "$server"
rm -f "$folder/running"
"#;

/// A running server. Dropping it ends it.
pub struct Server {
    watchdog: Watchdog,
    address: String,
    pid: u32,
}

impl Server {
    /// Starts `program` on a database, and waits until it is ready.
    pub async fn start(program: &Path, database: &Database<'_>) -> Result<Self> {
        Self::start_at(program, database, "127.0.0.1:0").await
    }

    /// The same at this address, where another one was before.
    pub async fn start_at(program: &Path, database: &Database<'_>, listen: &str) -> Result<Self> {
        let (folder, data) = (database.folder(), database.data());
        let mut variables = vec![("SWITCHBOARD_ADMIN_KEY", admin_key())];
        variables.extend(database.url().map(|url| ("DATABASE_URL", url)));
        // One key and one address make all of the load.
        let unlimited = UNLIMITED.map(|setting| ["--set", setting]).concat();
        let options = ["serve", "--listen", listen, "--allow-network", "127.0.0.0/8", "--data"];
        let options = [&options[..1], &unlimited, &options[1..]].concat();
        let args = [folder.as_os_str(), program.as_os_str()]
            .into_iter()
            .chain(options.iter().map(AsRef::as_ref))
            .chain([data.as_os_str()]);
        let mut watchdog = Watchdog::new(BEGIN, END, args, &variables)?;

        let output = watchdog.output().ok_or("the server's output can not be read")?;
        let (say, mut lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            // To the end, though nobody listens then: the server must always be able to print.
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                let _ = say.send(line);
            }
        });

        let ready = async {
            let pid = lines.recv().await?.trim().parse().ok()?;
            loop {
                if let Some(address) = address_in(&lines.recv().await?) {
                    return Some((pid, address));
                }
            }
        };
        match tokio::time::timeout(START_LIMIT, ready).await {
            Ok(Some((pid, address))) => Ok(Self { watchdog, address, pid }),
            Ok(None) => Err(failure("the server ended", folder)),
            Err(_) => Err(failure("the server did not say that it is ready", folder)),
        }
    }

    /// Its URL, such as `http://127.0.0.1:41234`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it at once, without a farewell.
    pub async fn kill(self) -> Result<()> {
        run("kill", ["-KILL", &self.pid.to_string()]).await?;
        self.watchdog.finish().await;
        Ok(())
    }

    /// Lets it end in order.
    pub async fn stop(self) {
        self.watchdog.finish().await;
    }
}

fn failure(what: &str, folder: &Path) -> Error {
    format!("{what}. The end of its log:\n{}", tail(&folder.join("log"))).into()
}

/// The URL in the line that the server prints when it is ready.
fn address_in(line: &str) -> Option<String> {
    let url = line.split_whitespace().find_map(|word| word.find("http://").map(|at| &word[at..]))?;
    Some(url.trim_end_matches(|c: char| !c.is_ascii_digit()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_line() {
        let of = |line: &str| address_in(line);
        assert_eq!(
            of("switchboard is ready on http://127.0.0.1:41234").as_deref(),
            Some("http://127.0.0.1:41234")
        );
        assert_eq!(of("ready: http://127.0.0.1:8080/.").as_deref(), Some("http://127.0.0.1:8080"));
        assert_eq!(of("starting"), None);
    }
}
