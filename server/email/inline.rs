//! Styles put where every mail program reads them, and the line that they show after the subject.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use css_inline::CSSInliner;

use super::markup::{self, Token};

/// The HTML with the rules of its `<style>` elements in `style` attributes, because many mail programs read only those.
/// Rules that have no place there, such as media queries, stay.  Nothing is loaded from anywhere.  HTML without styles
/// comes back as it is.
///
/// # Errors
/// Why it can not be done; the HTML can go as it is then.
pub fn inline_css(html: &str) -> Result<Cow<'_, str>, String> {
    if !has_style(html) {
        return Ok(Cow::Borrowed(html));
    }
    if !markup::check(html)?.has_styles {
        return Ok(Cow::Borrowed(html));
    }
    let inline = || {
        let inliner = CSSInliner::options()
            .load_remote_stylesheets(false)
            .keep_link_tags(true)
            .keep_style_tags(true)
            .remove_inlined_selectors(true)
            .build();
        inliner.inline(html)
    };
    match catch_unwind(AssertUnwindSafe(inline)) {
        Ok(inlined) => {
            inlined.map(Cow::Owned).map_err(|error| format!("the styles can not be inlined: {error}"))
        }
        Err(_) => Err("the styles can not be inlined".into()),
    }
}

/// Whether there may be a `<style>`, found without taking the page apart.
fn has_style(html: &str) -> bool {
    const TAG: &[u8] = b"<style";
    html.as_bytes().windows(TAG.len()).any(|window| window.eq_ignore_ascii_case(TAG))
}

/// The HTML with a preheader: a line that mail programs show after the subject, and that the mail itself does not.
/// Empty text adds nothing.
pub fn with_preheader(html: &str, text: &str) -> String {
    if text.trim().is_empty() {
        return html.to_owned();
    }
    let line = format!(
        "<div style=\"display:none;max-height:0;max-width:0;overflow:hidden;opacity:0;mso-hide:all\">{}</div>",
        escaped(text)
    );
    let at = start_of_body(html);
    [&html[..at], &line, &html[at..]].concat()
}

/// Where the first visible thing can be.
fn start_of_body(html: &str) -> usize {
    let (mut body, mut head, mut start, mut at) = (None, None, None, 0);
    let mut tokens = markup::tokens(html);
    while let Some(token) = tokens.next() {
        at = tokens.at();
        match token {
            Token::Tag(tag) if !tag.closing && tag.is(&["body"]) => {
                body = Some(tag.end);
                break;
            }
            Token::Tag(tag) if tag.closing && tag.is(&["head"]) => head = head.or(Some(tag.end)),
            // A document type has to stay the first thing.
            Token::Other => start = start.or(Some(at)),
            Token::Text(text) if text.trim().is_empty() => {}
            _ => start = start.or(Some(0)),
        }
    }
    body.or(head).unwrap_or_else(|| start.unwrap_or(0).min(at))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn styles_are_inlined_and_media_queries_stay() {
        let html = "<html><head><style>p{color:red} a:hover{color:blue} @media (max-width:600px){p{color:green}}</style>\
            <link rel=\"stylesheet\" href=\"http://127.0.0.1:1/a.css\"></head><body><p>Hi</p></body></html>";
        let inlined = inline_css(html).unwrap();
        assert!(inlined.contains("<p style=\"color: red;\">Hi</p>"), "{inlined}");
        assert!(inlined.contains("@media (max-width:600px)") && inlined.contains("a:hover"), "{inlined}");
        assert!(!inlined.contains("p{color:red}"), "{inlined}");
    }

    #[test]
    fn html_without_styles_is_left_alone() {
        for html in ["", "<p>Hi", "<!-- <style>p{}</style> --><p>Hi</p>", "<p style=\"color:red\">Hi</p>"] {
            assert!(matches!(inline_css(html), Ok(Cow::Borrowed(same)) if same == html), "{html}");
        }
    }

    #[test]
    fn hostile_html_is_refused_or_done_in_time() {
        let style = "<style>p{color:red}</style>";
        for hostile in [
            format!("{style}{}", "<div>".repeat(200_000)),
            format!("{style}{}", "<b><i>".repeat(20_000)),
            format!("{style}<p{}>", " a=1".repeat(100_000)),
            format!("<style>{}</style>{}", "* * * * *{a:b}".repeat(20_000), "<p>".repeat(20_000)),
        ] {
            assert!(inline_css(&hostile).is_err());
        }
        for odd in [
            format!("{style}{}", "<p>".repeat(40_000)),
            format!("<style>{}</style><p>x", "{".repeat(100_000)),
            format!("<style>{}</style><p>x", "@media{".repeat(10_000)),
            format!("<style>p{}{{color:red}}</style><p>x", ":not(p".repeat(5_000)),
            format!("<style>{}p{{color:red}}</style>{}<p>x", "div ".repeat(100), "<div>".repeat(90)),
            format!("{style}<p style='{}'>", "(".repeat(100_000)),
            "<style>p{background:url(file:///etc/passwd)}@import 'http://127.0.0.1:1/';</style><p>x"
                .to_owned(),
        ] {
            let _ = inline_css(&odd);
        }
    }

    #[test]
    fn a_preheader_is_the_first_thing_that_is_not_seen() {
        let add = |html: &str| with_preheader(html, "<b> & \"more\"");
        let line = |rest: &str| {
            rest.starts_with("<div style=\"display:none")
                && rest.contains(">&lt;b&gt; &amp; &quot;more&quot;</div>")
        };
        for (html, before) in [
            ("<p>Hi", ""),
            (
                "<!DOCTYPE html><html><head><title><body></title></head><BODY class='>'><p>Hi",
                "<!DOCTYPE html><html><head><title><body></title></head><BODY class='>'>",
            ),
            ("<!doctype html>\n<p>Hi", "<!doctype html>"),
            ("<html><head></head><p>Hi", "<html><head></head>"),
            ("<!-- <body> --><p>", "<!-- <body> -->"),
            ("", ""),
        ] {
            let added = add(html);
            let rest = added.strip_prefix(before).unwrap();
            assert!(line(rest) && added.ends_with(&html[before.len()..]), "{added}");
        }
        assert_eq!(with_preheader("<p>", " "), "<p>");
    }

    proptest! {
        #[test]
        fn nothing_panics(html in "(?s)(.|<style>|</style>|<p>|<body|>|\\{|\\}|@media|:|;|\"|<!--){0,60}", text in "(?s).{0,20}") {
            let _ = inline_css(&html);
            let added = with_preheader(&html, &text);
            prop_assert!(added.len() >= html.len());
        }
    }
}
