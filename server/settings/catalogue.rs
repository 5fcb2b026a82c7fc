//! The catalogue of settings: every setting that there is.

use std::sync::LazyLock;

use super::definition::{Definition, Type};

/// All of them, by key.
pub static CATALOGUE: LazyLock<Vec<Definition>> = LazyLock::new(|| {
    let mut all = Vec::from(PLAIN);
    all.extend(FIRST_PROVIDER);
    all.extend(SECOND_PROVIDER);
    all.extend(THIRD_PROVIDER);
    all.sort_by_key(|definition| definition.key);
    all
});

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

const FIRST_PROVIDER: [Definition; 14] = provider!(
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
const SECOND_PROVIDER: [Definition; 14] = provider!(
    "email.smtp2",
    "second ",
    "It takes the mails that the first one can not take, for a fault of its own.",
    [&[], &[], &[], &[], &[], &[]]
);
const THIRD_PROVIDER: [Definition; 14] = provider!(
    "email.smtp3",
    "third ",
    "It takes the mails that the others can not take, for faults of their own.",
    [&[], &[], &[], &[], &[], &[]]
);

const PLAIN: [Definition; 41] = [
    Definition {
        key: "apikeys.default_expiry_days",
        kind: Type::Integer(1, 365),
        default: "90",
        description: "How many days a new API key works when its maker says nothing; never more than apikeys.max_expiry_days.",
        environment: &[],
    },
    Definition {
        key: "apikeys.max_expiry_days",
        kind: Type::Integer(1, 365),
        default: "365",
        description: "How many days a new API key works at most.",
        environment: &[],
    },
    Definition {
        key: "apikeys.log_days",
        kind: Type::Integer(1, 365),
        default: "7",
        description: "For how many days each use of an API key is kept in the log.",
        environment: &[],
    },
    Definition {
        key: "apikeys.usage_days",
        kind: Type::Integer(32, 3_650),
        default: "400",
        description: "For how many days it is kept how often API keys were used.",
        environment: &[],
    },
    Definition {
        key: "email.capture",
        kind: Type::Boolean,
        default: "false",
        description: "Captures every mail instead of sending it, also when an SMTP host is set.",
        environment: &["EMAIL_CAPTURE"],
    },
    Definition {
        key: "email.click_tracking",
        kind: Type::Boolean,
        default: "false",
        description: "Counts the links that are followed in mails to one recipient. Needs email.public_url.",
        environment: &[],
    },
    Definition {
        key: "email.dkim_domain",
        kind: Type::Text,
        default: "\"\"",
        description: "The domain that mails are signed for (DKIM). Empty means that of the sender's address.",
        environment: &[],
    },
    Definition {
        key: "email.dkim_private_key",
        kind: Type::PrivateKey,
        default: "\"\"",
        description: "The private key of the DKIM signature as PKCS #8 PEM, Ed25519 or RSA. Empty means that mails are not signed.",
        environment: &[],
    },
    Definition {
        key: "email.dkim_second_private_key",
        kind: Type::PrivateKey,
        default: "\"\"",
        description: "The private key of a second DKIM signature, as for the other algorithm or while keys change.",
        environment: &[],
    },
    Definition {
        key: "email.dkim_second_selector",
        kind: Type::Text,
        default: "\"switchboard2\"",
        description: "The selector of the second DKIM signature.",
        environment: &[],
    },
    Definition {
        key: "email.dkim_selector",
        kind: Type::Text,
        default: "\"switchboard\"",
        description: "The selector of the DKIM signature: its public key is in the DNS at <selector>._domainkey.<domain>.",
        environment: &[],
    },
    Definition {
        key: "email.domain_limits",
        kind: Type::Text,
        default: "\"\"",
        description: "How many mails an hour go to a domain, such as `example.com=500, example.org=50`. The others have no limit.",
        environment: &[],
    },
    Definition {
        key: "email.from_address",
        kind: Type::Address,
        default: "\"switchboard@example.com\"",
        description: "The address that mails are from.",
        environment: &["FROM_EMAIL", "DEFAULT_FROM_EMAIL"],
    },
    Definition {
        key: "email.from_name",
        kind: Type::Text,
        default: "\"Switchboard\"",
        description: "The name that mails are from.",
        environment: &["FROM_NAME"],
    },
    Definition {
        key: "email.hourly_limit",
        kind: Type::Integer(0, 100_000_000),
        default: "100",
        description: "How many mails an hour go out at most; mail beyond it waits. 0 means no limit.",
        environment: &["EMAIL_HOURLY_LIMIT"],
    },
    Definition {
        key: "email.open_tracking",
        kind: Type::Boolean,
        default: "false",
        description: "Counts how often mails to one recipient are opened, by a picture in them. Needs email.public_url.",
        environment: &[],
    },
    Definition {
        key: "email.public_url",
        kind: Type::OptionalUrl,
        default: "\"\"",
        description: "Where recipients reach this server, such as https://mail.example.com: for the links to unsubscribe and, where they are tracked, to follow.",
        environment: &["EMAIL_PUBLIC_URL"],
    },
    Definition {
        key: "events.strict_types",
        kind: Type::Boolean,
        default: "false",
        description: "Refuses events whose type is not in the catalogue.",
        environment: &["SWITCHBOARD_STRICT_TYPES"],
    },
    Definition {
        key: "general.colour",
        kind: Type::Colour,
        default: "\"#2F6FDE\"",
        description: "The colour of the mails' header and buttons.",
        environment: &["BRAND_COLOUR"],
    },
    Definition {
        key: "general.company_name",
        kind: Type::Text,
        default: "\"Switchboard\"",
        description: "The organisation that the mails speak for.",
        environment: &["COMPANY_NAME"],
    },
    Definition {
        key: "general.logo_url",
        kind: Type::OptionalUrl,
        default: "\"\"",
        description: "A picture for the mails' header.",
        environment: &["LOGO_URL"],
    },
    Definition {
        key: "general.site_url",
        kind: Type::Url,
        default: "\"http://localhost:8080\"",
        description: "The site that the mails link to.",
        environment: &["SITE_URL"],
    },
    Definition {
        key: "general.support_email",
        kind: Type::Address,
        default: "\"support@example.com\"",
        description: "Where a recipient can ask for help.",
        environment: &["SUPPORT_EMAIL"],
    },
    Definition {
        key: "retention.deliveries_days",
        kind: Type::Integer(0, 36_500),
        default: "30",
        description: "How many days webhook deliveries that have ended are kept, with their attempts; 0 means for ever.",
        environment: &[],
    },
    Definition {
        key: "retention.emails_days",
        kind: Type::Integer(0, 36_500),
        default: "90",
        description: "How many days mails that have ended are kept, with their texts, files and attempts; 0 means for ever.",
        environment: &[],
    },
    Definition {
        key: "retention.events_days",
        kind: Type::Integer(0, 36_500),
        default: "30",
        description: "How many days events are kept. One stays longer while a delivery of it has not ended or a mail that it caused is kept; 0 means for ever.",
        environment: &[],
    },
    Definition {
        key: "security.failed_keys_per_minute",
        kind: Type::Integer(0, 1_000_000),
        default: "20",
        description: "How many keys that do not work an address may show in a minute; beyond that it is refused and no key is looked up. 0 means any number.",
        environment: &[],
    },
    Definition {
        key: "security.ip_allow",
        kind: Type::Networks,
        default: "\"\"",
        description: "The networks that alone may call the API, such as `10.0.0.0/8, 2001:db8::/32`. Empty means all.",
        environment: &[],
    },
    Definition {
        key: "security.ip_deny",
        kind: Type::Networks,
        default: "\"\"",
        description: "The networks that may not call this server, whatever security.ip_allow has.",
        environment: &[],
    },
    Definition {
        key: "security.rate_limit_per_ip",
        kind: Type::Integer(0, 1_000_000_000),
        default: "0",
        description: "How many requests an address may make in a minute; a /64 of IPv6 counts as one. 0 means any number.",
        environment: &[],
    },
    Definition {
        key: "security.rate_limit_per_key",
        kind: Type::Integer(0, 1_000_000_000),
        default: "10000",
        description: "How many requests an API key without a rate limit of its own may make in an hour. 0 means any number.",
        environment: &[],
    },
    Definition {
        key: "security.trusted_proxies",
        kind: Type::Networks,
        default: "\"\"",
        description: "The networks of the proxies before this server: from them alone x-forwarded-for is believed. Empty means that a request is from whoever connects.",
        environment: &[],
    },
    Definition {
        key: "security.webhook_signature",
        kind: Type::Choice(&["both", "standard", "plain"]),
        default: "\"both\"",
        description: "What requests to webhooks are signed with: webhook-signature (standard), X-Webhook-Signature (plain), or both. Endpoints with an Ed25519 key always have the standard one.",
        environment: &[],
    },
    Definition {
        key: "webhook.disable_after_days",
        kind: Type::Integer(0, 365),
        default: "5",
        description: "For how many days an endpoint is seen failing only before it is disabled and webhook.disabled is published; 0 means never.",
        environment: &[],
    },
    Definition {
        key: "webhook.failing_after_hours",
        kind: Type::Integer(0, 8_760),
        default: "1",
        description: "For how many hours an endpoint has only failed when webhook.failing is published; 0 means never.",
        environment: &[],
    },
    Definition {
        key: "webhook.hourly_limit",
        kind: Type::Integer(0, 1_000_000_000),
        default: "1000",
        description: "How many requests go to an endpoint in an hour, for endpoints without a limit of their own; 0 means any number. What is over waits.",
        environment: &[],
    },
    Definition {
        key: "webhook.proxy_password",
        kind: Type::Secret,
        default: "\"\"",
        description: "The password at the proxy that webhooks go through.",
        environment: &[],
    },
    Definition {
        key: "webhook.proxy_url",
        kind: Type::OptionalUrl,
        default: "\"\"",
        description: "The HTTP proxy that webhooks go through, such as http://proxy.example.com:3128; it is asked for a tunnel to an address (CONNECT). Empty means none.",
        environment: &[],
    },
    Definition {
        key: "webhook.proxy_username",
        kind: Type::Text,
        default: "\"\"",
        description: "The user name at the proxy that webhooks go through. Empty, with an empty password, means no login.",
        environment: &[],
    },
    Definition {
        key: "webhook.retry_client_errors",
        kind: Type::Boolean,
        default: "false",
        description: "Makes a request again that was answered with 400 to 499, for endpoints without retries of their own.",
        environment: &[],
    },
    Definition {
        key: "webhook.retry_schedule",
        kind: Type::Text,
        default: "\"1m, 5m, 15m\"",
        description: "The waits before a failed request is made again, for endpoints without retries of their own: numbers with s, m, h or d.",
        environment: &[],
    },
];
