//! Signed links: what is in one, and who made it.
//!
//! A token is `base64url(payload) "." base64url(tag)`: the payload is the mail's id, the address, and the topic or the
//! target, one line each; the tag is the first 16 bytes of an HMAC-SHA256 over the purpose and the payload.  Half of the
//! output keeps links short, and 128 bits are beyond guessing (RFC 2104, section 5).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use url::Url;
use zeroize::Zeroizing;

use crate::secret::KEY_LENGTH;

const TAG_LENGTH: usize = 16;
/// Longer ones are not even read.
const TOKEN_LIMIT: usize = 8 * 1024;
/// Longer targets stay as they are: a link that is much longer is cut off by some mail programs.
pub(super) const TARGET_LIMIT: usize = 2_048;

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To get no more mails of a topic.
    Unsubscribe,
    /// To count that a mail is opened.
    Open,
    /// To count that a link is followed.
    Click,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Unsubscribe, Self::Open, Self::Click];

    /// The first part of the path.
    const fn segment(self) -> &'static str {
        match self {
            Self::Unsubscribe => "u",
            Self::Open => "o",
            Self::Click => "c",
        }
    }

    /// What the tag is bound to; a line, so that none is the beginning of another with its payload.
    const fn context(self) -> &'static [u8] {
        match self {
            Self::Unsubscribe => b"unsubscribe\n",
            Self::Open => b"open\n",
            Self::Click => b"click\n",
        }
    }
}

/// What a valid link says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The mail that it was in.
    pub email_id: String,
    /// The recipient; empty when the mail had several and the link does not tell them apart.
    pub address: String,
    /// The topic of a link to unsubscribe (empty for every mail), or the target of a link to follow.
    pub subject: String,
}

/// Makes links, and reads them.
#[derive(Clone)]
pub struct Links {
    key: Arc<Zeroizing<[u8; KEY_LENGTH]>>,
    public_url: Arc<str>,
}

impl Links {
    /// Signs with this key; `public_url` is where recipients reach this server, empty when they do not.
    pub fn new(key: &[u8; KEY_LENGTH], public_url: &str) -> Self {
        let key = Arc::new(Zeroizing::new(*key));
        Self { key, public_url: public_url.trim_end_matches('/').into() }
    }

    /// The same key, for another place.
    pub fn at(&self, public_url: &str) -> Self {
        Self { key: Arc::clone(&self.key), public_url: public_url.trim_end_matches('/').into() }
    }

    /// Whether recipients reach this server.  When they do not, a link would lead nowhere: make none.
    pub fn are_reachable(&self) -> bool {
        !self.public_url.is_empty()
    }

    /// Where the recipient gets no more mails of the topic; with an empty topic, no more mails at all.  `address` is the
    /// recipient's as [`suppression::key`](crate::email::suppression::key) writes it.
    pub fn unsubscribe_url(&self, email_id: &str, address: &str, topic: &str) -> String {
        self.url(Purpose::Unsubscribe, email_id, address, topic)
    }

    /// A picture that counts that the mail is opened.
    pub fn open_url(&self, email_id: &str, address: &str) -> String {
        self.url(Purpose::Open, email_id, address, "")
    }

    /// A detour to `target` that counts that it was taken.  Only `http` and `https` targets come back out.
    pub fn click_url(&self, email_id: &str, address: &str, target: &str) -> String {
        self.url(Purpose::Click, email_id, address, target)
    }

    fn url(&self, purpose: Purpose, email_id: &str, address: &str, subject: &str) -> String {
        let token = self.token(purpose, email_id, address, subject);
        format!("{}/{}/{token}", self.public_url, purpose.segment())
    }

    fn token(&self, purpose: Purpose, email_id: &str, address: &str, subject: &str) -> String {
        let payload = format!("{email_id}\n{address}\n{subject}");
        let tag = self.tag(purpose, payload.as_bytes());
        format!("{}.{}", URL_SAFE_NO_PAD.encode(payload), URL_SAFE_NO_PAD.encode(tag))
    }

    fn tag(&self, purpose: Purpose, payload: &[u8]) -> [u8; TAG_LENGTH] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key[..]).expect("HMAC takes keys of any length");
        mac.update(purpose.context());
        mac.update(payload);
        let whole: [u8; 32] = mac.finalize().into_bytes().into();
        *whole.first_chunk().expect("16 are fewer than 32")
    }

    /// What a token says; `None` when this server did not make it for this purpose.
    pub fn read(&self, purpose: Purpose, token: &str) -> Option<Claim> {
        if token.len() > TOKEN_LIMIT {
            return None;
        }
        let (payload, tag) = token.split_once('.')?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        // Compared in constant time, so that nobody finds a tag byte by byte.
        if !bool::from(self.tag(purpose, &payload).ct_eq(tag.as_slice())) {
            return None;
        }
        let payload = String::from_utf8(payload).ok()?;
        let mut parts = payload.splitn(3, '\n').map(str::to_owned);
        let claim = Claim { email_id: parts.next()?, address: parts.next()?, subject: parts.next()? };
        let can_act = match purpose {
            Purpose::Unsubscribe => !claim.address.is_empty(),
            Purpose::Open => true,
            Purpose::Click => web_target(&claim.subject).is_some(),
        };
        can_act.then_some(claim)
    }

    /// Whether a link leads to this server's own pages for recipients.
    pub(super) fn is_own(&self, url: &str) -> bool {
        let rest = url.strip_prefix(&*self.public_url).and_then(|rest| rest.strip_prefix('/'));
        rest.and_then(|rest| rest.split_once('/'))
            .is_some_and(|(segment, _)| Purpose::ALL.iter().any(|purpose| purpose.segment() == segment))
    }
}

/// A link to the web as browsers understand it (WHATWG URL): absolute, `http` or `https`, in ASCII.
pub(super) fn web_target(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

/// The headers that let a mail program unsubscribe by itself (RFC 2369, RFC 8058).  Both must be signed by DKIM, and
/// programs follow only `https`.
pub fn list_unsubscribe_headers(url: &str) -> [(String, String); 2] {
    [
        ("List-Unsubscribe".into(), format!("<{url}>")),
        ("List-Unsubscribe-Post".into(), "List-Unsubscribe=One-Click".into()),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMAIL: &str = "em_01jd0000000000000000000000";

    fn links() -> Links {
        Links::new(&[7; KEY_LENGTH], "https://mail.example.com/")
    }

    fn token(url: &str) -> &str {
        url.rsplit('/').next().unwrap()
    }

    #[test]
    fn a_link_says_what_was_put_in_and_only_for_its_purpose() {
        let links = links();
        let url = links.unsubscribe_url(EMAIL, "jo@example.com", "news");
        assert!(url.starts_with("https://mail.example.com/u/"), "{url}");
        let claim =
            Claim { email_id: EMAIL.into(), address: "jo@example.com".into(), subject: "news".into() };
        assert_eq!(links.read(Purpose::Unsubscribe, token(&url)), Some(claim));
        for other in [Purpose::Open, Purpose::Click] {
            assert_eq!(links.read(other, token(&url)), None);
        }
        let click = links.click_url(EMAIL, "", "https://example.org/?a=1&b=2");
        assert_eq!(
            links.read(Purpose::Click, token(&click)).unwrap().subject,
            "https://example.org/?a=1&b=2"
        );
        assert_eq!(links.read(Purpose::Unsubscribe, token(&click)), None);
        let other = Links::new(&[8; KEY_LENGTH], "https://mail.example.com");
        assert_eq!(other.read(Purpose::Unsubscribe, token(&url)), None);
    }

    #[test]
    fn only_links_to_the_web_are_followed() {
        for target in
            ["javascript:alert(1)", "data:text/html,x", "//example.org", "/x", "", "ftp://example.org/"]
        {
            let url = links().click_url(EMAIL, "", target);
            assert_eq!(links().read(Purpose::Click, token(&url)), None, "{target}");
        }
    }

    #[test]
    fn nobody_in_particular_can_not_unsubscribe() {
        let url = links().unsubscribe_url(EMAIL, "", "news");
        assert_eq!(links().read(Purpose::Unsubscribe, token(&url)), None);
    }

    #[test]
    fn one_click_headers_are_those_of_rfc_8058() {
        let [one, other] = list_unsubscribe_headers("https://mail.example.com/u/x");
        assert_eq!(one, ("List-Unsubscribe".into(), "<https://mail.example.com/u/x>".into()));
        assert_eq!(other, ("List-Unsubscribe-Post".into(), "List-Unsubscribe=One-Click".into()));
    }

    proptest! {
        #[test]
        fn a_token_that_was_changed_anywhere_is_refused(at: proptest::sample::Index, by in 1_u8..=127) {
            let url = links().unsubscribe_url(EMAIL, "jo@example.com", "news");
            let mut bytes = token(&url).as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = (bytes[at] ^ by) & 0x7f;
            let bent = String::from_utf8(bytes).unwrap();
            prop_assume!(bent != token(&url));
            prop_assert_eq!(links().read(Purpose::Unsubscribe, &bent), None);
        }

        #[test]
        fn nothing_that_is_no_token_is_read(text in ".*") {
            for purpose in Purpose::ALL {
                prop_assert_eq!(links().read(purpose, &text), None);
            }
        }
    }
}
