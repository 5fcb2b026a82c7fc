//! The page that a link in a mail leads to: the look of the mails, without anything that is loaded.

use askama::Template;

use super::branding::{Branding, Letterhead};

#[derive(Template)]
#[template(path = "page.html")]
struct PageTemplate<'a> {
    brand: Letterhead,
    title: &'a str,
    text: &'a str,
    button: Option<&'a str>,
}

/// A page with a heading and a sentence; with a button, when there is something to do.  The button posts to the page's
/// own address.
pub fn page(branding: &Branding, title: &str, text: &str, button: Option<&str>) -> String {
    let template = PageTemplate { brand: Letterhead::new(branding), title, text, button };
    // Writing text to memory does not fail; a page without content would still say by its status how it went.
    template.render().unwrap_or_default()
}
