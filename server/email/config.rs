//! What the settings say about mail.  The application hands it over whenever it changes.

use std::sync::Arc;

use arc_swap::ArcSwap;

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

/// Where mails are handed over.
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
    /// The protection.
    pub tls: TlsMode,
}

/// The settings of mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailConfig {
    /// Where mails are handed over; without it they are captured.
    pub smtp: Option<Smtp>,
    /// The sender's address.
    pub from_address: String,
    /// The sender's name.
    pub from_name: String,
    /// What every template knows about the sender.
    pub branding: Branding,
}

/// The newest settings.
pub type SharedConfig = Arc<ArcSwap<EmailConfig>>;
