//! The catalogue of settings.

use serde_json::Value;
use url::Url;

/// What a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Any short text without control characters.
    Text,
    /// A mail address.
    Address,
    /// An http or https URL.
    Url,
    /// An http or https URL, or nothing.
    OptionalUrl,
    /// A colour as `#rrggbb`.
    Colour,
    /// A whole number in this range.
    Integer(i64, i64),
    /// True or false.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Text that is sealed and never shown.
    Secret,
}

/// A setting.
#[derive(Debug)]
pub struct Definition {
    /// Its key.
    pub key: &'static str,
    /// What it holds.
    pub kind: Type,
    /// Its value when nobody set one, as JSON text.
    pub default: &'static str,
    /// What it does.
    pub description: &'static str,
    /// The environment variables that pin it.
    pub environment: &'static [&'static str],
}

impl Definition {
    /// The category: the key's first word.
    pub fn category(&self) -> &'static str {
        self.key.split_once('.').map_or("general", |(category, _)| category)
    }

    /// The default.
    pub fn default_value(&self) -> Value {
        serde_json::from_str(self.default).unwrap_or(Value::Null)
    }

    /// Checks a value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        match self.kind {
            Type::Boolean => value.as_bool().map(drop).ok_or_else(|| "must be true or false".into()),
            Type::Integer(least, greatest) => match value.as_i64() {
                Some(number) if (least..=greatest).contains(&number) => Ok(()),
                _ => Err(format!("must be a whole number from {least} to {greatest}")),
            },
            Type::Choice(words) => match value.as_str() {
                Some(word) if words.contains(&word) => Ok(()),
                _ => Err(format!("must be one of {}", words.join(", "))),
            },
            _ => check_text(self.kind, value.as_str().ok_or("must be text")?),
        }
    }

    /// A value from the environment.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(&self, variable: &str, text: &str) -> Result<Value, String> {
        let truth = match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        };
        let value = match self.kind {
            Type::Boolean => Value::Bool(truth.ok_or("must be true or false")?),
            Type::Integer(..) => Value::from(text.parse::<i64>().map_err(|_| "must be a whole number")?),
            // The administrators' own names for it only say whether there is to be TLS.
            Type::Choice(_) if variable.ends_with("USE_TLS") => {
                Value::from(if truth.ok_or("must be true or false")? { "starttls" } else { "none" })
            }
            _ => Value::from(text),
        };
        self.check(&value)?;
        Ok(value)
    }
}

const TEXT_LIMIT: usize = 512;

fn check_text(kind: Type, text: &str) -> Result<(), String> {
    if text.chars().count() > TEXT_LIMIT {
        return Err(format!("must have at most {TEXT_LIMIT} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not have control characters".into());
    }
    let is_url =
        || Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let is_colour =
        || text.len() == 7 && text.starts_with('#') && text[1..].bytes().all(|b| b.is_ascii_hexdigit());
    let is_address = || {
        let (local, domain) = text.rsplit_once('@').unwrap_or_default();
        let plain = |part: &str| !part.is_empty() && !part.contains([' ', '<', '>', ',', ';', '"', '@']);
        plain(local) && plain(domain)
    };
    match kind {
        Type::Address if !is_address() => Err("must be a mail address".into()),
        Type::Url if !is_url() => Err("must be an http or https URL".into()),
        Type::OptionalUrl if !text.is_empty() && !is_url() => {
            Err("must be an http or https URL, or empty".into())
        }
        Type::Colour if !is_colour() => Err("must be a colour such as #4CAF50".into()),
        _ => Ok(()),
    }
}

/// The definition of this key.
pub fn find(key: &str) -> Option<&'static Definition> {
    CATALOGUE.iter().find(|definition| definition.key == key)
}

/// All of them, by key.
pub const CATALOGUE: &[Definition] = &[
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
        key: "email.smtp_host",
        kind: Type::Text,
        default: "\"\"",
        description: "The SMTP server that takes the mails. While it is empty, mails are captured and nothing leaves.",
        environment: &["SMTP_HOST", "EMAIL_HOST"],
    },
    Definition {
        key: "email.smtp_password",
        kind: Type::Secret,
        default: "\"\"",
        description: "The password of the login at the SMTP server.",
        environment: &["SMTP_PASSWORD", "EMAIL_HOST_PASSWORD"],
    },
    Definition {
        key: "email.smtp_port",
        kind: Type::Integer(1, 65_535),
        default: "587",
        description: "The SMTP server's port: usually 587 with starttls, 465 with implicit.",
        environment: &["SMTP_PORT", "EMAIL_PORT"],
    },
    Definition {
        key: "email.smtp_tls",
        kind: Type::Choice(&["starttls", "implicit", "none"]),
        default: "\"starttls\"",
        description: "How the connection to the SMTP server is protected.",
        environment: &["SMTP_TLS", "USE_TLS", "EMAIL_USE_TLS"],
    },
    Definition {
        key: "email.smtp_user",
        kind: Type::Text,
        default: "\"\"",
        description: "The login at the SMTP server. Empty means none.",
        environment: &["SMTP_USER", "EMAIL_HOST_USER"],
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
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sorted_and_its_defaults_are_valid() {
        assert!(CATALOGUE.is_sorted_by_key(|definition| definition.key));
        for definition in CATALOGUE {
            assert_eq!(definition.check(&definition.default_value()), Ok(()), "{}", definition.key);
        }
    }

    #[test]
    fn values_are_checked_by_type() {
        let refuses = |key: &str, value: Value| find(key).unwrap().check(&value).is_err();
        assert!(refuses("email.smtp_port", 0.into()) && refuses("email.smtp_port", 65_536.into()));
        assert!(refuses("email.smtp_port", "587".into()) && refuses("email.smtp_port", 1.5.into()));
        assert!(refuses("email.smtp_tls", "ssl".into()) && refuses("events.strict_types", "yes".into()));
        assert!(
            refuses("email.from_address", "jo".into()) && refuses("email.from_address", "a@b\r\nx".into())
        );
        assert!(
            refuses("general.site_url", "javascript:alert(1)".into())
                && refuses("general.colour", "red".into())
        );
    }

    #[test]
    fn the_administrators_names_are_understood() {
        let tls = find("email.smtp_tls").unwrap();
        assert_eq!(tls.parse("USE_TLS", "True"), Ok("starttls".into()));
        assert_eq!(tls.parse("EMAIL_USE_TLS", "false"), Ok("none".into()));
        assert_eq!(tls.parse("SMTP_TLS", "implicit"), Ok("implicit".into()));
        assert!(find("email.smtp_port").unwrap().parse("SMTP_PORT", "many").is_err());
    }
}
