//! Links in mails.

use super::{Claim, Links, Purpose};
use crate::fuzz::texts;
use crate::secret::KEY_LENGTH;

/// A token that is believed is one that this server makes, for what it says.
pub fn mail_link(data: &[u8]) {
    let Some([token, address, subject]) = texts(data) else { return };
    let links = Links::new(&[7; KEY_LENGTH], "https://mail.example.com");
    let url = |purpose, claim: &Claim| {
        let Claim { email_id, address, subject } = claim;
        match purpose {
            Purpose::Unsubscribe => links.unsubscribe_url(email_id, address, subject),
            Purpose::Open => links.open_url(email_id, address),
            Purpose::Click => links.click_url(email_id, address, subject),
        }
    };
    let token_of = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
    let purposes = [Purpose::Unsubscribe, Purpose::Open, Purpose::Click];
    for purpose in purposes {
        if let Some(claim) = links.read(purpose, token) {
            assert_eq!(token_of(&url(purpose, &claim)), token, "a forged link is believed");
        }
    }
    // What is made is read again, for its purpose only, whatever stands in it.
    let email_id = "em_01jd0000000000000000000000".to_owned();
    let one_line = !address.contains('\n');
    let claim = Claim { email_id, address: address.to_owned(), subject: subject.to_owned() };
    let made = token_of(&url(Purpose::Unsubscribe, &claim));
    if one_line && !address.is_empty() && made.len() <= 8 * 1024 {
        assert_eq!(links.read(Purpose::Unsubscribe, &made), Some(claim.clone()));
    }
    assert!(links.read(Purpose::Open, &made).is_none() && links.read(Purpose::Click, &made).is_none());
    let click = token_of(&url(Purpose::Click, &claim));
    if let Some(read) = links.read(Purpose::Click, &click) {
        let target = url::Url::parse(&read.subject).expect("it is a URL");
        assert!(matches!(target.scheme(), "http" | "https") && target.has_host(), "{target}");
    }
    assert!(
        Links::new(&[8; KEY_LENGTH], "https://mail.example.com").read(Purpose::Unsubscribe, &made).is_none()
    );
}
