//! What an operator writes: the configuration file and the flags, and exported settings.

use super::definition;
use super::file::read_text;
use super::given::{Given, Pins};
use super::portable;
use crate::error::Violations;
use crate::fuzz::texts;

const SECRET: &str = "email.smtp_password";

fn read(text: &str) -> Result<Pins, crate::error::Error> {
    let mut violations = Violations::default();
    let pins = read_text("switchboard.toml", text, &mut violations);
    violations.finish().map(|()| pins)
}

/// What is told of mistakes beside a password, in a file and among the flags.
fn mistakes(password: &str) -> [String; 2] {
    let quoted = serde_json::Value::from(password).to_string();
    let file =
        format!("[email]\nsmtp_password = {quoted}\nsmtp_port = \"many\"\nsmtp_host = {{ x = {quoted} }}\n");
    let mut given = Given { flags: vec![format!("{SECRET}={password}")], ..Given::default() };
    given.environment.insert("SMTP_PORT".into(), "many".into());
    let told = |error: Option<crate::error::Error>| error.expect("something is wrong").to_string();
    [told(read(&file).err()), told(given.pins().err())]
}

/// A configuration file, a flag and a password: what is taken is valid, reads the same when it is written again, and a
/// secret is in no error.
pub fn configuration_file(data: &[u8]) {
    let Some([file, flag, password]) = texts(data) else { return };
    if let Ok(pins) = read(file) {
        let mut written = String::new();
        for (key, pin) in &pins {
            let definition = definition::find(key).expect("it is a setting");
            assert_eq!(definition.check(&pin.value), Ok(()), "{key}");
            assert!(pin.source.starts_with("switchboard.toml:"), "{}", pin.source);
            written.push_str(&format!("{key} = {}\n", pin.value));
        }
        let again = read(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
        assert_eq!(again.len(), pins.len());
        assert!(again.iter().all(|(key, pin)| pins[key].value == pin.value), "{written}");
    }
    let given = Given { flags: vec![flag.to_owned()], ..Given::default() };
    match given.pins() {
        Ok(pins) => {
            let (key, pin) = pins.iter().next().expect("the flag pins something");
            let definition = definition::find(key).expect("it is a setting");
            assert_eq!(definition.check(&pin.value), Ok(()));
            assert!(!definition.kind.is_secret(), "every user of the machine sees the flags");
        }
        Err(error) => assert!(error.violations().iter().all(|violation| violation.field == "--set")),
    }
    // What is told of a mistake is the same whatever the password is.
    if (1..=256).contains(&password.chars().count()) && !password.contains(char::is_control) {
        assert_eq!(mistakes(password), mistakes("hunter2"));
    }
}

/// Exported settings.
pub fn settings_document(data: &[u8]) {
    let Some([text]) = texts(data) else { return };
    portable::fuzz(text);
}
