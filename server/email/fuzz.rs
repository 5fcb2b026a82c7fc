//! Addresses, and HTML that somebody sends.

use super::address::{display_name, domain, envelope_address, parse, parse_list, suppression_key};
use super::{inline, text};
use crate::fuzz::texts;

/// One address, and a list of them: what is read is written in one form, and never becomes more than it is.
pub fn address_list(data: &[u8]) {
    let Some([text]) = texts(data) else { return };
    if let Ok(mailbox) = parse(text) {
        let written = mailbox.to_string();
        assert_eq!(parse(&written), Ok(mailbox.clone()), "{text:?} is read as {written:?}");
        assert!(!written.chars().any(super::address::breaks_lines));
        let bare = envelope_address(text).expect("it was read");
        assert_eq!(parse(&bare).expect("it is an address").to_string(), bare);
        assert!(bare.is_ascii() && bare.len() <= 254, "{bare}");
        let (local, of) = bare.rsplit_once('@').expect("an address has both parts");
        assert!(!local.is_empty() && local.len() <= 64);
        assert!(!bare.contains([' ', '<', '>', ',', ';', '(', ')', '\\', '\r', '\n', '\0']), "{bare:?}");
        assert!(of.split('.').all(|label| (1..=63).contains(&label.len())) && of.to_ascii_lowercase() == of);
        assert_eq!(domain(text).as_deref(), Some(of));
        assert_eq!(suppression_key(&written), suppression_key(text));
        assert_eq!(display_name(&written), mailbox.name);
        assert_eq!(parse_list(&written), Ok(vec![written.clone()]), "{written:?} is several in a list");
    }
    if let Ok(list) = parse_list(text) {
        let joined = list.join(", ");
        assert_eq!(parse_list(&joined).as_ref(), Ok(&list), "{joined:?}");
        let keys: std::collections::BTreeSet<_> =
            list.iter().filter_map(|one| suppression_key(one)).collect();
        assert_eq!(keys.len(), list.len(), "an address is on the list twice");
    }
}

/// HTML of any kind has a text, keeps its meaning when its styles are put in place, and both end.
pub fn html(data: &[u8]) {
    let Some([html, preheader]) = texts(data) else { return };
    let made = text::from_html(html);
    assert!(made.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')), "{made:?}");
    assert!(!made.contains("\n\n\n"));
    assert!(made.len() <= 64 * html.len() + 64 * 1024, "{} bytes of {}", made.len(), html.len());
    let small = html.len() <= 64 * 1024;
    if let (true, Ok(styled)) = (small, inline::inline_css(html)) {
        assert!(styled.len() <= 64 * 1024 * 1024);
        if !html.to_ascii_lowercase().contains("<style") {
            assert_eq!(styled, html, "HTML without styles stays as it is");
        }
    }
    let with = inline::with_preheader(html, preheader);
    assert!(with.len() >= html.len());
    if !preheader.contains(['<', '>']) && !html.contains('<') {
        assert!(with.matches('<').count() <= 2, "a preheader is text");
    }
}
