//! Pages.

use super::page::Page;
use crate::fuzz::texts;

/// The token of a page: it is good for its own list and filters, and says what it was made of.
pub fn page_token(data: &[u8]) {
    let Some([token, filter, key]) = texts(data) else { return };
    if let Ok(page) = Page::read("webhooks", 10, token, &[&filter]) {
        assert_eq!(page.after.is_none(), token.is_empty());
        if let Some(after) = &page.after {
            assert!(!after.contains('\0'));
            assert_eq!(page.token(after), token, "a token has one form");
            let other = format!("{filter}x");
            assert!(Page::read("webhooks", 10, token, &[&other]).is_err(), "it is good for other filters");
            assert!(Page::read("emails", 10, token, &[&filter]).is_err(), "it is good for another list");
        }
    }
    let page = Page::read("webhooks", 10, "", &[&filter]).expect("the first page");
    let next = Page::read("webhooks", 10, &page.token(key), &[&filter]);
    assert_eq!(next.ok().and_then(|next| next.after).as_deref(), (!key.contains('\0')).then_some(key));
    for size in [i32::MIN, -1] {
        assert!(Page::read("webhooks", size, token, &[&filter]).is_err());
    }
}
