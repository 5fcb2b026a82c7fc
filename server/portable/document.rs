//! What a document is: JSON with a section for each part, and the secrets of all of them, sealed together and bound to the rest,
//! so that nobody can put the secret of one endpoint beside the address of another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Items, Passphrases, Sealed};
use crate::error::{Error, Result};
use crate::secret::SecretText;

const FORMAT: &str = "switchboard.configuration";
const VERSION: u64 = 1;

/// Open values by section and name.
type Sections = BTreeMap<String, BTreeMap<String, Value>>;
/// Secrets by name and by what they are called there.
type Named = BTreeMap<String, BTreeMap<String, Zeroizing<String>>>;
/// Secrets by section.
type Secrets = BTreeMap<String, Named>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    format: String,
    version: u64,
    exported_at: String,
    pub sections: Sections,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Sealed>,
    /// Secrets that there were, as `section/name/secret`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted_secrets: Vec<String>,
}

impl Document {
    /// A document of these items by section.
    pub async fn write(
        parts: BTreeMap<&'static str, Items>,
        exported_at: String,
        passphrase: &str,
        passphrases: &Passphrases,
    ) -> Result<Self> {
        let (mut sections, mut secrets) = (Sections::new(), Secrets::new());
        for (section, items) in parts {
            let open = sections.entry(section.to_owned()).or_default();
            for (name, item) in items {
                for (secret, text) in item.secrets {
                    let of = secrets.entry(section.to_owned()).or_default().entry(name.clone()).or_default();
                    of.insert(secret, Zeroizing::new(text.reveal().to_owned()));
                }
                if !item.value.is_null() {
                    open.insert(name, item.value);
                }
            }
        }
        let (format, version, omitted_secrets) = (FORMAT.to_owned(), VERSION, Vec::new());
        let mut document = Self { format, version, exported_at, sections, secrets: None, omitted_secrets };
        if Passphrases::is_given(passphrase)? && !secrets.is_empty() {
            let plain = Zeroizing::new(serde_json::to_vec(&revealed(&secrets)).map_err(Error::internal)?);
            document.secrets = Some(passphrases.seal(passphrase, document.context()?, plain).await?);
        } else {
            document.omitted_secrets = names(&secrets);
        }
        Ok(document)
    }

    /// Its text.
    pub fn text(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(Error::internal)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for one that is not whole, of another format, or of a version that this server does not know.
    pub fn read(text: &str) -> Result<Self> {
        let refuse = |what: String| Error::field("document", what);
        let value: Value =
            serde_json::from_str(text).map_err(|error| refuse(format!("is not JSON: {error}")))?;
        if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(refuse(format!("is not an exported configuration: its format is not {FORMAT:?}")));
        }
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(newer) if newer > VERSION => {
                let what = format!(
                    "is of version {newer}, made by a newer server: this one reads version {VERSION}"
                );
                return Err(refuse(what));
            }
            _ => return Err(refuse(format!("has no version that this server reads, which is {VERSION}"))),
        }
        serde_json::from_value(value)
            .map_err(|error| refuse(format!("is not a document of version {VERSION}: {error}")))
    }

    /// Its items by section; secrets are opened, unless they are to be skipped.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a passphrase that does not open them.
    pub async fn items(
        &self,
        passphrase: String,
        skip_secrets: bool,
        passphrases: &Passphrases,
    ) -> Result<BTreeMap<String, Items>> {
        let mut parts: BTreeMap<String, Items> = BTreeMap::new();
        for (section, open) in &self.sections {
            let items = parts.entry(section.clone()).or_default();
            for (name, value) in open {
                items.entry(name.clone()).or_default().value = value.clone();
            }
        }
        if let Some(sealed) = self.secrets.as_ref().filter(|_| !skip_secrets) {
            let plain = passphrases.open(passphrase, self.context()?, sealed.clone()).await?;
            let secrets: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>> =
                serde_json::from_slice(&plain).map_err(|_| {
                    Error::field("document.secrets", "are not secrets by section, name and kind")
                })?;
            for (section, of) in secrets {
                for (name, texts) in of {
                    let item = parts.entry(section.clone()).or_default().entry(name).or_default();
                    item.secrets.extend(texts.into_iter().map(|(kind, text)| (kind, SecretText::new(text))));
                }
            }
        }
        Ok(parts)
    }

    /// Whether an item of a section is spoken of, if only by a secret that was left out.
    pub fn speaks_of(&self, section: &str, name: &str) -> bool {
        let start = format!("{section}/{name}/");
        self.omitted_secrets.iter().any(|omitted| omitted.starts_with(&start))
    }

    /// What the secrets are bound to: the format, and all that stands open beside them.
    fn context(&self) -> Result<String> {
        let open = serde_json::to_vec(&self.sections).map_err(Error::internal)?;
        let digest: String = Sha256::digest(&open).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{FORMAT}/{VERSION}/{digest}"))
    }
}

fn revealed(secrets: &Secrets) -> BTreeMap<&str, BTreeMap<&str, BTreeMap<&str, &str>>> {
    fn texts(of: &BTreeMap<String, Zeroizing<String>>) -> BTreeMap<&str, &str> {
        of.iter().map(|(kind, text)| (kind.as_str(), text.as_str())).collect()
    }
    fn items(of: &Named) -> BTreeMap<&str, BTreeMap<&str, &str>> {
        of.iter().map(|(name, of)| (name.as_str(), texts(of))).collect()
    }
    secrets.iter().map(|(section, of)| (section.as_str(), items(of))).collect()
}

fn names(secrets: &Secrets) -> Vec<String> {
    let mut names = Vec::new();
    for (section, items) in secrets {
        for (name, kinds) in items {
            names.extend(kinds.keys().map(|kind| format!("{section}/{name}/{kind}")));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::Item;
    use super::*;
    use crate::secret::SystemRandom;

    fn read_error(text: &str) -> String {
        Document::read(text).unwrap_err().to_string()
    }

    #[tokio::test]
    async fn secrets_open_with_the_passphrase_and_beside_what_they_stood_beside() {
        let passphrases = Passphrases::new(Arc::new(SystemRandom));
        let secrets = [("secret".to_owned(), SecretText::new("whsec_1"))].into();
        let item = Item { value: serde_json::json!({"url": "https://example.com/"}), secrets };
        let parts = [("webhooks", Items::from([("wh_1".to_owned(), item.clone())]))].into();
        let document = Document::write(parts, "now".into(), "a long passphrase", &passphrases).await.unwrap();
        let text = document.text().unwrap();
        assert!(!text.contains("whsec_1") && document.omitted_secrets.is_empty());
        let open = async |text: &str, passphrase: &str| {
            Document::read(text)?.items(passphrase.into(), false, &passphrases).await
        };
        let items = open(&text, "a long passphrase").await.unwrap();
        assert_eq!(items["webhooks"]["wh_1"], item);
        assert!(open(&text, "another passphrase").await.is_err() && open(&text, "").await.is_err());
        let edited = text.replace("https://example.com/", "https://example.net/");
        assert!(open(&edited, "a long passphrase").await.is_err());
        let skipped =
            Document::read(&edited).unwrap().items(String::new(), true, &passphrases).await.unwrap();
        assert!(skipped["webhooks"]["wh_1"].secrets.is_empty());
    }

    #[test]
    fn what_is_no_document_of_this_version_is_refused_with_the_reason() {
        assert!(read_error("{").contains("is not JSON"));
        assert!(read_error("{}").contains("its format is not"));
        let of = |version: &str| {
            format!(r#"{{"format":"{FORMAT}","version":{version},"exported_at":"","sections":{{}}}}"#)
        };
        assert!(Document::read(&of("1")).is_ok());
        assert!(read_error(&of("2")).contains("a newer server"));
        assert!(
            read_error(&of("0")).contains("has no version")
                && read_error(&of("\"1\"")).contains("no version")
        );
        let more = of("1").replace("\"sections\"", "\"more\":1,\"sections\"");
        assert!(read_error(&more).contains("more"));
    }

    proptest! {
        #[test]
        fn a_text_that_was_cut_off_is_refused(at in 0..1_000_usize) {
            let sections = [("routes".to_owned(), [("a".to_owned(), Value::from("b"))].into())].into();
            let document = Document {
                format: FORMAT.into(), version: VERSION, exported_at: "now".into(), sections, secrets: None,
                omitted_secrets: Vec::new(),
            };
            let text = document.text().unwrap();
            prop_assert!(Document::read(&text).is_ok());
            prop_assert!(Document::read(&text[..at % text.len()]).is_err());
        }
    }
}
