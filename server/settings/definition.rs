//! What a setting is, and what makes a value of it valid.

use serde_json::Value;
use url::Url;

use super::catalogue::CATALOGUE;
use crate::rpc::admission::Networks;

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
    /// Networks and addresses with commas between, or nothing.
    Networks,
    /// Certificates as PEM, or nothing.
    Certificates,
    /// A private key as PEM, sealed and never shown, or nothing.
    PrivateKey,
}

impl Type {
    /// Whether its values are sealed and never shown.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::PrivateKey)
    }
}

/// A setting.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Its key.
    pub key: &'static str,
    /// What it holds.
    pub kind: Type,
    /// Its value when nobody set one, as JSON text.
    pub default: &'static str,
    /// What it does.
    pub description: &'static str,
    /// The established environment variables that pin it, beside the one that is made of its key.
    pub environment: &'static [&'static str],
}

impl Definition {
    /// The category: the key's first word.
    pub fn category(&self) -> &'static str {
        self.key.split_once('.').map_or("general", |(category, _)| category)
    }

    /// The environment variables that pin it, the first one found wins: `SWITCHBOARD_` with its key, then the
    /// established ones.
    pub fn variables(&self) -> Vec<String> {
        let own = format!("SWITCHBOARD_{}", self.key.replace('.', "_").to_ascii_uppercase());
        let established = self.environment.iter().map(|&name| name.to_owned());
        std::iter::once(own).chain(established).collect()
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
const NETWORKS_LIMIT: usize = 8 * 1024;
const PEM_LIMIT: usize = 64 * 1024;
/// Tokens of identity providers are longer than what people type.
const SECRET_LIMIT: usize = 8 * 1024;

fn check_text(kind: Type, text: &str) -> Result<(), String> {
    if matches!(kind, Type::Certificates | Type::PrivateKey) {
        return check_pem(kind, text);
    }
    let limit = match kind {
        Type::Secret => SECRET_LIMIT,
        Type::Networks => NETWORKS_LIMIT,
        _ => TEXT_LIMIT,
    };
    if text.chars().count() > limit {
        return Err(format!("must have at most {limit} characters"));
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
        Type::Networks => Networks::parse(text).map(drop),
        Type::Address if !is_address() => Err("must be a mail address".into()),
        Type::Url if !is_url() => Err("must be an http or https URL".into()),
        Type::OptionalUrl if !text.is_empty() && !is_url() => {
            Err("must be an http or https URL, or empty".into())
        }
        Type::Colour if !is_colour() => Err("must be a colour such as #4CAF50".into()),
        _ => Ok(()),
    }
}

fn check_pem(kind: Type, text: &str) -> Result<(), String> {
    let (label, what) = match kind {
        Type::Certificates => ("CERTIFICATE-----", "certificates as PEM, or empty"),
        _ => ("PRIVATE KEY-----", "a private key as PEM, or empty"),
    };
    let text = text.trim();
    let framed = text.starts_with("-----BEGIN ") && text.contains(label);
    let plain = text.len() <= PEM_LIMIT && text.chars().all(|c| matches!(c, '\r' | '\n' | ' '..='~'));
    if text.is_empty() || framed && plain { Ok(()) } else { Err(format!("must be {what}")) }
}

/// All of them, by key.
pub fn all() -> impl Iterator<Item = &'static Definition> {
    CATALOGUE.iter()
}

/// The definition of this key.
pub fn find(key: &str) -> Option<&'static Definition> {
    CATALOGUE.iter().find(|definition| definition.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sorted_and_its_defaults_are_valid() {
        assert!(CATALOGUE.is_sorted_by_key(|definition| definition.key));
        for definition in CATALOGUE.iter() {
            assert_eq!(definition.check(&definition.default_value()), Ok(()), "{}", definition.key);
        }
    }

    #[test]
    fn a_variable_pins_one_setting() {
        let mut names: Vec<_> = CATALOGUE.iter().flat_map(Definition::variables).collect();
        let files: Vec<_> = names.iter().map(|name| format!("{name}_FILE")).collect();
        names.extend(files);
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert_eq!(
            find("general.site_url").unwrap().variables(),
            ["SWITCHBOARD_GENERAL_SITE_URL", "SITE_URL"]
        );
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
