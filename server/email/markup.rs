//! HTML taken apart into tags, without building anything of it.
//!
//! Others' HTML goes to parsers that build a tree, and a tree can be made to be deep, wide or slow.  What would be is found
//! here first, in one pass that takes no longer than the HTML is long.  It counts as browsers do (HTML standard, sections
//! 13.2.5 and 13.2.6), and wherever that would take a whole parser it counts too much: a page in which it is not certain
//! that every element is closed is taken for one in which none is.

/// The largest page that is looked at, in bytes.
const SIZE_LIMIT: usize = 2 * 1024 * 1024;
/// How deep elements may lie in each other; a newsletter's tables in tables have some 30.
const DEPTH_LIMIT: usize = 100;
const TAG_LIMIT: usize = 50_000;
const ATTRIBUTE_LIMIT: usize = 100;
/// How many elements a parser may make of all tags: it repeats what is bold for every paragraph that begins in it.
const ELEMENT_LIMIT: usize = 200_000;
/// How many bytes of styles are looked through for all elements.
const STYLE_LIMIT: usize = 100_000_000;

/// A piece of HTML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Text, with its entities.
    Text(&'a str),
    /// The content of an element that has no tags: a style, a script, a title.
    Raw(&'a str),
    /// A tag.
    Tag(Tag<'a>),
    /// A comment or a document type.
    Other,
}

/// A tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag<'a> {
    /// As it is written.
    pub name: &'a str,
    /// Whether it ends an element.
    pub closing: bool,
    pub attributes: usize,
    /// The value of `href`, as it is written.
    pub href: Option<&'a str>,
    /// Where it ends.
    pub end: usize,
}

impl Tag<'_> {
    /// Whether it has one of these names.
    pub(super) fn is(&self, names: &[&str]) -> bool {
        is_in(self.name, names)
    }
}

fn is_in(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// The pieces of a page, in their order.
pub(super) struct Tokens<'a> {
    html: &'a str,
    at: usize,
    raw: Option<&'a str>,
}

/// The pieces of a page.
pub(super) fn tokens(html: &str) -> Tokens<'_> {
    Tokens { html, at: 0, raw: None }
}

/// Elements whose content has no tags.
const RAW: &[&str] = &["style", "script", "title", "textarea"];

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

impl<'a> Tokens<'a> {
    /// Where the next piece begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.html.as_bytes().get(at).copied()
    }

    /// The text up to `end`, which becomes the place to go on from.
    fn cut(&mut self, end: usize) -> &'a str {
        let taken = &self.html[self.at..end];
        self.at = end;
        taken
    }

    /// The first place from `at` on where a byte is not `wanted`.
    fn past(&self, at: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = &self.html.as_bytes()[at..];
        at + rest.iter().position(|byte| !wanted(*byte)).unwrap_or(rest.len())
    }

    /// Behind the first `end` from `at` on, or the end of everything.
    fn behind(&self, at: usize, end: &str) -> usize {
        self.html
            .get(at..)
            .and_then(|rest| rest.find(end))
            .map_or(self.html.len(), |found| at + found + end.len())
    }

    /// Behind the comment whose text begins here.
    fn comment_end(&self, mut at: usize) -> usize {
        while let Some(found) = self.html.get(at..).and_then(|rest| rest.find("--")) {
            at += found;
            let rest = &self.html[at..];
            match (rest.starts_with("-->"), rest.starts_with("--!>")) {
                (true, _) => return at + 3,
                (_, true) => return at + 4,
                _ => at += 1,
            }
        }
        self.html.len()
    }

    /// Where the content of this element ends.
    fn raw_end(&self, name: &str) -> usize {
        let mut at = self.at;
        while let Some(found) = self.html[at..].find("</") {
            at += found + 2;
            let rest = &self.html.as_bytes()[at..];
            let named = rest.len() >= name.len() && rest[..name.len()].eq_ignore_ascii_case(name.as_bytes());
            let ended =
                rest.get(name.len()).is_none_or(|byte| is_blank(*byte) || matches!(byte, b'/' | b'>'));
            if named && ended {
                return at - 2;
            }
        }
        self.html.len()
    }

    /// A comment, or what browsers take for one.
    fn other(&mut self) -> Token<'a> {
        let at = self.at;
        let rest = &self.html[at..];
        self.at = if let Some(comment) = rest.strip_prefix("<!--") {
            if comment.starts_with('>') {
                at + 5
            } else if comment.starts_with("->") {
                at + 6
            } else {
                self.comment_end(at + 4)
            }
        } else {
            self.behind(at, ">")
        };
        Token::Other
    }

    /// The tag whose name begins here; `None` for one that does not end.
    fn tag(&mut self, name_at: usize) -> Option<Tag<'a>> {
        let closing = name_at == self.at + 2;
        let mut at = self.past(name_at, |byte| !is_blank(byte) && !matches!(byte, b'/' | b'>'));
        let name = &self.html[name_at..at];
        let (mut attributes, mut href) = (0, None);
        loop {
            at = self.past(at, |byte| is_blank(byte) || byte == b'/');
            if self.byte(at)? == b'>' {
                break;
            }
            attributes += 1;
            let start = at;
            // A `=` at the start is part of the name.
            at = self.past(at + 1, |byte| !is_blank(byte) && !matches!(byte, b'/' | b'>' | b'='));
            let attribute = self.html.get(start..at)?;
            let equals = self.past(at, is_blank);
            if self.byte(equals) != Some(b'=') {
                continue;
            }
            at = self.past(equals + 1, is_blank);
            let quote = self.byte(at)?;
            let value = if matches!(quote, b'"' | b'\'') {
                let end = self.past(at + 1, |byte| byte != quote);
                self.byte(end)?;
                let value = &self.html[at + 1..end];
                at = end + 1;
                value
            } else {
                let end = self.past(at, |byte| !is_blank(byte) && byte != b'>');
                let value = &self.html[at..end];
                at = end;
                value
            };
            if attribute.eq_ignore_ascii_case("href") {
                href = href.or(Some(value));
            }
        }
        self.at = at + 1;
        Some(Tag { name, closing, attributes, href, end: at + 1 })
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        if self.at >= self.html.len() {
            return None;
        }
        if let Some(name) = self.raw.take() {
            let end = self.raw_end(name);
            return Some(Token::Raw(self.cut(end)));
        }
        if self.byte(self.at) != Some(b'<') {
            let end = self.past(self.at, |byte| byte != b'<');
            return Some(Token::Text(self.cut(end)));
        }
        let name_at = match (self.byte(self.at + 1), self.byte(self.at + 2)) {
            (Some(byte), _) if byte.is_ascii_alphabetic() => self.at + 1,
            (Some(b'/'), Some(byte)) if byte.is_ascii_alphabetic() => self.at + 2,
            (Some(b'!' | b'?'), _) | (Some(b'/'), Some(_)) => return Some(self.other()),
            _ => return Some(Token::Text(self.cut(self.at + 1))),
        };
        let Some(tag) = self.tag(name_at) else {
            self.at = self.html.len();
            return None;
        };
        if !tag.closing && tag.is(RAW) {
            self.raw = Some(tag.name);
        }
        Some(Token::Tag(tag))
    }
}

/// Elements that are never closed.
const VOID: &[&str] = &[
    "area", "base", "basefont", "bgsound", "br", "col", "embed", "frame", "hr", "img", "input", "link",
    "meta", "param", "source", "track", "wbr",
];
/// Elements that end by themselves where the next one begins, and lie in each other only with another one between.
const SELF_ENDING: &[&str] =
    &["html", "head", "body", "p", "tbody", "thead", "tfoot", "colgroup", "tr", "td", "th"];
/// Items of lists end by themselves as well, but not everywhere.
const ITEMS: &[&str] = &["li", "dt", "dd"];
/// What a parser repeats in every block that begins before it ends.
const REPEATED: &[&str] =
    &["a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"];
/// Elements in which tags mean something else, and that no mail needs.
const FOREIGN: &[&str] = &[
    "svg",
    "math",
    "select",
    "frameset",
    "template",
    "plaintext",
    "xmp",
    "iframe",
    "noembed",
    "noframes",
    "noscript",
];

/// What is known of a page that can be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    /// Whether it has styles to be inlined.
    pub has_styles: bool,
}

/// Looks whether a page can be parsed at a cost that is known beforehand.
///
/// # Errors
/// Why it can not.
pub(super) fn check(html: &str) -> Result<Page, String> {
    if html.len() > SIZE_LIMIT {
        return Err(format!("the HTML has more than {SIZE_LIMIT} bytes"));
    }
    let mut open = Open::default();
    let (mut tags, mut elements, mut styles) = (0, 0, 0);
    let (mut in_style, mut in_script) = (false, false);
    for token in tokens(html) {
        let tag = match token {
            Token::Tag(tag) => tag,
            Token::Raw(text) => {
                styles += if in_style { text.len() } else { 0 };
                if in_script && text.contains("<!--") {
                    return Err("the HTML has a comment in a script".into());
                }
                continue;
            }
            _ => continue,
        };
        (in_style, in_script) = (!tag.closing && tag.is(&["style"]), !tag.closing && tag.is(&["script"]));
        tags += 1;
        elements += 1 + open.repeated;
        if tags > TAG_LIMIT || elements > ELEMENT_LIMIT {
            return Err("the HTML has too many elements".into());
        }
        if tag.attributes > ATTRIBUTE_LIMIT {
            return Err(format!("the HTML has a tag with more than {ATTRIBUTE_LIMIT} attributes"));
        }
        if tag.is(FOREIGN) {
            return Err(format!("the HTML has the element {}, which mails do not have", tag.name));
        }
        open.step(tag);
        if open.names.len() > DEPTH_LIMIT {
            return Err(format!("the HTML has more than {DEPTH_LIMIT} elements in each other"));
        }
    }
    if styles.saturating_mul(tags) > STYLE_LIMIT {
        return Err("the HTML has too many styles for so many elements".into());
    }
    Ok(Page { has_styles: styles > 0 })
}

/// What is open, or is not known to be closed.
#[derive(Default)]
struct Open<'a> {
    names: Vec<&'a str>,
    /// How many of them are repeated.
    repeated: usize,
}

impl<'a> Open<'a> {
    fn step(&mut self, tag: Tag<'a>) {
        if tag.is(VOID) || tag.is(SELF_ENDING) {
            return;
        }
        if tag.closing {
            // Items end with their list.
            let ended = self.names.iter().rposition(|name| !is_in(name, ITEMS) || tag.is(ITEMS));
            if let Some(at) = ended.filter(|at| self.names[*at].eq_ignore_ascii_case(tag.name)) {
                self.names.truncate(at);
                self.repeated -= usize::from(tag.is(REPEATED));
            }
            return;
        }
        let same_list = |name: &str| is_in(name, ITEMS) && name.eq_ignore_ascii_case("li") == tag.is(&["li"]);
        if tag.is(ITEMS) && self.names.last().is_some_and(|name| same_list(name)) {
            self.names.pop();
        }
        self.names.push(tag.name);
        self.repeated += usize::from(tag.is(REPEATED));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(html: &str) -> Vec<String> {
        let name = |token| match token {
            Token::Tag(tag) => Some(format!("{}{}", if tag.closing { "/" } else { "" }, tag.name)),
            _ => None,
        };
        tokens(html).filter_map(name).collect()
    }

    #[test]
    fn tags_are_where_a_browser_sees_them() {
        assert_eq!(names("<p title='</p>'>a</p >"), ["p", "/p"]);
        assert_eq!(names("<!-- <a> --><!--><b><!---><i><!x <u>></u>"), ["b", "i", "/u"]);
        assert_eq!(names("<style>a > b {} <p></style ><br/>"), ["style", "/style", "br"]);
        assert_eq!(names("<title></titles></TITLE>1 < 2 <3 <a href=x>"), ["title", "/TITLE", "a"]);
        assert_eq!(names("<a b=\"<c>"), Vec::<String>::new());
        let Some(Token::Tag(tag)) = tokens("<a x HREF = 'y z' href=w>").next() else { panic!() };
        assert_eq!((tag.href, tag.attributes, tag.end), (Some("y z"), 3, 25));
    }

    #[test]
    fn pages_that_would_take_too_long_are_found() {
        let nested = |piece: &str, times: usize| check(&piece.repeat(times));
        for (piece, times) in [
            ("<div>", 200_000),
            ("<div><table></div></table>", 200),
            ("<div><b></div>", 200),
            ("<li><dd>", 200),
            ("<rt>", 200),
            ("<b></i>", 200),
            ("<p><b></p>", 200),
            ("<table><tr><td>", 200),
            ("<ul><li>", 200),
            ("<br>", 60_000),
            ("<svg/>", 1),
            ("<script><!--</script>", 1),
        ] {
            assert!(nested(piece, times).is_err(), "{piece}");
        }
        let bold: String = (0..60).map(|n| format!("<b x={n}>")).collect();
        assert!(check(&format!("{bold}{}", "<p>x".repeat(10_000))).is_err());
        let attributes: String = (0..200).map(|n| format!(" a{n}")).collect();
        assert!(check(&format!("<p{attributes}>")).is_err());
        assert!(
            check(&format!("<style>{}</style>{}", "a{b:c}".repeat(10_000), "<p>".repeat(10_000))).is_err()
        );
        assert!(check(&" ".repeat(SIZE_LIMIT + 1)).is_err());
    }

    #[test]
    fn what_mails_look_like_is_taken() {
        let page = |html: &str| check(html).unwrap();
        assert!(page("<html><head><style>p{}</style></head><body><p>a<p>b</body></html>").has_styles);
        assert!(!page("<!--[if mso]><style>p{}</style><![endif]--><p>a").has_styles);
        page(&"<p>a<br>b".repeat(5_000));
        page(&"<ul><li>a<li>b<li><b>c</b></ul><dl><dt>a<dd>b<dt>c</dl>".repeat(1_000));
        page(&"<table><tr><td>a<td><a href=x><img src=y></a></table>".repeat(1_000));
        page(&format!("{}{}", "<table><tr><td>".repeat(30), "</td></tr></table>".repeat(30)));
    }

    proptest! {
        #[test]
        fn anything_is_taken_apart_to_its_end(html in "(?s)(.|<|>|/|!|-|'|\"|=|<!--|-->|</style|<style>|<p |ü){0,80}") {
            let _ = check(&html);
            let mut tokens = tokens(&html);
            let mut last = 0;
            while tokens.next().is_some() {
                prop_assert!(tokens.at > last || tokens.raw.is_some() || tokens.at == last);
                prop_assert!(html.is_char_boundary(tokens.at));
                last = tokens.at;
            }
        }
    }
}
