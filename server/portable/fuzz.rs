//! Exported configurations.

use futures_util::FutureExt;

use super::Passphrases;
use super::document::Document;
use crate::fuzz::{random, texts};

/// A document: what is taken is written and read as the same, and its secrets do not open without the passphrase.
pub fn export_document(data: &[u8]) {
    let Some([text, section, name]) = texts(data) else { return };
    let Ok(document) = Document::read(text) else { return };
    let written = document.text().expect("it can be written");
    let again = Document::read(&written).expect("what was written can be read");
    assert_eq!(again.text().expect("it can be written"), written);
    assert_eq!(again.speaks_of(section, name), document.speaks_of(section, name));
    let passphrases = Passphrases::new(random());
    let items = |skip| document.items(String::new(), skip, &passphrases).now_or_never();
    let open = items(true).expect("nothing is waited for").expect("nothing is opened");
    assert!(open.values().flatten().all(|(_, item)| item.secrets.is_empty()));
    let count: usize = document.sections.values().map(|section| section.len()).sum();
    assert_eq!(open.values().map(|items| items.len()).sum::<usize>(), count);
    let all = items(false).expect("an empty passphrase is refused at once");
    assert_eq!(all.is_ok(), document.secrets.is_none(), "sealed secrets need a passphrase");
    if let Some(sealed) = &document.secrets {
        sealed.fuzz();
    }
}
