//! Bounds what an expression makes on its way to its value.
//!
//! The engine counts its instructions, and one instruction can make a hundred megabytes: a text times a number, or a filter
//! with a width.  One after the other, texts to lists and lists to texts, even small ones grow without end.  So nobody
//! multiplies but by the filter `times`, which takes numbers, and every filter takes and makes no more than so much.

use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};

/// The longest text that a filter takes or makes, in bytes: as much as a whole mail may become.
pub const TEXT_LIMIT: usize = 1024 * 1024;
/// The longest text that a filter makes of several.
pub const MADE_LIMIT: usize = 256 * 1024;
/// The longest list that a filter takes or makes, and the longest text that one takes apart.
pub const LIST_LIMIT: usize = 16 * 1024;

/// Why there is no operator for it.
pub const NO_TIMES: &str = "there is no operator *: numbers are multiplied by a filter, as in price|times(2)";

/// Whether a filter takes a text for the list of its letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// It takes a text as it is.
    Text,
    /// It takes a text apart.
    Letters,
}

/// Adds the engine's own filters, within bounds.
pub fn add_filters(environment: &mut Environment<'_>) {
    use Takes::{Letters, Text};
    let own: [(&'static str, Takes, Value); 34] = [
        ("abs", Text, Value::from_function(filters::abs)),
        ("bool", Text, Value::from_function(filters::bool)),
        ("capitalize", Text, Value::from_function(filters::capitalize)),
        ("count", Text, Value::from_function(filters::length)),
        ("dictsort", Letters, Value::from_function(filters::dictsort)),
        ("first", Text, Value::from_function(filters::first)),
        ("float", Text, Value::from_function(filters::float)),
        ("int", Text, Value::from_function(filters::int)),
        ("items", Letters, Value::from_function(filters::items)),
        ("join", Text, Value::from_function(filters::join)),
        ("last", Text, Value::from_function(filters::last)),
        ("length", Text, Value::from_function(filters::length)),
        ("lines", Letters, Value::from_function(filters::lines)),
        ("list", Letters, Value::from_function(filters::list)),
        ("lower", Text, Value::from_function(filters::lower)),
        ("map", Letters, Value::from_function(filters::map)),
        ("max", Letters, Value::from_function(filters::max)),
        ("min", Letters, Value::from_function(filters::min)),
        ("reject", Letters, Value::from_function(filters::reject)),
        ("rejectattr", Letters, Value::from_function(filters::rejectattr)),
        ("replace", Text, Value::from_function(replace)),
        ("reverse", Text, Value::from_function(filters::reverse)),
        ("round", Text, Value::from_function(filters::round)),
        ("select", Letters, Value::from_function(filters::select)),
        ("selectattr", Letters, Value::from_function(filters::selectattr)),
        ("sort", Letters, Value::from_function(filters::sort)),
        ("split", Letters, Value::from_function(filters::split)),
        ("string", Text, Value::from_function(filters::string)),
        ("sum", Letters, Value::from_function(filters::sum)),
        ("times", Text, Value::from_function(times)),
        ("title", Text, Value::from_function(filters::title)),
        ("trim", Text, Value::from_function(filters::trim)),
        ("unique", Letters, Value::from_function(filters::unique)),
        ("upper", Text, Value::from_function(filters::upper)),
    ];
    for (name, takes, function) in own {
        environment.add_filter(name, within(takes, function));
    }
}

/// A filter that refuses what is too large, and whatever becomes too large.
pub fn within(
    takes: Takes,
    function: Value,
) -> impl Fn(&mut State, Rest<ValueOrKwargs>) -> Result<Value, Error> + Send + Sync + 'static {
    move |state, arguments| {
        let arguments = arguments.into_values();
        for argument in &arguments {
            let longest = if takes == Takes::Letters { LIST_LIMIT } else { TEXT_LIMIT };
            bounded(argument, longest)?;
        }
        let made = function.call(state, &arguments)?;
        bounded(&made, TEXT_LIMIT)?;
        Ok(made)
    }
}

fn bounded(value: &Value, longest: usize) -> Result<(), Error> {
    let fits = match value.as_str() {
        Some(text) => text.len() <= longest,
        None => value.len().is_none_or(|entries| entries <= LIST_LIMIT),
    };
    if fits { Ok(()) } else { Err(too_large()) }
}

fn too_large() -> Error {
    Error::new(ErrorKind::InvalidOperation, "the filter would make too large a text or list")
}

/// The filter `replace`.
#[expect(clippy::needless_pass_by_value, reason = "the engine hands its arguments over")]
fn replace(text: String, from: String, to: String) -> Result<Value, Error> {
    let found = if to.len() > from.len() { text.matches(&*from).count() } else { 0 };
    if found.saturating_mul(to.len()).saturating_add(text.len()) > MADE_LIMIT {
        return Err(too_large());
    }
    Ok(Value::from(text.replace(&*from, &to)))
}

/// The filter `times`: the product of two numbers.
fn times(one: &Value, other: &Value) -> Result<Value, Error> {
    let numbers = one.is_number() && other.is_number();
    let product = || {
        if let (Ok(one), Ok(other)) = (i64::try_from(one.clone()), i64::try_from(other.clone()))
            && let Some(product) = one.checked_mul(other)
        {
            return Some(Value::from(product));
        }
        let (one, other) = (f64::try_from(one.clone()).ok()?, f64::try_from(other.clone()).ok()?);
        Some(Value::from(one * other))
    };
    let wrong = || Error::new(ErrorKind::InvalidOperation, "times takes numbers");
    if numbers { product().ok_or_else(wrong) } else { Err(wrong()) }
}

/// Whether an expression multiplies: by a `*` that is in no text, and not part of `**`.
pub fn multiplies(expression: &str) -> bool {
    Scanner::new(expression).is_multiplied(false)
}

/// Whether a text with `{{ variables }}` multiplies in one of them.
pub fn text_multiplies(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    loop {
        let rest = scanner.rest;
        match (rest.find("{{"), rest.find("{#")) {
            (None, _) => return false,
            (Some(tag), Some(comment)) if comment < tag => match rest[comment..].find("#}") {
                Some(end) => scanner.rest = &rest[comment + end + 2..],
                None => return false,
            },
            (Some(tag), _) => {
                scanner.rest = &rest[tag + 2..];
                if scanner.is_multiplied(true) {
                    return true;
                }
            }
        }
    }
}

struct Scanner<'t> {
    rest: &'t str,
}

impl<'t> Scanner<'t> {
    fn new(rest: &'t str) -> Self {
        Self { rest }
    }

    /// Reads on to the end, or behind the `}}` that ends a tag.
    fn is_multiplied(&mut self, in_tag: bool) -> bool {
        let (mut quote, mut escaped, mut depth) = (None, false, 0_usize);
        let mut letters = self.rest.char_indices().peekable();
        while let Some((at, letter)) = letters.next() {
            match (quote, letter) {
                (Some(_), _) if escaped => escaped = false,
                (Some(_), '\\') => escaped = true,
                (Some(open), letter) if open == letter => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(letter),
                (None, '(' | '[' | '{') => depth += 1,
                (None, '}') if in_tag && depth == 0 && self.rest[at..].starts_with("}}") => {
                    self.rest = &self.rest[at + 2..];
                    return false;
                }
                (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
                (None, '*') if letters.next_if(|(_, next)| *next == '*').is_some() => {}
                (None, '*') => return true,
                (None, _) => {}
            }
        }
        self.rest = "";
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multiplication_is_found_wherever_it_hides() {
        for found in ["a*b", "'x' * 9", "[1, (2 * 3)]", "'\\'' * 2", "2 ** 3 * 4", "2 *** 3"] {
            assert!(multiplies(found), "{found}");
        }
        for none in ["2 ** 3", "'a * b'", "\"*\"", "a + b", "'\\'*'"] {
            assert!(!multiplies(none), "{none}");
        }
        for found in [
            "{{ a * b }}",
            "* {{ '}}' * 2 }}",
            "{{ [{'a': {'b': 1}}, 'x' * 9] }}",
            "{# {{ ' #}{{ 'a' * 9 }}{# ' #}",
            "{{ a }} {{- 'x' * 2 -}}",
            "{{ 'a' * 9",
        ] {
            assert!(text_multiplies(found), "{found}");
        }
        for none in ["* {{ a }} *", "{{ '*' }} * {{ 2 ** 3 }}", "{# {{ a * b }} #}", "{ * }"] {
            assert!(!text_multiplies(none), "{none}");
        }
    }

    #[test]
    fn times_is_for_numbers() {
        let times = |one: Value, other: Value| times(&one, &other).map(|product| product.to_string()).ok();
        assert_eq!(times(6.into(), 7.into()).as_deref(), Some("42"));
        assert_eq!(times(2.5.into(), 2.into()).as_deref(), Some("5.0"));
        assert_eq!(times(i64::MAX.into(), 4.into()).as_deref(), Some("36893488147419103000.0"));
        assert_eq!(times("x".into(), 1_000_000_000.into()), None);
        assert_eq!(times(Value::from(vec![1]), 9.into()), None);
    }

    #[test]
    fn no_filter_makes_what_is_too_large() {
        let mut environment = Environment::empty();
        add_filters(&mut environment);
        environment.add_function("range", minijinja::functions::range);
        let long = format!("range(9999)|join('{}')", "0123456789".repeat(20));
        let grown = "'abcdefgh'".to_owned() + &"|list|string".repeat(60) + "|length";
        for large in [
            grown.as_str(),
            "range(99999)|list|length",
            "('a'|replace('a', range(9999)|join))|replace('0', range(9999)|join)",
            long.as_str(),
        ] {
            let compiled = environment.compile_expression(large).unwrap();
            assert!(compiled.eval(()).is_err(), "{large}");
        }
        let fine = environment.compile_expression("'b,a'|split(',')|sort|join('-')|upper").unwrap();
        assert_eq!(fine.eval(()).unwrap().as_str(), Some("A-B"));
    }
}
