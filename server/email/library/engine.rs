//! The engine of stored templates: minijinja, with nothing in it that reaches out, and an end to everything.
//!
//! A value is escaped wherever it is printed into HTML: there is no filter that makes it count as safe.  A text is read by
//! [`lexer`](super::lexer) and [`grammar`](super::grammar) before the engine gets it.

use std::fmt::{self, Write as _};
use std::io;
use std::sync::LazyLock;

use minijinja::value::{Kwargs, Rest};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, tests};

use super::value::is_absent;
use crate::event::route::bounded::{self, Takes};

/// Instructions that one text may take; a large mail takes some thousand.
const FUEL: u64 = 100_000;
/// Deeper than any text that [`grammar`](super::grammar) lets through.
const RECURSION_LIMIT: usize = 64;
/// What one text may become.
pub(super) const OUTPUT_LIMIT: usize = 1024 * 1024;

/// An environment without templates.
pub(super) fn environment() -> Environment<'static> {
    static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(build);
    ENVIRONMENT.clone()
}

fn build() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.set_debug(false);
    environment.set_auto_escape_callback(|name| {
        if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
    });
    environment.set_formatter(print);
    environment.add_function("range", minijinja::functions::range);

    bounded::add_filters(&mut environment);
    environment.add_filter("d", default);
    environment.add_filter("default", default);
    environment.add_filter("e", same);
    environment.add_filter("escape", same);
    environment.add_filter("join", bounded::within(Takes::Text, Value::from_function(join)));
    environment.add_filter("map", bounded::within(Takes::Letters, Value::from_function(attributes)));

    environment.add_test("boolean", tests::is_boolean);
    environment.add_test("defined", |value: &Value| !value.is_undefined() && !is_absent(value));
    environment.add_test("divisibleby", tests::is_divisibleby);
    environment.add_test("endingwith", tests::is_endingwith);
    environment.add_test("eq", tests::is_eq);
    environment.add_test("even", tests::is_even);
    environment.add_test("false", tests::is_false);
    environment.add_test("float", tests::is_float);
    environment.add_test("ge", tests::is_ge);
    environment.add_test("gt", tests::is_gt);
    environment.add_test("in", tests::is_in);
    environment.add_test("integer", tests::is_integer);
    environment.add_test("iterable", tests::is_iterable);
    environment.add_test("le", tests::is_le);
    environment.add_test("lt", tests::is_lt);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("ne", tests::is_ne);
    environment.add_test("none", |value: &Value| value.is_none() || is_absent(value));
    environment.add_test("number", tests::is_number);
    environment.add_test("odd", tests::is_odd);
    environment.add_test("sequence", tests::is_sequence);
    environment.add_test("startingwith", tests::is_startingwith);
    environment.add_test("string", tests::is_string);
    environment.add_test("true", tests::is_true);
    environment.add_test("undefined", |value: &Value| value.is_undefined() || is_absent(value));
    environment
}

/// Renders one text of an environment.
///
/// # Errors
/// What the engine found, or that the text became too large.
pub(super) fn render(environment: &Environment<'_>, name: &str, context: &Value) -> Result<String, Error> {
    let template = environment.get_template(name)?;
    let mut bounded = Bounded(Vec::new());
    let rendered = template.render_captured_to(context.clone(), &mut bounded).map(drop);
    rendered.map_err(|error| match error.kind() {
        ErrorKind::WriteFailure => Error::new(ErrorKind::WriteFailure, "it becomes larger than 1 MiB"),
        ErrorKind::OutOfFuel => {
            Error::new(ErrorKind::OutOfFuel, "it takes too long: its loops go round too often")
        }
        _ => error,
    })?;
    // The engine writes whole texts; only what is not text at all could fail here.
    Ok(String::from_utf8(bounded.0).unwrap_or_default())
}

/// Holds what is written up to the limit.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.0.len() + part.len() > OUTPUT_LIMIT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn print(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let is_html = matches!(state.auto_escape(), AutoEscape::Html);
    let printed = match (is_html, value.as_str()) {
        (true, Some(text)) => escape(out, text),
        (false, Some(text)) => out.write_str(text),
        (true, None) => write!(Escaped(out), "{value}"),
        (false, None) => write!(out, "{value}"),
    };
    printed.map_err(|_| Error::from(ErrorKind::WriteFailure))
}

struct Escaped<'a, 'o>(&'a mut Output<'o>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text)
    }
}

/// Writes text so that HTML shows it, between tags as in an attribute's value.
pub(super) fn escape(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    let mut rest = text;
    while let Some(position) = rest.find(['&', '<', '>', '"', '\'', '`']) {
        out.write_str(&rest[..position])?;
        out.write_str(match rest.as_bytes()[position] {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            b'\'' => "&#39;",
            _ => "&#96;",
        })?;
        rest = &rest[position + 1..];
    }
    out.write_str(rest)
}

fn same(value: Value) -> Value {
    value
}

/// Stands in for what is not given, and with `true` for what is empty.
#[expect(clippy::needless_pass_by_value, reason = "the engine hands its arguments over")]
fn default(value: &Value, given: Rest<Value>) -> Value {
    let empty_too = given.get(1).is_some_and(Value::is_true);
    if value.is_undefined() || value.is_none() || is_absent(value) || (empty_too && !value.is_true()) {
        given.first().cloned().unwrap_or_else(|| Value::from(""))
    } else {
        value.clone()
    }
}

fn join(value: &Value, between: Option<String>) -> Result<Value, Error> {
    let between = between.unwrap_or_default();
    if let Some(text) = value.as_str() {
        return Ok(Value::from(text));
    }
    let mut joined = String::new();
    for (index, entry) in value.try_iter()?.enumerate() {
        if entry.is_undefined() {
            return Err(Error::from(ErrorKind::UndefinedError));
        }
        if index > 0 {
            joined.push_str(&between);
        }
        // Writing to memory does not fail.
        let _ = write!(joined, "{entry}");
        check_length(joined.len())?;
    }
    Ok(Value::from(joined))
}

fn check_length(length: usize) -> Result<(), Error> {
    if length > bounded::MADE_LIMIT {
        return Err(Error::new(ErrorKind::InvalidOperation, "the filter would make too large a text"));
    }
    Ok(())
}

/// The filter `map`: one attribute of each entry.
#[expect(clippy::needless_pass_by_value, reason = "the engine hands its arguments over")]
fn attributes(value: &Value, arguments: Kwargs) -> Result<Value, Error> {
    let name: String = arguments.get("attribute")?;
    let fallback: Option<Value> = arguments.get("default")?;
    arguments.assert_all_used()?;
    let mut found = Vec::new();
    for entry in value.try_iter()? {
        let mut attribute = entry;
        for step in name.split('.') {
            attribute = attribute.get_attr(step)?;
        }
        found.push(match &fallback {
            Some(fallback) if attribute.is_undefined() => fallback.clone(),
            _ => attribute,
        });
    }
    Ok(Value::from(found))
}

#[cfg(test)]
mod checks {
    use super::super::grammar::{FILTERS, TESTS};
    use super::super::value::{absent, fields, of};
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn try_render(name: &str, source: &str) -> Result<String, Error> {
        let mut environment = environment();
        environment.add_template_owned(name.to_owned(), source.to_owned())?;
        let mut context: BTreeMap<String, Value> = BTreeMap::new();
        context.insert("text".into(), of(&json!("<b>\"a\" & 'b'</b>")));
        context.insert("list".into(), of(&json!([{"n": 2, "s": "b"}, {"n": 1, "s": "a"}])));
        context.insert("number".into(), of(&json!(2.5)));
        context.insert("gone".into(), absent());
        super::render(&environment, name, &fields(context))
    }

    fn text(source: &str) -> String {
        try_render("x.txt", source).unwrap_or_else(|error| panic!("{source}: {error:#}"))
    }

    #[test]
    fn every_filter_and_test_that_is_named_is_there() {
        for filter in FILTERS {
            let source = format!("{{{{ gone|{filter} }}}}");
            let error = try_render("x.txt", &source).err().map(|error| error.kind());
            assert_ne!(error, Some(ErrorKind::UnknownFilter), "{filter}");
        }
        for test in TESTS {
            let error =
                try_render("x.txt", &format!("{{{{ gone is {test} }}}}")).err().map(|error| error.kind());
            assert_ne!(error, Some(ErrorKind::UnknownTest), "{test}");
        }
        for filter in ["safe", "format", "indent", "pprint", "tojson", "batch", "zip"] {
            let error = try_render("x.txt", &format!("{{{{ text|{filter} }}}}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnknownFilter, "{filter}");
        }
    }

    #[test]
    fn a_value_is_escaped_whatever_is_done_to_it() {
        let escaped = "&lt;b&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/b&gt;";
        for source in [
            "{{ text }}",
            "{{ text|e }}",
            "{{ text|escape|string }}",
            "{{ [text]|join }}",
            "{{ text ~ '' }}",
            "{{ text|replace('x', 'y') }}",
            "{{ text|trim }}",
            "{{ text|default('x') }}",
            "{{ text|e|lines|first }}",
        ] {
            assert_eq!(try_render("x.html", source).unwrap(), escaped, "{source}");
        }
        assert!(!try_render("x.html", "{{ [text] }}{{ {text: text} }}").unwrap().contains('<'));
        assert_eq!(text("{{ text }}"), "<b>\"a\" & 'b'</b>");
    }

    #[test]
    fn what_was_not_given_is_nothing() {
        assert_eq!(
            text("[{{ gone }}{{ gone.a.b }}{{ gone[0] }}{{ gone|upper }}{{ gone|trim }}{{ gone ~ '' }}]"),
            "[]"
        );
        assert_eq!(text("{% if gone %}x{% elif gone is defined %}y{% else %}z{% endif %}"), "z");
        assert_eq!(text("{% for x in gone %}x{% else %}z{% endfor %}{{ gone|length }}"), "z0");
        assert_eq!(
            text(
                "{% for x in gone[:5]|sort %}x{% endfor %}{{ gone|join(', ') }}{{ gone|first|default('n') }}"
            ),
            "n"
        );
        assert_eq!(
            text("{{ gone|default('friend') }} {{ gone is none }} {{ gone == 'x' }}"),
            "friend True False"
        );
        assert_eq!(text("{{ ''|default('a') }}{{ ''|default('a', true) }}{{ number|default }}"), "a2.5");
        assert_eq!(
            try_render("x.txt", "{{ list[0].nothing }}").unwrap_err().kind(),
            ErrorKind::UndefinedError
        );
        assert_eq!(try_render("x.txt", "{{ nothing }}").unwrap_err().kind(), ErrorKind::UndefinedError);
    }

    #[test]
    fn lists_are_sorted_and_joined() {
        assert_eq!(text("{{ list|sort(attribute='n')|map(attribute='s')|join(', ') }}"), "a, b");
        assert_eq!(
            text("{% for x in list|selectattr('n', 'gt', 1) %}{{ loop.index }}{{ x.s }}{% endfor %}"),
            "1b"
        );
        assert_eq!(text("{{ range(3)|join }} {{ 'a-b'|split('-')|last }} {{ number|round|int }}"), "012 b 2");
    }

    #[test]
    fn everything_ends() {
        let round = "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}";
        assert_eq!(try_render("x.txt", round).unwrap_err().kind(), ErrorKind::OutOfFuel);
        let large = "{% for a in range(9999) %}{{ text|replace('b', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb') }}{% endfor %}";
        assert_eq!(try_render("x.txt", large).unwrap_err().kind(), ErrorKind::WriteFailure);
        let grown = "{{ range(9999)|join('0123456789012345678901234567890123456789') }}";
        assert!(try_render("x.txt", grown).unwrap_err().to_string().contains("too large a text"));
        let product = "{{ range(9999)|join|replace('', '012345678901234567890123') }}";
        assert!(try_render("x.txt", product).unwrap_err().to_string().contains("too large a text"));
        assert!(try_render("x.txt", "{{ 'x' * 1000000000 }}").is_err());
        assert!(try_render("x.txt", "{{ 10 ** 1000000 }}").is_err());
    }
}
