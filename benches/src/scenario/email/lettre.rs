//! lettre's pooled transport, as a program that uses the library has it.

use std::sync::Arc;

use bytes::Bytes;
use lettre::address::Envelope;
use lettre::transport::smtp::PoolConfig;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::message::{FROM, TO, message};
use super::{Round, Target, library};
use crate::error::{Context, Result};
use crate::load::Caller;
use crate::mail::CONNECTIONS;
use crate::report::{Figure, Report};

/// Sends the message again and again.
#[derive(Clone)]
struct LettreCaller {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    envelope: Arc<Envelope>,
    message: Bytes,
}

impl Caller for LettreCaller {
    async fn call(&mut self) -> Result<()> {
        let sent = self.transport.send_raw(&self.envelope, &self.message).await;
        // The pool takes its connection back in a task of its own. Without giving way to that, the next call would find
        // the pool empty and open another one, since nothing but the number of callers bounds them.
        tokio::task::yield_now().await;
        sent.map(drop).context("lettre")
    }
}

/// Measures it with as many callers as connections. Gives the messages per second.
pub async fn measure(round: &Round<'_>, report: &mut Report) -> Result<f64> {
    let case = round.case("lettre, pooled");
    let target = Target::start(round.far).await?;
    let pool = PoolConfig::new().max_size(CONNECTIONS as u32);
    let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
        .port(target.port())
        .pool_config(pool)
        .build();
    let envelope = Envelope::new(Some(FROM.parse()?), vec![TO.parse()?])?;
    let caller = LettreCaller { transport, envelope: Arc::new(envelope), message: message() };

    let (rate, rest) = library::measure(round, &target, caller, CONNECTIONS).await?;
    let mut figures = vec![Figure::spread("messages/s", rate)];
    figures.extend(rest);
    report.add("email", &case, round.backend.name(), &figures);
    target.stop().await;
    if rate == 0.0 { Err("lettre sent nothing".into()) } else { Ok(rate) }
}
