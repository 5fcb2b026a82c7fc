//! The settings of SMTP servers.

use super::super::definition::{Definition, Type};

/// The settings of one SMTP server; the environment names the first one only.
macro_rules! provider {
    ($key:literal, $ordinal:literal, $unset:literal,
     [$host:expr, $port:expr, $user:expr, $password:expr, $tls:expr, $preset:expr]) => {
        [
            Definition {
                key: concat!($key, "_auth"),
                kind: Type::Choice(&["auto", "plain", "login", "xoauth2"]),
                default: "\"auto\"",
                description: concat!(
                    "How the login at the ",
                    $ordinal,
                    "SMTP server is made; xoauth2 uses the refresh token."
                ),
                environment: &[],
            },
            Definition {
                key: concat!($key, "_ca"),
                kind: Type::Certificates,
                default: "\"\"",
                description: concat!(
                    "Certificates that are trusted at the ",
                    $ordinal,
                    "SMTP server beside the system's, as PEM."
                ),
                environment: &[],
            },
            Definition {
                key: concat!($key, "_connections"),
                kind: Type::Integer(1, 100),
                default: "8",
                description: concat!(
                    "How many connections to the ",
                    $ordinal,
                    "SMTP server are open at most."
                ),
                environment: &[],
            },
            Definition {
                key: concat!($key, "_host"),
                kind: Type::Text,
                default: "\"\"",
                description: concat!("The ", $ordinal, "SMTP server. ", $unset),
                environment: $host,
            },
            Definition {
                key: concat!($key, "_messages_per_connection"),
                kind: Type::Integer(1, 100_000),
                default: "100",
                description: concat!(
                    "After how many mails a connection to the ",
                    $ordinal,
                    "SMTP server is made anew."
                ),
                environment: &[],
            },
            Definition {
                key: concat!($key, "_oauth_client_id"),
                kind: Type::Text,
                default: "\"\"",
                description: concat!(
                    "The client id that gets access tokens for the ",
                    $ordinal,
                    "SMTP server."
                ),
                environment: &[],
            },
            Definition {
                key: concat!($key, "_oauth_client_secret"),
                kind: Type::Secret,
                default: "\"\"",
                description: concat!(
                    "The client secret that gets access tokens for the ",
                    $ordinal,
                    "SMTP server."
                ),
                environment: &[],
            },
            Definition {
                key: concat!($key, "_oauth_refresh_token"),
                kind: Type::Secret,
                default: "\"\"",
                description: concat!(
                    "The refresh token that gets access tokens for the ",
                    $ordinal,
                    "SMTP server."
                ),
                environment: &[],
            },
            Definition {
                key: concat!($key, "_oauth_token_url"),
                kind: Type::OptionalUrl,
                default: "\"\"",
                description: concat!(
                    "Where access tokens for the ",
                    $ordinal,
                    "SMTP server come from. Empty means where the preset's do."
                ),
                environment: &[],
            },
            Definition {
                key: concat!($key, "_password"),
                kind: Type::Secret,
                default: "\"\"",
                description: concat!("The password of the login at the ", $ordinal, "SMTP server."),
                environment: $password,
            },
            Definition {
                key: concat!($key, "_port"),
                kind: Type::Integer(1, 65_535),
                default: "587",
                description: concat!(
                    "The port of the ",
                    $ordinal,
                    "SMTP server: usually 587 with starttls, 465 with implicit."
                ),
                environment: $port,
            },
            Definition {
                key: concat!($key, "_preset"),
                kind: Type::Choice(&["custom", "gmail", "outlook", "sendgrid", "mailgun", "ses"]),
                default: "\"custom\"",
                description: concat!(
                    "Whose server the ",
                    $ordinal,
                    "SMTP server is: gives the host, the port and the protection that are not set."
                ),
                environment: $preset,
            },
            Definition {
                key: concat!($key, "_tls"),
                kind: Type::Choice(&["starttls", "implicit", "none"]),
                default: "\"starttls\"",
                description: concat!("How the connection to the ", $ordinal, "SMTP server is protected."),
                environment: $tls,
            },
            Definition {
                key: concat!($key, "_user"),
                kind: Type::Text,
                default: "\"\"",
                description: concat!("The login at the ", $ordinal, "SMTP server. Empty means none."),
                environment: $user,
            },
        ]
    };
}

pub(super) const FIRST_PROVIDER: [Definition; 14] = provider!(
    "email.smtp",
    "",
    "While it is empty, mails are captured and nothing leaves.",
    [
        &["SMTP_HOST", "EMAIL_HOST"],
        &["SMTP_PORT", "EMAIL_PORT"],
        &["SMTP_USER", "EMAIL_HOST_USER"],
        &["SMTP_PASSWORD", "EMAIL_HOST_PASSWORD"],
        &["SMTP_TLS", "USE_TLS", "EMAIL_USE_TLS"],
        &["SMTP_PRESET"]
    ]
);
pub(super) const SECOND_PROVIDER: [Definition; 14] = provider!(
    "email.smtp2",
    "second ",
    "It takes the mails that the first one can not take, for a fault of its own.",
    [&[], &[], &[], &[], &[], &[]]
);
pub(super) const THIRD_PROVIDER: [Definition; 14] = provider!(
    "email.smtp3",
    "third ",
    "It takes the mails that the others can not take, for faults of their own.",
    [&[], &[], &[], &[], &[], &[]]
);
