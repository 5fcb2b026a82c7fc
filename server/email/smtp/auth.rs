//! The login (RFC 4954): PLAIN, LOGIN and XOAUTH2.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::ehlo::Mechanisms;
use super::fault::Cause;
use super::oauth::Token;
use super::reply::Reply;
use super::session::{Talk, Target};
use crate::email::config::{AuthMode, Smtp};

/// A way to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// PLAIN (RFC 4616).
    Plain,
    /// LOGIN.
    Login,
    /// XOAUTH2.
    XOAuth2,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::XOAuth2 => "XOAUTH2",
        })
    }
}

/// The way that is asked for, or the best that the server offers.
fn choose(smtp: &Smtp, offered: Mechanisms) -> Result<Mechanism, Cause> {
    match smtp.auth {
        AuthMode::Plain => Ok(Mechanism::Plain),
        AuthMode::Login => Ok(Mechanism::Login),
        AuthMode::XOAuth2 if smtp.oauth.is_none() => {
            Err(Cause::Settings("XOAUTH2 needs a token endpoint and a refresh token".into()))
        }
        AuthMode::XOAuth2 => Ok(Mechanism::XOAuth2),
        AuthMode::Auto if smtp.oauth.is_some() && offered.xoauth2 => Ok(Mechanism::XOAuth2),
        AuthMode::Auto if offered.plain => Ok(Mechanism::Plain),
        AuthMode::Auto if offered.login => Ok(Mechanism::Login),
        AuthMode::Auto if offered.any() => {
            Err(Cause::Missing("the server offers XOAUTH2 only, and no refresh token is set".into()))
        }
        AuthMode::Auto => Err(Cause::Missing("the server offers no way to log in that is known here".into())),
    }
}

/// Logs in.
pub(super) async fn log_in(
    target: &Target,
    talk: &mut Talk,
    offered: Mechanisms,
) -> Result<Mechanism, Cause> {
    let smtp = &target.smtp;
    if smtp.user.contains('\0') || smtp.password.reveal().contains('\0') {
        return Err(Cause::Settings("neither user nor password may have a NUL".into()));
    }
    let mechanism = choose(smtp, offered)?;
    let reply = match mechanism {
        Mechanism::Plain => {
            let login = Zeroizing::new(format!("\0{}\0{}", smtp.user, smtp.password.reveal()));
            start(target, talk, mechanism, login.as_bytes()).await?
        }
        Mechanism::Login => login(target, talk).await?,
        Mechanism::XOAuth2 => xoauth2(target, talk).await?,
    };
    if reply.is_positive() { Ok(mechanism) } else { Err(Cause::Reply(reply)) }
}

async fn start(target: &Target, talk: &mut Talk, mechanism: Mechanism, login: &[u8]) -> Result<Reply, Cause> {
    let login = Zeroizing::new(BASE64.encode(login));
    let line = Zeroizing::new(format!("AUTH {mechanism} {}\r\n", *login));
    talk.ask(line.as_bytes(), format!("AUTH {mechanism} [secret]\r\n").as_bytes(), target.deadlines.commands)
        .await
}

async fn login(target: &Target, talk: &mut Talk) -> Result<Reply, Cause> {
    let deadline = target.deadlines.commands;
    let reply = talk.ask(b"AUTH LOGIN\r\n", b"AUTH LOGIN\r\n", deadline).await?;
    if reply.code != 334 {
        return Ok(reply);
    }
    let user = format!("{}\r\n", BASE64.encode(&target.smtp.user));
    let reply = talk.ask(user.as_bytes(), b"[secret]\r\n", deadline).await?;
    if reply.code != 334 {
        return Ok(reply);
    }
    let encoded = Zeroizing::new(BASE64.encode(target.smtp.password.reveal()));
    let password = Zeroizing::new(format!("{}\r\n", *encoded));
    talk.ask(password.as_bytes(), b"[secret]\r\n", deadline).await
}

async fn xoauth2(target: &Target, talk: &mut Talk) -> Result<Reply, Cause> {
    let Some(tokens) = &target.tokens else {
        return Err(Cause::Settings("XOAUTH2 needs a token endpoint and a refresh token".into()));
    };
    let Token { text, is_new } = tokens.get(None).await?;
    let reply = with_token(target, talk, text.reveal()).await?;
    if reply.is_positive() || reply.code < 500 || is_new {
        return Ok(reply);
    }
    // A token can be withdrawn before its time is over.
    let Token { text, .. } = tokens.get(Some(&text)).await?;
    with_token(target, talk, text.reveal()).await
}

async fn with_token(target: &Target, talk: &mut Talk, token: &str) -> Result<Reply, Cause> {
    let login = Zeroizing::new(format!("user={}\x01auth=Bearer {token}\x01\x01", target.smtp.user));
    let reply = start(target, talk, Mechanism::XOAuth2, login.as_bytes()).await?;
    if reply.code != 334 {
        return Ok(reply);
    }
    // The challenge is the error; an empty answer gets the reply.
    let mut said = talk.ask(b"\r\n", b"(nothing)\r\n", target.deadlines.commands).await?;
    if let Ok(error) = BASE64.decode(reply.text.trim()) {
        let error: String =
            String::from_utf8_lossy(&error).chars().filter(|c| !c.is_control()).take(300).collect();
        said.text = format!("{} {error}", said.text);
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::email::config::{OAuth, TlsMode};
    use crate::secret::SecretText;

    fn smtp(auth: AuthMode, oauth: bool) -> Smtp {
        let oauth = oauth.then(|| OAuth {
            token_url: "https://example.com/token".into(),
            client_id: "client".into(),
            client_secret: SecretText::default(),
            refresh_token: SecretText::new("refresh"),
        });
        Smtp {
            host: "smtp.example.com".into(),
            port: 587,
            user: "jo".into(),
            password: SecretText::new("password"),
            auth,
            oauth,
            tls: TlsMode::StartTls,
            ca: String::new(),
            connections: 1,
            messages_per_connection: 1,
        }
    }

    #[test]
    fn the_best_way_that_is_offered_is_taken() {
        let offered = |plain, login, xoauth2| Mechanisms { plain, login, xoauth2 };
        let chosen = |auth, oauth, offered| choose(&smtp(auth, oauth), offered).ok();
        let all = offered(true, true, true);
        assert_eq!(chosen(AuthMode::Auto, true, all), Some(Mechanism::XOAuth2));
        assert_eq!(chosen(AuthMode::Auto, false, all), Some(Mechanism::Plain));
        assert_eq!(chosen(AuthMode::Auto, true, offered(true, true, false)), Some(Mechanism::Plain));
        assert_eq!(chosen(AuthMode::Auto, false, offered(false, true, true)), Some(Mechanism::Login));
        assert_eq!(chosen(AuthMode::Auto, false, offered(false, false, true)), None);
        assert_eq!(chosen(AuthMode::Auto, true, offered(false, false, false)), None);
        assert_eq!(chosen(AuthMode::Login, true, all), Some(Mechanism::Login));
        assert_eq!(chosen(AuthMode::Plain, true, all), Some(Mechanism::Plain));
        assert_eq!(chosen(AuthMode::XOAuth2, true, all), Some(Mechanism::XOAuth2));
        assert_eq!(chosen(AuthMode::XOAuth2, false, all), None);
    }
}
