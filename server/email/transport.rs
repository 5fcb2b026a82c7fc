//! Handing a message over to an SMTP server.

use std::sync::Mutex;
use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::{Error as SmtpError, PoolConfig};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::config::{Smtp, TlsMode};
use crate::delivery::{Attempt, Outcome};

/// Connections to the server.
pub const CONNECTIONS: u32 = 8;
/// One whole hand-over; lettre's own time-out covers only the connecting.  A drain waits a little longer than this.
const DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Below what servers usually allow, so that a kept connection is rarely one that the server has closed.
const IDLE: Duration = Duration::from_secs(20);

/// The pooled connections of the newest settings.
#[derive(Default)]
pub struct Transport(Mutex<Option<(Smtp, Pool)>>);

type Pool = AsyncSmtpTransport<Tokio1Executor>;

impl Transport {
    /// Hands one message over.
    pub async fn send(&self, smtp: &Smtp, message: Message) -> Attempt {
        let pool = match self.pool(smtp) {
            Ok(pool) => pool,
            Err(error) => return failed(Outcome::Retry { after: None }, None, error.to_string()),
        };
        match tokio::time::timeout(DEADLINE, pool.send(message)).await {
            Ok(Ok(response)) => {
                let code = u16::from(response.code());
                let text = response.message().collect::<Vec<_>>().join(" ");
                Attempt {
                    outcome: Outcome::Succeeded,
                    response_status: Some(i32::from(code)),
                    response_body: Some(format!("{code} {text}")),
                    error: None,
                }
            }
            Ok(Err(error)) => judge(&error),
            Err(_) => {
                let error = format!("the server did not take the mail within {} seconds", DEADLINE.as_secs());
                failed(Outcome::Retry { after: None }, None, error)
            }
        }
    }

    fn pool(&self, smtp: &Smtp) -> Result<Pool, SmtpError> {
        let mut current = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((known, pool)) = &*current
            && known == smtp
        {
            return Ok(pool.clone());
        }
        let pool = connect(smtp)?;
        *current = Some((smtp.clone(), pool.clone()));
        Ok(pool)
    }
}

fn connect(smtp: &Smtp) -> Result<Pool, SmtpError> {
    let tls = match smtp.tls {
        TlsMode::None => Tls::None,
        TlsMode::StartTls => Tls::Required(TlsParameters::new(smtp.host.clone())?),
        TlsMode::Implicit => Tls::Wrapper(TlsParameters::new(smtp.host.clone())?),
    };
    let mut builder = Pool::builder_dangerous(&smtp.host)
        .port(smtp.port)
        .tls(tls)
        .timeout(Some(CONNECT_TIMEOUT))
        .pool_config(PoolConfig::new().max_size(CONNECTIONS).idle_timeout(IDLE));
    if !smtp.user.is_empty() {
        builder = builder.credentials(Credentials::new(smtp.user.clone(), smtp.password.reveal().to_owned()));
    }
    Ok(builder.build())
}

/// What a failure means: a 5xx of the mail itself is final; everything else may pass.  A refused login is the
/// administrator's to mend, and must not cost the mail.
fn judge(error: &SmtpError) -> Attempt {
    let code = error.status().map(u16::from);
    let of_login = code.is_some_and(|code| matches!(code, 530 | 534 | 535 | 538));
    let outcome =
        if error.is_permanent() && !of_login { Outcome::Refused } else { Outcome::Retry { after: None } };
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(current) = cause {
        let more = current.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = current.source();
    }
    failed(outcome, code, text)
}

fn failed(outcome: Outcome, code: Option<u16>, error: String) -> Attempt {
    Attempt { outcome, response_status: code.map(i32::from), response_body: None, error: Some(error) }
}
