//! The text part of a mail that has only HTML.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::markup::{self, Token};

/// How wide lines are, in columns.
const WIDTH: usize = 72;

/// What a page says, as text in lines of at most 72 columns, with its links.
///
/// A page that would take too long to lay out, or can not be, is only freed of its tags: there is always a text.
pub fn from_html(html: &str) -> String {
    let laid_out = markup::check(html).ok().and_then(|_| {
        let lay_out = || {
            html2text::config::plain()
                .link_footnotes(true)
                .no_link_wrapping()
                .no_table_borders()
                .allow_width_overflow()
                .string_from_read(html.as_bytes(), WIDTH)
        };
        catch_unwind(AssertUnwindSafe(lay_out)).ok()?.ok()
    });
    tidy(&laid_out.unwrap_or_else(|| stripped(html)))
}

/// Lines without blanks at their ends, and no two empty ones in a row.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut empty = 0;
    for line in text.lines() {
        let line = line.trim_end();
        if line.is_empty() {
            empty += 1;
            continue;
        }
        if !out.is_empty() {
            out.push_str(if empty > 0 { "\n\n" } else { "\n" });
        }
        empty = 0;
        out.extend(line.chars().filter(|c| !c.is_control() || *c == '\t'));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

/// The text between the tags, with each link after what it is on.
fn stripped(html: &str) -> String {
    const INLINE: &[&str] = &["a", "b", "code", "em", "font", "i", "small", "span", "strong", "u"];
    let mut out = String::new();
    let mut link = None;
    for token in markup::tokens(html) {
        match token {
            Token::Text(text) => {
                let words: Vec<_> = text.split_whitespace().collect();
                if text.starts_with(char::is_whitespace) && !out.ends_with([' ', '\n']) {
                    out.push(' ');
                }
                out.push_str(&decoded(&words.join(" ")));
                if text.ends_with(char::is_whitespace) && !out.ends_with([' ', '\n']) {
                    out.push(' ');
                }
            }
            Token::Tag(tag) if tag.is(&["a"]) => {
                if let Some(link) = std::mem::replace(&mut link, tag.href.filter(|_| !tag.closing)) {
                    out.push_str(&format!(" <{}>", decoded(link)));
                }
            }
            Token::Tag(tag) if !tag.is(INLINE) => out.push('\n'),
            _ => {}
        }
    }
    out
}

/// Text with the entities that every page has.
fn decoded(text: &str) -> String {
    let mut text = text.to_owned();
    // The ampersand last, so that what it makes is not decoded again.
    for (entity, letter) in
        [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
    {
        text = text.replace(entity, letter);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_becomes_text_with_its_links() {
        let html = "<html><head><title>T</title><style>p{}</style></head><body><h1>Hello &amp; welcome</h1>\
            <p>Read <a href=\"https://example.com/a?b=1&amp;c=2\">the news</a> of today, which is long enough to be wrapped at seventy-two columns.</p>\
            <ul><li>one</li><li>two</li></ul><table><tr><td>Total</td><td>42</td></tr></table></body></html>";
        let text = from_html(html);
        for piece in
            ["Hello & welcome", "the news", "https://example.com/a?b=1&c=2", "one", "two", "Total", "42"]
        {
            assert!(text.contains(piece), "{piece} is not in {text}");
        }
        assert!(!text.contains("p{}") && !text.contains('<'), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn hostile_pages_have_a_text_as_well() {
        let deep = format!(
            "{}Hello <a href='https://example.com'>there</a><script>x</script> 1 &lt; 2",
            "<div>".repeat(200_000)
        );
        assert_eq!(from_html(&deep), "Hello there <https://example.com>\n\n1 < 2\n");
        for hostile in [
            "<table><tr><td>".repeat(99),
            "<table><tr><td>a<td>".repeat(99),
            "<ul><li>".repeat(49),
            "<blockquote>x".repeat(99),
            "<td>".repeat(40_000),
            format!("<table>{}</table>", "<tr><td>a<td>b".repeat(10_000)),
            format!("<table><tr>{}</table>", "<td colspan=1000>a".repeat(1_000)),
            "<p>".repeat(40_000),
            "&#x202e;".repeat(10_000),
            "x".repeat(1_000_000),
            format!("<pre>{}</pre>", "\t\n".repeat(10_000)),
        ] {
            from_html(&hostile);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_no_tag_stays(html in "(?s)(\\PC|<p>|</p>|<table>|<tr>|<td>|<a href='x'>|</a>|<li>|<!--|-->|&amp;|<script>){0,80}") {
            let text = from_html(&html);
            prop_assert!(!text.contains("<p>") && !text.contains("<script>"));
        }
    }
}
