use proptest::prelude::*;

use super::*;
use crate::email::links::Purpose;
use crate::secret::KEY_LENGTH;

const EMAIL: &str = "em_01jd0000000000000000000000";

fn links() -> Links {
    Links::new(&[7; KEY_LENGTH], "https://mail.example.com")
}

fn rewritten(html: &str) -> String {
    rewrite_links(html, &links(), EMAIL, "jo@example.com")
}

/// The targets of the counted links in a body.
fn targets(html: &str) -> Vec<String> {
    let start = "\"https://mail.example.com/c/";
    let tokens = html.split(start).skip(1).map(|rest| rest.split('"').next().unwrap());
    tokens.map(|token| links().read(Purpose::Click, token).unwrap().subject).collect()
}

#[test]
fn links_to_the_web_are_led_over_this_server() {
    for (html, target) in [
        ("<a href=\"https://example.org/\">x</a>", "https://example.org/"),
        ("<A HREF = 'https://example.org/a b'>x</A>", "https://example.org/a%20b"),
        ("<a href=https://example.org/?a=1&b=2>x</a>", "https://example.org/?a=1&b=2"),
        (
            "<a\nclass='q>'\nhref=\"http://example.org/?a=1&amp;b=2&#38;c=&#x33;\">",
            "http://example.org/?a=1&b=2&c=3",
        ),
        ("<a href='https://example.org/?q=\"x\"'>", "https://example.org/?q=%22x%22"),
        ("<a href=\"https://example.org/?a&lt=2&copy=3\">", "https://example.org/?a&lt=2&copy=3"),
        ("<a href=\" https://bücher.example/ü \">", "https://xn--bcher-kva.example/%C3%BC"),
        ("<a href=\"https://one.example/\" href=\"https://two.example/\">", "https://one.example/"),
        ("<b title='<a href=x>'><a/href=\"https://example.org/\"/>", "https://example.org/"),
        ("<style>a{}</styles></style ><a href=\"https://example.org/\">", "https://example.org/"),
        ("<!--><a href=\"https://example.org/\">", "https://example.org/"),
    ] {
        let out = rewritten(html);
        assert_eq!(targets(&out), [target], "{html}\n{out}");
    }
}

#[test]
fn everything_around_a_link_stays_as_it_was() {
    let html = "<p>ü &amp; <a class=\"b\" href='https://example.org/' target=_blank>1 < 2</a></p>";
    let out = rewritten(html);
    assert!(out.starts_with("<p>ü &amp; <a class=\"b\" href=\"https://mail.example.com/c/"), "{out}");
    assert!(out.ends_with("\" target=_blank>1 < 2</a></p>"), "{out}");
}

#[test]
fn other_links_stay_as_they_are() {
    let own = links().unsubscribe_url(EMAIL, "jo@example.com", "news");
    let own = format!("<a href=\"{own}\">Stop</a>");
    for html in [
        own.as_str(),
        "<a href=\"mailto:jo@example.com\">",
        "<a href=\"#top\">",
        "<a href=\"/x\">",
        "<a href=\"//example.org/\">",
        "<a href=\"javascript:alert(1)\">",
        "<a href=\"\">",
        "<a name=\"https://example.org/\">",
        "<link href=\"https://example.org/\"><area href=\"https://example.org/\"><abbr href=\"https://example.org/\">",
        "<!-- <a href=\"https://example.org/\"> -->",
        "<script>'<a href=\"https://example.org/\">'</script>",
        "<textarea><a href=\"https://example.org/\"></textarea>",
        "<img alt='<a href=\"https://example.org/\">'>",
        "</a href=\"https://example.org/\">",
        "<a href=\"https://example.org/",
        "<a href=\"https://example.org/\"",
        "<a href=\"https://example.org/&lpar;\">",
        "<a href=\"https://example.org/&#x80;\">",
        "1 < 2 <> </> <",
        "no tags",
    ] {
        assert_eq!(rewritten(html), html);
    }
    let long = format!("<a href=\"https://example.org/{}\">", "x".repeat(TARGET_LIMIT));
    assert_eq!(rewritten(&long), long);
    let html = "<a href=\"https://example.org/\">";
    assert_eq!(rewrite_links(html, &links().at(""), EMAIL, ""), html);
}

#[test]
fn a_picture_goes_before_the_end_of_the_body() {
    let picture = |html| add_open_picture(html, "https://mail.example.com/o/x?a&b");
    let out = picture("<html><body>x</BODY></html>");
    assert!(out.starts_with("<html><body>x<img src=\"https://mail.example.com/o/x?a&amp;b\""), "{out}");
    assert!(out.ends_with("></BODY></html>"), "{out}");
    assert!(picture("<p>ü</p>").starts_with("<p>ü</p><img "));
    assert_eq!(picture(""), "");
}

#[test]
fn a_body_that_never_closes_anything_is_read_once() {
    for piece in ["<a href=\"", "<!--", "<", "<a ", "<style></", "&", "<a href='&#"] {
        let html = piece.repeat(1_000_000 / piece.len());
        assert_eq!(rewritten(&html), html);
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(html in ".*") {
        let _ = rewritten(&html);
        let _ = add_open_picture(&html, "https://mail.example.com/o/x");
    }

    #[test]
    fn pieces_of_html_in_any_order_are_read(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("<a "), Just("href="), Just("\""), Just("'"), Just("https://example.org/"), Just(">"), Just("</a>"),
                Just("<!--"), Just("-->"), Just("<style>"), Just("</style>"), Just("&amp;"), Just("&#"), Just("ü"),
                Just(" "), Just("/"), Just("<"), Just("="),
            ],
            0..40,
        ),
    ) {
        let html: String = pieces.concat();
        let out = rewritten(&html);
        for target in targets(&out) {
            prop_assert!(target.starts_with("https://example.org/"), "{}", target);
        }
        if !html.contains("https://") {
            prop_assert_eq!(out, html);
        }
    }

    #[test]
    fn html_without_links_stays_as_it_is(text in "[^<]*", tag in "(p|div|td|b)") {
        let html = format!("<{tag}>{text}</{tag}>");
        prop_assert_eq!(rewritten(&html), html);
    }
}
