//! What the settings say about mail.  The application hands it over whenever it changes.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::template::Branding;
use crate::secret::SecretText;

/// How the connection to the SMTP server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Plain, then upgraded before the login; refused when the server can not.  Usual on port 587.
    StartTls,
    /// TLS from the first byte.  Usual on port 465.
    Implicit,
    /// Not at all.
    None,
}

/// How the login is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// XOAUTH2 with a refresh token, else PLAIN, else LOGIN, whichever the server offers.
    Auto,
    /// PLAIN (RFC 4616).
    Plain,
    /// LOGIN, which some old servers have and no standard describes.
    Login,
    /// XOAUTH2, as Google and Microsoft have it.
    XOAuth2,
}

/// Where access tokens for XOAUTH2 come from (RFC 6749, section 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuth {
    /// The token endpoint.
    pub token_url: String,
    /// The client's id.
    pub client_id: String,
    /// The client's secret; may be empty.
    pub client_secret: SecretText,
    /// The refresh token.
    pub refresh_token: SecretText,
}

/// A server that mails are handed over to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smtp {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The login; empty for none.
    pub user: String,
    /// The login's password.
    pub password: SecretText,
    /// How the login is made.
    pub auth: AuthMode,
    /// Where access tokens come from.
    pub oauth: Option<OAuth>,
    /// The protection.
    pub tls: TlsMode,
    /// Certificates that are trusted beside the system's, as PEM; may be empty.
    pub ca: String,
    /// How many connections are open at most.
    pub connections: usize,
    /// After how many mails a connection is made anew.
    pub messages_per_connection: usize,
}

/// A key that signs mails (DKIM, RFC 6376).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimKey {
    /// The domain that signs.
    pub domain: String,
    /// Where in the domain the public key is.
    pub selector: String,
    /// The private key, PKCS #8 as PEM.
    pub private_key: SecretText,
}

/// The settings of mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailConfig {
    /// Where mails are handed over, in the order in which they are tried; without any they are captured.
    pub providers: Vec<Smtp>,
    /// Whether mails are captured although there are providers.
    pub capture: bool,
    /// The sender's address.
    pub from_address: String,
    /// The sender's name.
    pub from_name: String,
    /// What every template knows about the sender.
    pub branding: Branding,
    /// The keys that sign.
    pub dkim: Vec<DkimKey>,
    /// How many mails go out in an hour; 0 for no limit.
    pub hourly_limit: u64,
    /// How many mails an hour go to a domain.
    pub domain_limits: HashMap<String, u64>,
    /// Where recipients reach this server; empty when they do not.
    pub public_url: String,
    /// Whether opens are counted.
    pub track_opens: bool,
    /// Whether clicks are counted.
    pub track_clicks: bool,
}

impl EmailConfig {
    /// Whether mails leave this server.
    pub fn sends(&self) -> bool {
        !self.capture && !self.providers.is_empty()
    }
}

/// Reads limits by domain, such as `example.com=500, example.org=50`.
///
/// # Errors
/// What is wrong with them.
pub fn parse_domain_limits(text: &str) -> Result<HashMap<String, u64>, String> {
    let mut limits = HashMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (domain, limit) =
            part.split_once('=').ok_or_else(|| format!("{part:?} must be domain=number"))?;
        let domain = super::address::domain_to_ascii(domain.trim())?;
        let limit = limit.trim().parse().ok().filter(|limit| *limit > 0);
        let limit = limit.ok_or_else(|| format!("the limit of {domain:?} must be a number above 0"))?;
        limits.insert(domain, limit);
    }
    Ok(limits)
}

/// Checks certificates that are to be trusted, as PEM; none are fine.
///
/// # Errors
/// What is wrong with them.
pub fn check_certificates(pem: &str) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("is not certificates as PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("has a certificate that can not be used: {error}"))?;
    }
    if roots.is_empty() && !pem.trim().is_empty() {
        return Err("has no certificate".into());
    }
    Ok(())
}

/// The newest settings.
pub type SharedConfig = Arc<ArcSwap<EmailConfig>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_by_domain_are_read_and_bad_ones_refused() {
        let limits = parse_domain_limits("Example.com=500, bücher.example = 50,").unwrap();
        assert_eq!(
            limits,
            HashMap::from([("example.com".into(), 500), ("xn--bcher-kva.example".into(), 50)])
        );
        for bad in ["example.com", "example.com=0", "example.com=many", "exa mple.com=1"] {
            assert!(parse_domain_limits(bad).is_err(), "{bad}");
        }
    }
}
