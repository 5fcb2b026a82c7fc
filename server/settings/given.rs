//! The values that the process was given at its start: they pin their settings.
//!
//! A flag goes before a variable, a variable before a file that a variable names, and that before the configuration
//! file.  All of them go before what is stored, and nothing that is given can be changed while the process runs: a
//! change that is kept and has no effect would deceive whoever made it.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::Value;

use super::catalogue::CATALOGUE;
use super::definition::{self, Definition};
use super::file;
use super::values::Origin;
use crate::error::{Result, Violations};

/// What the process was given.
#[derive(Clone, Default)]
pub struct Given {
    /// The `KEY=VALUE` of every `--set`.
    pub flags: Vec<String>,
    /// The environment.
    pub environment: HashMap<String, String>,
    /// The configuration file.
    pub file: Option<PathBuf>,
}

/// A value that pins its setting.
#[derive(Clone)]
pub(super) struct Pin {
    pub value: Value,
    pub origin: Origin,
    /// Which flag, variable, or file and line gave it.
    pub source: String,
}

/// The values that pin settings, by key.
pub(super) type Pins = HashMap<&'static str, Pin>;

impl Given {
    /// Reads all of it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with everything that is wrong, by flag, variable, or file and line.
    pub(super) fn pins(&self) -> Result<Pins> {
        let mut violations = Violations::default();
        let mut pins = match &self.file {
            Some(path) => file::read(path, &mut violations),
            None => Pins::new(),
        };
        for definition in CATALOGUE.iter() {
            let variables = definition.variables();
            let pin = self
                .variable(definition, &variables, &mut violations)
                .or_else(|| self.named_file(definition, &variables, &mut violations));
            if let Some(pin) = pin {
                pins.insert(definition.key, pin);
            }
        }
        for flag in &self.flags {
            if let Some((key, pin)) = violations.check("--set", read_flag(flag)) {
                pins.insert(key, pin);
            }
        }
        violations.finish()?;
        Ok(pins)
    }

    /// The variable of this name; one that is empty counts as not there.
    fn environment(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn variable(
        &self,
        definition: &Definition,
        variables: &[String],
        violations: &mut Violations,
    ) -> Option<Pin> {
        let (name, text) = variables.iter().find_map(|name| Some((name, self.environment(name)?)))?;
        let value = violations.check(name, definition.parse(name, text))?;
        Some(Pin { value, origin: Origin::Environment, source: name.clone() })
    }

    fn named_file(
        &self,
        definition: &Definition,
        variables: &[String],
        violations: &mut Violations,
    ) -> Option<Pin> {
        let (name, variable, path) = variables.iter().find_map(|name| {
            let variable = format!("{name}_FILE");
            let path = self.environment(&variable)?;
            Some((name, variable, path))
        })?;
        let read = std::fs::read_to_string(path).map_err(|error| format!("{path} can not be read: {error}"));
        let text = violations.check(&variable, read)?;
        // Editors end a file with a line break that is not part of the secret.
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            violations.add(variable, format!("{path} is empty"));
            return None;
        }
        let value = violations.check(&variable, definition.parse(name, text))?;
        Some(Pin { value, origin: Origin::EnvironmentFile, source: variable })
    }
}

fn read_flag(flag: &str) -> Result<(&'static str, Pin), String> {
    let (key, text) = flag.split_once('=').ok_or("must be KEY=VALUE")?;
    let definition = definition::find(key).ok_or_else(|| format!("{key:?} is not a setting"))?;
    if definition.kind.is_secret() {
        let variable = definition.variables().swap_remove(0);
        return Err(format!(
            "{key} is a secret, and every user of the machine sees the flags: put it in a file that {variable}_FILE names"
        ));
    }
    let value = definition.parse("", text).map_err(|wrong| format!("{key} {wrong}"))?;
    Ok((definition.key, Pin { value, origin: Origin::Flag, source: format!("--set {key}") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(file: &str) -> (tempfile::TempDir, Given) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("switchboard.toml");
        std::fs::write(&path, file).unwrap();
        (folder, Given { file: Some(path), ..Given::default() })
    }

    #[test]
    fn what_is_nearer_to_the_call_goes_first() {
        let (folder, mut given) = given("[email]\nsmtp_host = \"file\"\nsmtp_port = 26\n");
        let host = |given: &Given| {
            let pin = given.pins().unwrap().remove("email.smtp_host").unwrap();
            (pin.value.as_str().unwrap().to_owned(), pin.origin)
        };
        assert_eq!(host(&given), ("file".into(), Origin::ConfigurationFile));
        let named = folder.path().join("host");
        std::fs::write(&named, "named\n").unwrap();
        given.environment.insert("EMAIL_HOST_FILE".into(), named.to_str().unwrap().into());
        assert_eq!(host(&given), ("named".into(), Origin::EnvironmentFile));
        given.environment.insert("EMAIL_HOST".into(), "established".into());
        given.environment.insert("SMTP_HOST".into(), String::new());
        assert_eq!(host(&given), ("established".into(), Origin::Environment));
        given.environment.insert("SWITCHBOARD_EMAIL_SMTP_HOST".into(), "own".into());
        assert_eq!(host(&given), ("own".into(), Origin::Environment));
        given.flags = vec!["email.smtp_host=flag".into()];
        assert_eq!(host(&given), ("flag".into(), Origin::Flag));
        assert_eq!(given.pins().unwrap()["email.smtp_port"].value, 26, "each setting for itself");
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once_and_no_secret_with_it() {
        let (_folder, mut given) = given("[email]\nsmtp_host = 1\n\n[general]\nslogan = \"x\"\n");
        given.environment.insert("SMTP_PORT".into(), "many".into());
        given.environment.insert("SMTP_PASSWORD_FILE".into(), "/nowhere/at/all".into());
        given.flags = vec!["email.smtp_user".into(), "email.smtp_password=hunter2".into()];
        let error = given.pins().err().unwrap();
        let fields: Vec<_> =
            error.violations().iter().map(|v| v.field.rsplit('/').next().unwrap().to_owned()).collect();
        let expected = [
            "switchboard.toml:2 email.smtp_host",
            "switchboard.toml:5 general.slogan",
            "SMTP_PASSWORD_FILE",
            "SMTP_PORT",
            "--set",
            "--set",
        ];
        assert_eq!(fields, expected, "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
