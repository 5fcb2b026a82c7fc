//! Reads a template as the engine reads it: text with tags in it, and the words of each tag.
//!
//! The engine parses by recursion and says little about where a name stands.  What is read here first is bounded, so that
//! the engine never gets a text that is nested beyond what its stack holds, and says where each word is.

use super::fault::Fault;

/// The words that one tag may have.
const TOKEN_LIMIT: usize = 256;
/// How deep brackets may be nested in a tag.
const BRACKET_LIMIT: usize = 16;

/// A tag: `{{ … }}` or `{% … %}`.
#[derive(Debug)]
pub(super) struct Tag<'s> {
    /// Whether it prints a value; else it is a statement.
    pub prints: bool,
    /// Its words.
    pub tokens: Vec<Token<'s>>,
    /// Where it begins, in bytes.
    pub at: usize,
}

/// A word of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'s> {
    /// What it is.
    pub kind: Kind,
    /// As it is written.
    pub text: &'s str,
    /// Where it is, in bytes.
    pub at: usize,
}

/// What a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The name of something, or a word of the language.
    Name,
    /// Text in quotes, or a number.
    Literal,
    /// An operator or a bracket.
    Symbol,
}

impl Token<'_> {
    /// Whether it is this operator or bracket.
    pub(super) fn is(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }

    /// Whether it is this word.
    pub(super) fn names(&self, word: &str) -> bool {
        self.kind == Kind::Name && self.text == word
    }
}

/// The tags of a template, without its comments and what is between `raw` and `endraw`.
///
/// # Errors
/// The first place where it can not be read.
pub(super) fn tags(source: &str) -> Result<Vec<Tag<'_>>, Fault> {
    let mut reader = Reader { source, at: 0 };
    let mut tags = Vec::new();
    while let Some(offset) = reader.rest().find('{') {
        reader.at += offset;
        match reader.rest().as_bytes().get(1) {
            Some(b'{') => tags.push(reader.tag(true)?),
            Some(b'%') if reader.skip_raw()? => {}
            Some(b'%') => tags.push(reader.tag(false)?),
            Some(b'#') => reader.skip_comment()?,
            _ => reader.at += 1,
        }
    }
    Ok(tags)
}

struct Reader<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Reader<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn fault<T>(&self, at: usize, message: &str) -> Result<T, Fault> {
        Err(Fault::at(self.source, at, message))
    }

    /// Steps over the two characters that open a tag, and the sign that trims what is before it.
    fn open(&mut self) {
        self.at += 2;
        if self.rest().starts_with(['-', '+']) {
            self.at += 1;
        }
    }

    fn skip_comment(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.open();
        match self.rest().find("#}") {
            Some(end) => self.at += end + 2,
            None => return self.fault(start, "the comment does not end: #} is missing"),
        }
        Ok(())
    }

    /// Steps over `{% raw %}` to the end of `{% endraw %}`; answers false, and stays, at any other tag.
    fn skip_raw(&mut self) -> Result<bool, Fault> {
        let start = self.at;
        self.open();
        let Some(length) = lone_word(self.rest(), "raw") else {
            self.at = start;
            return Ok(false);
        };
        self.at += length;
        while let Some(offset) = self.rest().find("{%") {
            self.at += offset + 2;
            let unsigned = self.rest().strip_prefix(['-', '+']).unwrap_or(self.rest());
            if let Some(length) = lone_word(unsigned, "endraw") {
                self.at += self.rest().len() - unsigned.len() + length;
                return Ok(true);
            }
        }
        self.fault(start, "{% raw %} does not end: {% endraw %} is missing")
    }

    fn tag(&mut self, prints: bool) -> Result<Tag<'s>, Fault> {
        let start = self.at;
        let end = if prints { "}}" } else { "%}" };
        self.open();
        let (mut tokens, mut brackets) = (Vec::new(), 0_usize);
        loop {
            let rest = self.rest().trim_start_matches(|c: char| c.is_ascii_whitespace());
            self.at = self.source.len() - rest.len();
            if brackets == 0 {
                let unsigned = rest.strip_prefix(['-', '+']).unwrap_or(rest);
                if unsigned.starts_with(end) {
                    self.at += rest.len() - unsigned.len() + end.len();
                    return Ok(Tag { prints, tokens, at: start });
                }
            }
            let Some(first) = rest.chars().next() else {
                return self.fault(start, &format!("the tag does not end: {end} is missing"));
            };
            let token = self.token(first, rest)?;
            match token.text {
                "(" | "[" | "{" => brackets += 1,
                ")" | "]" | "}" => match brackets.checked_sub(1) {
                    Some(open) => brackets = open,
                    None => return self.fault(token.at, "closes a bracket that is not open"),
                },
                _ => {}
            }
            if brackets > BRACKET_LIMIT {
                return self.fault(token.at, "brackets can be nested 16 deep and no deeper");
            }
            if tokens.len() == TOKEN_LIMIT {
                return self.fault(start, "the tag is too long: it may have 256 words");
            }
            self.at += token.text.len();
            tokens.push(token);
        }
    }

    fn token(&self, first: char, rest: &'s str) -> Result<Token<'s>, Fault> {
        let word = |kind, length| Token { kind, text: &rest[..length], at: self.at };
        let alphanumeric = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        Ok(match first {
            '"' | '\'' => match end_of_text(rest, first) {
                Some(length) => word(Kind::Literal, length),
                None => return self.fault(self.at, "the text does not end: its quote is missing"),
            },
            'a'..='z' | 'A'..='Z' | '_' => word(Kind::Name, rest.find(alphanumeric).unwrap_or(rest.len())),
            '0'..='9' => word(Kind::Literal, rest.find(alphanumeric).unwrap_or(rest.len())),
            _ if ["//", "**", "==", "!=", ">=", "<="].iter().any(|two| rest.starts_with(two)) => {
                word(Kind::Symbol, 2)
            }
            '+' | '-' | '*' | '/' | '%' | '.' | ',' | ':' | '~' | '|' | '=' | '>' | '<' | '(' | ')' | '['
            | ']' | '{' | '}' => word(Kind::Symbol, 1),
            other => return self.fault(self.at, &format!("{other:?} can not be used here")),
        })
    }
}

/// How long `word`, alone in its tag, and the end of the tag are; `None` for another tag.
fn lone_word(tag: &str, word: &str) -> Option<usize> {
    let space = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_whitespace()).len();
    let mut at = space(tag);
    at += tag[at..].strip_prefix(word).map(|_| word.len())?;
    at += space(&tag[at..]);
    at += usize::from(tag[at..].starts_with(['-', '+']));
    tag[at..].starts_with("%}").then_some(at + 2)
}

/// How long a text in quotes is, with its quotes.
fn end_of_text(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<Vec<&str>> {
        let tags = tags(source).unwrap();
        tags.iter().map(|tag| tag.tokens.iter().map(|token| token.text).collect()).collect()
    }

    fn wrong(source: &str) -> String {
        tags(source).unwrap_err().to_string()
    }

    #[test]
    fn tags_are_read_in_words() {
        assert_eq!(
            words("a {{ b.c|d }} {%- if x >= 1.5 -%}{# {{ no }} #}"),
            [vec!["b", ".", "c", "|", "d"], vec!["if", "x", ">=", "1", ".", "5"],]
        );
        assert_eq!(words("{{ {'}}': [1]}}}"), [["{", "'}}'", ":", "[", "1", "]", "}"]]);
        assert_eq!(words(r#"{{ "a\"}}" }}"#), [[r#""a\"}}""#]]);
        assert_eq!(words("{ {% raw %}{{ x }}{% if %}{%- endraw +%}{{y}}"), [["y"]]);
        assert_eq!(words("style{color:red} {"), Vec::<Vec<&str>>::new());
    }

    #[test]
    fn what_can_not_be_read_is_told_with_its_place() {
        assert_eq!(wrong("a\nb {{ x"), "line 2, column 3: the tag does not end: }} is missing");
        assert_eq!(wrong("é{{ 'x }}"), "line 1, column 5: the text does not end: its quote is missing");
        assert_eq!(wrong("{{ x) }}"), "line 1, column 5: closes a bracket that is not open");
        assert_eq!(wrong("{{ x § y }}"), "line 1, column 6: '§' can not be used here");
        assert_eq!(wrong("{# x"), "line 1, column 1: the comment does not end: #} is missing");
        assert!(wrong("{% raw %}{% endra").contains("{% endraw %} is missing"));
    }

    #[test]
    fn a_tag_is_bounded() {
        let deep = format!("{{{{ {}x }}}}", "(".repeat(100_000));
        assert!(wrong(&deep).contains("nested 16 deep"));
        for piece in ["x+", "not ", "-", "x|a|", "x if y else ", "x.", "'a'"] {
            let long = format!("{{{{ {}x }}}}", piece.repeat(100_000));
            assert!(wrong(&long).contains("too long"), "{piece}");
        }
    }
}
