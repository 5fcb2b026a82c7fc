//! What an administrator can do about a fault.

use std::io::ErrorKind;

use super::fault::{self, Cause, Fault, Stage, TlsProblem};
use super::reply::Reply;
use crate::email::config::{Smtp, TlsMode};

/// What a fault means, and what to do about it.
pub(super) fn explain(fault: &Fault, smtp: &Smtp) -> String {
    let Smtp { host, port, .. } = smtp;
    match (&fault.cause, fault.stage) {
        (Cause::Io(..) | Cause::Timeout, Stage::Resolve) => {
            format!("The name {host} has no address. Check the host for typing errors, and that this machine's DNS works.")
        }
        (Cause::Io(ErrorKind::ConnectionRefused, _), _) => format!(
            "Nothing accepts connections on port {port} of {host}. Check the port: 587 for STARTTLS, 465 for implicit TLS."
        ),
        (Cause::Timeout, Stage::Connect) => format!(
            "The connection to {host} timed out. A firewall may block port {port}: many hosts block outgoing mail, \
             port 25 first of all. Try port 587 or 465, or ask whoever runs the network."
        ),
        (Cause::Io(..) | Cause::Closed, Stage::Connect) => format!(
            "No connection to {host} on port {port} can be made. Check that this machine reaches it, and that no \
             firewall is in between."
        ),
        (Cause::Timeout | Cause::Closed | Cause::Protocol(_), Stage::Greeting)
            if smtp.tls != TlsMode::Implicit =>
        {
            format!(
                "Port {port} accepts the connection and does not greet. It probably wants TLS from the first byte, as \
                 port 465 does: use implicit TLS, or port 587 with STARTTLS."
            )
        }
        (Cause::Tls(problem, _), _) => tls(*problem, smtp),
        (Cause::Missing(_), Stage::StartTls) => format!(
            "The server does not offer STARTTLS on port {port}. Use implicit TLS on port 465 if it has that, or no TLS \
             if the server is on a network that can be trusted."
        ),
        (Cause::Timeout | Cause::Closed | Cause::Io(..), Stage::Tls) if smtp.tls == TlsMode::Implicit => format!(
            "The TLS negotiation on port {port} was not answered. If the port speaks plain text first, as 587 does, \
             use STARTTLS."
        ),
        (Cause::Protocol(_), Stage::Tls) => {
            "The server sent more than it may before TLS began. Somebody on the way may be tampering with the connection: \
             nothing was sent."
                .into()
        }
        (Cause::Missing(_), Stage::Auth) if smtp.tls == TlsMode::None => {
            "The server offers no login on an unprotected connection. Use STARTTLS on port 587 or implicit TLS on 465."
                .into()
        }
        (Cause::Missing(_), _) => {
            "The server offers no login that fits. Leave the user empty if it takes mail without one, or choose \
             another kind of login."
                .into()
        }
        (Cause::Token { refused: true, .. }, _) => {
            "The refresh token or the client is not accepted any more. Authorise the application again and set the new \
             refresh token."
                .into()
        }
        (Cause::Token { .. }, _) => {
            "The token endpoint can not be used now. Check its URL, and that this machine reaches it.".into()
        }
        (Cause::Settings(words), _) => format!("The settings can not be used: {words}."),
        (Cause::Reply(reply), stage) => self::reply(stage, reply, smtp),
        (Cause::Timeout, stage) => {
            format!("The server accepted the connection, and did not answer in time ({stage}). Try again later.")
        }
        (Cause::Closed | Cause::Io(..), stage) => {
            format!("The server closed the connection ({stage}). It may limit connections, or refuse this address.")
        }
        (Cause::Protocol(words), _) => {
            format!("What answers on port {port} of {host} does not keep to SMTP: {words}. Check host and port.")
        }
    }
}

fn tls(problem: TlsProblem, smtp: &Smtp) -> String {
    let Smtp { host, port, .. } = smtp;
    match problem {
        TlsProblem::NotTls if smtp.tls == TlsMode::Implicit => {
            format!("Port {port} speaks plain text first: use STARTTLS, or port 465 for implicit TLS.")
        }
        TlsProblem::NotTls => "The server offered STARTTLS and does not speak TLS.".into(),
        TlsProblem::Untrusted => format!(
            "Nobody whom this machine trusts vouches for the certificate of {host}. If the server is yours, set the \
             certificate of its authority to be trusted."
        ),
        TlsProblem::WrongName => format!(
            "The server's certificate is not for {host}. Use the name that is in the certificate as the host."
        ),
        TlsProblem::Expired => {
            "The server's certificate has expired or is not valid yet. Have it renewed, and check this machine's clock."
                .into()
        }
        TlsProblem::Other => {
            format!("TLS with {host} could not be agreed on. It may only have versions older than TLS 1.2.")
        }
    }
}

fn reply(stage: Stage, reply: &Reply, smtp: &Smtp) -> String {
    let words = reply.text.to_ascii_lowercase();
    let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
    if fault::is_login(reply) || stage == Stage::Auth {
        return login(reply, smtp, &words);
    }
    let for_now = reply.code < 500;
    match stage {
        Stage::Greeting | Stage::Ehlo if reply.code >= 500 => {
            "The server does not take connections from this address. It may have to be allowed there first.".into()
        }
        Stage::StartTls => "The server offers STARTTLS and refuses it. Try implicit TLS on port 465.".into(),
        _ if reply.code == 421 => {
            "The server does not take mail now: it is busy, or this address connected too often. Try again later.".into()
        }
        Stage::Mail | Stage::Content
            if reply.is_about(7, &[60, 27]) || reply.is_about(1, &[7, 8]) || says(&["send as", "sendas", "sender"]) =>
        {
            "The login may not send from this address. Use an address that belongs to it, or have the address or its \
             domain verified at the provider."
                .into()
        }
        Stage::Mail if !for_now => {
            "The server does not take mail from this sender. Check the sender's address, and that its domain is \
             verified at the provider."
                .into()
        }
        Stage::Rcpt if says(&["relay"]) => {
            "The server does not pass mail on for strangers. A login is needed, or the sender's domain is not known to it."
                .into()
        }
        Stage::Rcpt if !for_now => "The server refuses the recipient. Check the address.".into(),
        Stage::Content if reply.is_about(3, &[4]) || reply.code == 552 => {
            "The mail is larger than the server takes.".into()
        }
        Stage::Content if !for_now => {
            "The server refuses the mail itself: its reply says why. SPF, DKIM or the content may be what it objects to."
                .into()
        }
        _ if for_now => "The server refuses for now: its reply says why. Try again later.".into(),
        _ => "The server refuses: its reply says why.".into(),
    }
}

fn login(reply: &Reply, smtp: &Smtp, words: &str) -> String {
    let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
    if reply.code < 500 {
        return "The server can not check the login now. Try again later.".into();
    }
    if says(&["smtpclientauthentication is disabled", "basic authentication is disabled", "5.7.139"]) {
        return "The provider has switched off logins with a password for this mailbox. Use XOAUTH2, or have SMTP AUTH \
                switched on for it."
            .into();
    }
    if says(&["application-specific", "app password", "5.7.9", "webloginrequired"]) || reply.code == 534 {
        return "Authentication failed: with two-step verification the provider wants an app password in place of the \
                account's own. Make one and set it."
            .into();
    }
    if reply.code == 530 && says(&["starttls"]) {
        return "The server wants TLS before the login: use STARTTLS.".into();
    }
    if reply.code == 530 && smtp.user.is_empty() {
        return "The server wants a login. Set user and password.".into();
    }
    if reply.code == 538 {
        return "The server wants TLS before the login: use STARTTLS or implicit TLS.".into();
    }
    if (500..=504).contains(&reply.code) {
        return "The server does not know this kind of login. Choose another one.".into();
    }
    "Authentication failed: user or password is wrong, or the account may not send by SMTP. Providers with two-step \
     verification want an app password; some take no passwords at all any more, only XOAUTH2."
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::email::config::AuthMode;
    use crate::secret::SecretText;

    fn smtp(tls: TlsMode) -> Smtp {
        Smtp {
            host: "smtp.example.com".into(),
            port: 587,
            user: "jo".into(),
            password: SecretText::default(),
            auth: AuthMode::Auto,
            oauth: None,
            tls,
            ca: String::new(),
            connections: 1,
            messages_per_connection: 1,
        }
    }

    #[test]
    fn every_usual_trouble_has_its_advice() {
        let io = |kind: ErrorKind| Cause::Io(kind, kind.to_string());
        let said = |text: &str| Cause::Reply(Reply::read(text[..3].parse().unwrap(), text.as_bytes()));
        let tls = |problem| Cause::Tls(problem, String::new());
        use TlsMode::{Implicit, None, StartTls};
        for (stage, cause, mode, expected) in [
            (Stage::Resolve, io(ErrorKind::Other), StartTls, "no address"),
            (
                Stage::Connect,
                io(ErrorKind::ConnectionRefused),
                StartTls,
                "Nothing accepts connections on port 587",
            ),
            (Stage::Connect, Cause::Timeout, StartTls, "firewall may block port 587"),
            (Stage::Greeting, Cause::Timeout, StartTls, "use implicit TLS"),
            (Stage::Greeting, Cause::Closed, StartTls, "use implicit TLS"),
            (Stage::Tls, tls(TlsProblem::NotTls), Implicit, "speaks plain text first: use STARTTLS"),
            (Stage::Tls, tls(TlsProblem::Untrusted), StartTls, "vouches for the certificate"),
            (Stage::Tls, tls(TlsProblem::WrongName), StartTls, "not for smtp.example.com"),
            (Stage::Tls, tls(TlsProblem::Expired), StartTls, "expired"),
            (Stage::StartTls, Cause::Missing(String::new()), StartTls, "does not offer STARTTLS"),
            (Stage::Auth, Cause::Missing(String::new()), None, "unprotected"),
            (
                Stage::Auth,
                said("535 5.7.8 Username and Password not accepted"),
                StartTls,
                "Authentication failed",
            ),
            (Stage::Auth, said("534 5.7.9 Application-specific password required"), StartTls, "app password"),
            (
                Stage::Auth,
                said("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled"),
                StartTls,
                "XOAUTH2",
            ),
            (Stage::Auth, said("504 5.5.4 Unrecognized"), StartTls, "kind of login"),
            (Stage::Mail, said("530 5.7.0 Must issue a STARTTLS command first"), None, "use STARTTLS"),
            (
                Stage::Mail,
                said("550 5.7.60 Client does not have permissions to send as"),
                StartTls,
                "may not send from",
            ),
            (Stage::Mail, said("553 5.1.8 Sender rejected"), StartTls, "may not send from"),
            (Stage::Mail, said("550 5.1.7 Bad"), StartTls, "may not send from"),
            (Stage::Rcpt, said("550 5.1.1 Unknown"), StartTls, "Check the address"),
            (Stage::Rcpt, said("554 Relay access denied"), StartTls, "strangers"),
            (Stage::Content, said("552 5.3.4 Too big"), StartTls, "larger"),
            (Stage::Rcpt, said("450 4.7.1 Greylisted"), StartTls, "for now"),
            (Stage::Greeting, said("421 Too many connections"), StartTls, "busy"),
            (
                Stage::Auth,
                Cause::Token { refused: true, words: String::new() },
                StartTls,
                "new refresh token",
            ),
        ] {
            let fault = Fault::new(stage, cause);
            let words = explain(&fault, &smtp(mode));
            assert!(words.contains(expected), "{fault}: {words}");
        }
    }
}
