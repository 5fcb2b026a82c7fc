//! A real mail server: Postfix on loopback, with STARTTLS, a login, mailboxes, and a recipient that it does not know.
//!
//! Each is an instance of its own: configuration, queue, certificates and mailboxes are in a temporary folder, and a
//! [`Watchdog`] ends its processes and removes the folder when the test process ends, however it ends. Postfix is
//! started by root and gives up root's rights by itself.
#![allow(dead_code, reason = "a shared harness offers more than each test uses")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::tools::{Watchdog, free_port, is_root, run, tool};
use super::{SOON, eventually};

/// The name in its certificate.
pub const HOST: &str = "localhost";

/// The domain that it takes mail for; [`MAILBOXES`] are all that there is in it.
pub const DOMAIN: &str = "example.test";

/// The local parts that exist.
pub const MAILBOXES: [&str; 3] = ["jo", "ann", "kim"];

/// A sender that it refuses, with 553 5.7.1.
pub const REFUSED_SENDER: &str = "refused@example.test";

/// The one who may log in.
const USER: &str = "sender";
const PASSWORD: &str = "pass word & %41";

/// How many times a start is tried, since another process can take the port that was free.
const STARTS: usize = 3;

/// Makes what an instance needs in the folder `$1`; `$2` is the login and `$3` its password.
const PREPARE: &str = r#"
    set -e
    cd "$1"
    chmod 755 .
    mkdir -p conf/sasl queue data mail
    chown postfix data
    chown nobody mail
    key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    openssl req -x509 $key -subj "/CN=Switchboard test CA" -keyout ca.key -out ca.pem \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
    openssl req -x509 $key -subj "/CN=localhost" -CA ca.pem -CAkey ca.key -keyout server.key -out server.pem \
        -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1
    printf %s "$3" | saslpasswd2 -p -c -f "$1/logins" -u localhost "$2"
    chown postfix logins
    chmod 600 logins"#;

/// Ends what was started in the folder `$1`, and nothing else: every program of Postfix has it in its environment, as
/// the place of its configuration or of its queue.
const END: &str = r#"
    tries=0
    while [ $tries -lt 50 ]; do
        # What it answers does not tell: it is an error as well that a process ended meanwhile.
        found=$(grep -lsaF "=$1/" /proc/[0-9]*/environ | tr -dc '0-9\n')
        [ -n "$found" ] || break
        kill -9 $found
        tries=$((tries + 1))
    done
    rm -rf "$1""#;

/// A Postfix of this test's own. It ends when it is dropped or when the test process does, and its mailboxes with it.
pub struct Postfix {
    port: u16,
    folder: PathBuf,
    ca: String,
    // Ends with its folder's other processes, by the watchdog.
    _child: Child,
    _watchdog: Watchdog,
}

impl Postfix {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not answer, with what it logged; and when this process is not root's.
    pub async fn start() -> Self {
        assert!(is_root(), "Postfix must be started by root: run these tests as root");
        let mut said = String::new();
        for _ in 0..STARTS {
            let folder =
                tempfile::Builder::new().prefix("switchboard-postfix-").tempdir().expect("a folder").keep();
            let watchdog = Watchdog::new(END, [&folder]);
            let name = folder.file_name().and_then(|name| name.to_str()).expect("a readable name").to_owned();
            let path = folder.to_str().expect("a readable path");
            run("sh", ["-c", PREPARE, "prepare", path, USER, PASSWORD], b"").await.expect_success();
            let port = free_port();
            write(&folder, "conf/main.cf", &main_cf(path, &name));
            write(&folder, "conf/master.cf", &master_cf(port));
            write(&folder, "conf/sasl/smtpd.conf", &smtpd_conf(path));
            let log = std::fs::File::create(folder.join("log")).expect("the folder is writable");
            // Every process closes all the descriptors that it might have inherited, which takes seconds where the
            // limit is high.
            let start = r#"ulimit -n 1024; exec "$1" -c "$2/conf" start-fg"#;
            let mut child = Command::new("sh")
                .args(["-c", start, "start"])
                .args([tool("postfix"), folder.clone()])
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a file can be shared"))
                .stderr(log)
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
                .unwrap_or_else(|error| panic!("sh does not start: {error}"));
            if greets(&mut child, port, &name).await {
                let ca = std::fs::read_to_string(folder.join("ca.pem")).expect("the certificate was made");
                return Self { port, folder, ca, _child: child, _watchdog: watchdog };
            }
            said = log_of(&folder);
        }
        panic!("Postfix did not answer: {said}");
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate that its own is signed with, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// The login that it accepts. Without one it takes no mail.
    pub fn user(&self) -> &'static str {
        USER
    }

    /// That login's password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The settings that hand mail over to it.
    pub fn settings(&self) -> serde_json::Value {
        serde_json::json!({
            "email.smtp_host": HOST,
            "email.smtp_port": self.port,
            "email.smtp_tls": "starttls",
            "email.smtp_user": USER,
            "email.smtp_password": PASSWORD,
            "email.smtp_ca": self.ca,
        })
    }

    /// The messages in the mailbox of `name`, one of [`MAILBOXES`], in the order they came. Lines end in `\n`, and the
    /// lines that Postfix puts in front (`Return-Path`, `X-Original-To`, `Delivered-To`, `Received`) are there.
    pub fn mailbox(&self, name: &str) -> Vec<String> {
        assert!(MAILBOXES.contains(&name), "there is no mailbox {name}");
        // A message appears in this folder when it is complete.
        let Ok(entries) = std::fs::read_dir(self.folder.join("mail").join(name).join("new")) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                Some((path.metadata().ok()?.modified().ok()?, path))
            })
            .collect();
        files.sort();
        let read = |(_, path): &(_, PathBuf)| std::fs::read(path).expect("a message can be read");
        files.iter().map(|file| String::from_utf8_lossy(&read(file)).into_owned()).collect()
    }

    /// Waits until at least `number` messages are in the mailbox of `name`, and gives all that are.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn wait_for(&self, name: &str, number: usize) -> Vec<String> {
        let what = format!("{number} messages for {name}");
        eventually(&what, async || Some(self.mailbox(name)).filter(|mails| mails.len() >= number)).await
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        log_of(&self.folder)
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap_or_else(|error| panic!("{name}: {error}"));
}

fn log_of(folder: &Path) -> String {
    let log = std::fs::read(folder.join("log")).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

/// Takes mail for its own domain from whoever has logged in, and for nobody else.
fn main_cf(folder: &str, name: &str) -> String {
    let mailboxes = MAILBOXES.map(|name| format!("{{{name}@{DOMAIN} = {name}/}}")).join(", ");
    format!(
        "compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = /dev/stdout
myhostname = {HOST}
smtpd_banner = {HOST} ESMTP {name}
mydestination =
mynetworks =
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_delay_reject = no
virtual_mailbox_domains = {DOMAIN}
virtual_mailbox_maps = inline:{{ {mailboxes} }}
virtual_mailbox_base = {folder}/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_tls_cert_file = {folder}/server.pem
smtpd_tls_key_file = {folder}/server.key
smtpd_sasl_auth_enable = yes
smtpd_sasl_local_domain = {HOST}
cyrus_sasl_config_path = {folder}/conf/sasl
smtpd_sender_restrictions = check_sender_access inline:{{ {{{REFUSED_SENDER} = 553 5.7.1 Not your address}} }}
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_recipient_restrictions = reject_unlisted_recipient, permit_sasl_authenticated, reject
"
    )
}

/// The services of Debian's master.cf that take mail in and put it into mailboxes, none of them in a chroot.
fn master_cf(port: u16) -> String {
    format!(
        "127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"
    )
}

fn smtpd_conf(folder: &str) -> String {
    format!(
        "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {folder}/logins\nmech_list: PLAIN LOGIN\n"
    )
}

/// Connects until the server greets with its name; `false` when it ended, or somebody else has its port.
async fn greets(child: &mut Child, port: u16, name: &str) -> bool {
    let greeting = async {
        loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
                let mut line = String::new();
                let _ = BufReader::new(stream).read_line(&mut line).await;
                return line.contains(name);
            }
            if child.try_wait().expect("a child can be asked").is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, greeting).await.unwrap_or(false)
}
