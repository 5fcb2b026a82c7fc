//! The configuration file: settings as TOML, a table for each category.

use std::path::Path;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::catalogue::CATALOGUE;
use super::definition;
use super::given::{Pin, Pins};
use super::values::Origin;
use crate::error::Violations;
use crate::rpc::tls;

/// The tables that are not settings: what must be known before there is a database.
const NOT_SETTINGS: [&str; 1] = [tls::TABLE];

/// Reads the settings of a file, and notes all that is wrong with it as `file:line key`.
pub(super) fn read(path: &Path, violations: &mut Violations) -> Pins {
    let name = path.display().to_string();
    let pins = match std::fs::read_to_string(path) {
        Err(error) => {
            violations.add(name, format!("can not be read: {error}"));
            Pins::new()
        }
        Ok(text) => read_text(&name, &text, violations),
    };
    warn_of_readers(path, &pins);
    pins
}

/// Reads the settings of a file of this name with this text.
pub(super) fn read_text(name: &str, text: &str, violations: &mut Violations) -> Pins {
    let mut pins = Pins::new();
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let mut reader = Reader { name, text, violations, pins: &mut pins };
        reader.table("", table.get_ref());
    }
    for error in errors {
        let line = line_of(text, error.span().map_or(0, |span| span.start));
        violations.add(format!("{name}:{line}"), error.message());
    }
    pins
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    violations: &'a mut Violations,
    pins: &'a mut Pins,
}

impl Reader<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        // In the order of the file, so that errors are.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let source = format!("{}:{}", self.name, line_of(self.text, key.span().start));
            let key = format!("{prefix}{}", key.get_ref());
            let below = format!("{key}.");
            match value.get_ref() {
                DeValue::Table(table) if CATALOGUE.iter().any(|known| known.key.starts_with(&below)) => {
                    self.table(&below, table);
                }
                DeValue::Table(_) if NOT_SETTINGS.contains(&key.as_str()) => {}
                _ => self.entry(&key, value, source),
            }
        }
    }

    fn entry(&mut self, key: &str, value: &Spanned<DeValue<'_>>, source: String) {
        let field = format!("{source} {key}");
        let Some(definition) = definition::find(key) else {
            self.violations.add(field, "is not a setting");
            return;
        };
        let checked = json(value.get_ref()).and_then(|value| definition.check(&value).map(|()| value));
        if let Some(value) = self.violations.check(&field, checked) {
            self.pins.insert(definition.key, Pin { value, origin: Origin::ConfigurationFile, source });
        }
    }
}

fn json(value: &DeValue<'_>) -> Result<Value, String> {
    match value {
        DeValue::String(text) => Ok(Value::from(text.as_ref())),
        DeValue::Boolean(truth) => Ok(Value::from(*truth)),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Value::from)
            .map_err(|_| "is a number that is too large".into()),
        _ => Err("must be text, a whole number, or true or false".into()),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

/// A secret in a file that others can read is no secret.
fn warn_of_readers(path: &Path, pins: &Pins) {
    use std::os::unix::fs::PermissionsExt;
    let secret = |key: &str| definition::find(key).is_some_and(|definition| definition.kind.is_secret());
    let readable = || std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0);
    if pins.keys().any(|key| secret(key)) && readable() {
        tracing::warn!(file = %path.display(), "the configuration file has secrets, and others can read it: chmod 600");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Pins, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        let mut violations = Violations::default();
        let pins = read(&path, &mut violations);
        let said = |error: crate::error::Error| {
            let folder = format!("{}/", folder.path().display());
            error.to_string().replace(&folder, "")
        };
        violations.finish().map(|()| pins).map_err(said)
    }

    #[test]
    fn tables_and_dotted_keys_are_the_same() {
        let text = "general.company_name = \"Zoo\"\n[email]\nsmtp_port = 2_525 # ours\ncapture = true\n";
        let pins = parse(text).unwrap_or_default();
        assert_eq!(pins["general.company_name"].value, "Zoo");
        assert_eq!(pins["email.smtp_port"].value, 2525);
        assert_eq!(pins["email.capture"].value, true);
        assert!(pins["email.smtp_port"].source.ends_with("c.toml:3"), "{}", pins["email.smtp_port"].source);
        assert!(parse("").is_ok_and(|pins| pins.is_empty()));
    }

    #[test]
    fn errors_name_the_line_and_the_key() {
        let wrong = |text: &str, parts: &[&str]| {
            let error = parse(text).err().unwrap();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        };
        wrong("[email]\n\nsmtp_prot = 1\n", &["c.toml:3 email.smtp_prot: is not a setting"]);
        wrong("[nonsense]\nx = 1\n", &["c.toml:1 nonsense: is not a setting"]);
        wrong("[email]\nsmtp_port = \"25\"\n", &["c.toml:2 email.smtp_port: must be a whole number"]);
        wrong("[email]\nsmtp_port = [25]\n", &["c.toml:2 email.smtp_port: must be text"]);
        wrong("[email]\nsmtp_port = 25\nsmtp_port = 26\n", &["c.toml:3: duplicate key"]);
        wrong("[email]\nsmtp_host = mail\n", &["c.toml:2: "]);
        wrong("[email.smtp_host]\nx = 1\n", &["c.toml:1 email.smtp_host: must be text"]);
    }
}
