//! Our SMTP lane alone, as a library: what it makes of the connections when nothing has to be kept, rendered or signed.

use std::sync::Arc;

use switchboard::clock::SystemClock;
use switchboard::email::config::{AuthMode, Smtp, TlsMode};
use switchboard::email::smtp::SmtpTransport;
use switchboard::email::transport::{Message, Transport, Verdict};
use switchboard::secret::{SecretText, SystemRandom};

use super::message::{FROM, TO, message};
use super::{Rivals, Round, Target, library};
use crate::error::Result;
use crate::load::Caller;
use crate::mail::CONNECTIONS;
use crate::report::{Figure, Report};

/// How many messages are handed over at once: enough that no connection ever waits for one.
const CALLERS: usize = 400;

/// Sends the message again and again.
#[derive(Clone)]
struct LaneCaller {
    transport: Arc<SmtpTransport>,
    message: Message,
}

impl Caller for LaneCaller {
    async fn call(&mut self) -> Result<()> {
        let report = self.transport.send(self.message.clone()).await;
        if report.recipients == [Verdict::Accepted] {
            Ok(())
        } else {
            Err(format!("the lane's message was not accepted: {report:?}").into())
        }
    }
}

/// Measures it.
pub async fn measure(round: &Round<'_>, rivals: Rivals, report: &mut Report) -> Result<()> {
    let case = round.case("lane");
    let target = Target::start(round.far).await?;
    let transport = SmtpTransport::new(Arc::new(SystemClock), Arc::new(SystemRandom));
    transport.reconfigure(&[provider(target.port())]);
    // Urgent, because some connections are kept free of everything else.
    let message = Message { from: FROM.into(), to: vec![TO.into()], content: message(), urgent: true };
    let caller = LaneCaller { transport: Arc::new(transport), message };

    let (rate, rest) = library::measure(round, &target, caller, CALLERS).await?;
    let mut figures = vec![Figure::spread("messages/s", rate)];
    figures.extend(rivals.ratios(rate));
    figures.extend(rest);
    report.add("email", &case, round.backend.name(), &figures);
    target.stop().await;
    Ok(())
}

fn provider(port: u16) -> Smtp {
    Smtp {
        host: "127.0.0.1".into(),
        port,
        user: String::new(),
        password: SecretText::default(),
        auth: AuthMode::Auto,
        oauth: None,
        tls: TlsMode::None,
        ca: String::new(),
        connections: CONNECTIONS,
        messages_per_connection: 100_000,
    }
}
