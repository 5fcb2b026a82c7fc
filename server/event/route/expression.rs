//! Expressions of routes: conditions, and values for variables.
//!
//! They are minijinja's, over what an event says.  An expression reads and computes; it can not loop for ever (fuel), or
//! make more than so much ([`bounded`]), and it reaches nothing but what it is given.

use std::io;
use std::sync::LazyLock;

use minijinja::value::Serde;
use minijinja::{Environment, Expression as Compiled, UndefinedBehavior, Value};

use super::bounded;
use crate::event::model::Fact;

/// Instructions that one evaluation may take; a condition takes about ten.
const FUEL: u64 = 10_000;
const RECURSION_LIMIT: usize = 64;
const LENGTH_LIMIT: usize = 1_024;
const TEXT_LIMIT: usize = 4_096;
/// The longest text that the values make of a text, in bytes.
const RENDERED_LIMIT: usize = 64 * 1024;
/// Filters of the engine that make as much as a number says, or more of each thing that they are given.
const WITHOUT: [&str; 11] = [
    "batch",
    "chain",
    "format",
    "groupby",
    "indent",
    "pprint",
    "slice",
    "tojson",
    "urlencode",
    "zip",
    "attr",
];

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    // A field that an event lacks is nothing, so that a condition on it is false and not an error.
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_LIMIT);
    for name in WITHOUT {
        environment.remove_filter(name);
    }
    for name in ["debug", "dict", "namespace"] {
        environment.remove_global(name);
    }
    bounded::add_filters(&mut environment);
    environment
});

/// A compiled expression.
#[derive(Debug)]
pub struct Expression(Compiled<'static, 'static>);

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > LENGTH_LIMIT {
            return Err(format!("must have at most {LENGTH_LIMIT} characters"));
        }
        if bounded::multiplies(text) {
            return Err(bounded::NO_TIMES.into());
        }
        let compiled = ENVIRONMENT.compile_expression_owned(text.to_owned());
        compiled.map(Self).map_err(|error| format!("is not an expression: {}", describe(&error)))
    }

    /// Its value.
    ///
    /// # Errors
    /// Why it has none.
    pub fn evaluate(&self, context: &Value) -> Result<Value, String> {
        self.0.eval(context).map_err(|error| describe(&error))
    }

    /// Whether its value counts as true; one that fails does not.
    pub fn is_true(&self, context: &Value) -> bool {
        self.evaluate(context).is_ok_and(|value| value.is_true())
    }
}

/// A text with `{{ variables }}`, each an expression.
#[derive(Debug, Clone)]
pub struct Text(String);

impl Text {
    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_LIMIT {
            return Err(format!("must have at most {TEXT_LIMIT} bytes"));
        }
        if text.contains("{%") {
            return Err("may have {{ variables }}, and no {% statements %}".into());
        }
        if bounded::text_multiplies(text) {
            return Err(bounded::NO_TIMES.into());
        }
        let compiled = ENVIRONMENT.template_from_str(text);
        compiled.map(drop).map_err(|error| format!("is not a text with variables: {}", describe(&error)))?;
        Ok(Self(text.to_owned()))
    }

    /// The text with the values in it; one that fails, or becomes larger than 64 KiB, is empty.
    pub fn render(&self, context: &Value) -> String {
        if !self.0.contains("{{") {
            return self.0.clone();
        }
        let mut made = Bounded(Vec::new());
        let rendered = ENVIRONMENT
            .template_from_str(&self.0)
            .and_then(|template| template.render_captured_to(context.clone(), &mut made).map(drop));
        rendered.ok().and_then(|()| String::from_utf8(made.0).ok()).unwrap_or_default()
    }
}

/// Holds what is written up to the limit.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.0.len() + part.len() > RENDERED_LIMIT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn describe(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

/// What expressions can name.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The event's payload.
    pub data: serde_json::Map<String, serde_json::Value>,
    /// The names, for expressions.
    pub context: Value,
}

impl Scope {
    /// The names that an event gives.
    pub fn of(fact: &Fact) -> Self {
        Self::new(fact, &Value::UNDEFINED)
    }

    /// The names that an event gives, and `branding`.
    pub fn new(fact: &Fact, branding: &Value) -> Self {
        // Payloads were checked when they were accepted.
        let data: serde_json::Map<_, _> = serde_json::from_str(&fact.data).unwrap_or_default();
        let context = minijinja::context! {
            data => Value::from(Serde(&data)),
            event_type => &*fact.event_type,
            event_id => &*fact.id,
            created_at => fact.created_at.to_string(),
            actor => fact.actor.as_str(),
            subject => fact.subject.as_str(),
            topic => &*fact.topic,
            branding => branding,
        };
        Self { data, context }
    }

    /// The names for texts: the fields of the payload by their own names too, but for those that are taken.
    pub fn for_texts(&self) -> Value {
        minijinja::context! { ..self.context.clone(), ..Value::from(Serde(&self.data)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn scope(data: &str) -> Scope {
        let fact = Fact {
            id: "evt_1".into(),
            event_type: "ticket.created".into(),
            data: data.into(),
            actor: "jo".into(),
            subject: String::new(),
            topic: "events".into(),
            created_at: Timestamp::from_micros(0),
        };
        Scope::new(&fact, &Value::from(Serde(serde_json::json!({"site_url": "https://example.com"}))))
    }

    fn holds(condition: &str, data: &str) -> bool {
        Expression::compile(condition).unwrap().is_true(&scope(data).context)
    }

    #[test]
    fn a_condition_reads_the_event() {
        assert!(holds("data.priority == \"critical\"", r#"{"priority":"critical"}"#));
        assert!(!holds("data.priority == \"critical\"", r#"{"priority":"low"}"#));
        assert!(holds("data.stock < 10 and actor == 'jo'", r#"{"stock":9.5}"#));
        assert!(holds("event_type in ['ticket.created']", "{}"));
    }

    #[test]
    fn what_is_missing_makes_it_false_and_never_an_error() {
        assert!(!holds("data.priority == \"critical\"", "{}"));
        assert!(!holds("data.a.b.c > 3", "{}"));
        assert!(!holds("data.a.b", "{}"));
    }

    #[test]
    fn a_text_has_values_in_it_and_no_statements() {
        let names = scope(r#"{"title":"Pump <3>","subject":"of the data"}"#).for_texts();
        let text = |text: &str| Text::compile(text).unwrap().render(&names);
        assert_eq!(
            text("{{ data.title }}: {{title}} {{ nothing }}{{ actor|upper }}"),
            "Pump <3>: Pump <3> JO"
        );
        assert_eq!(text("{{ subject }}"), "", "the event's subject, which is empty");
        assert_eq!(text("plain { text }"), "plain { text }");
        for bad in ["{{", "{{ a b }}", "{% for a in b %}{% endfor %}"] {
            assert!(Text::compile(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bad_expressions_are_refused() {
        for bad in ["data.", "1 +", "{{ data }}", "data.x ==", "", "a b"] {
            assert!(Expression::compile(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_expression_ends() {
        // Its answer does not matter; that there is one does.
        let long = "[".to_owned() + &"0, ".repeat(300) + "0]|sort|reverse|join(',')|length > 0";
        let _ = Expression::compile(&long).unwrap().is_true(&scope("{}").context);
        for large in ["'a' * 100000000", "[data.a * 2]"] {
            assert!(Expression::compile(large).unwrap_err().contains("times"), "{large}");
        }
        for large in ["'a'|indent(100000000)", "'%100000000d'|format(1)", "[1]|batch(100000000, 0)|list"] {
            let answer = Expression::compile(large).and_then(|it| it.evaluate(&scope("{}").context));
            assert!(answer.is_err(), "{large}");
        }
        let data = format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000));
        assert_eq!(Text::compile("{{ data.a }}").unwrap().render(&scope(&data).for_texts()), "");
        assert!(Text::compile("{{ 'x' * 9 }}").is_err());
        assert!(holds("data.price|times(data.count) == 21", r#"{"price":10.5,"count":2}"#));
        let value = Expression::compile("branding.site_url ~ '/tickets/' ~ data.ticket_id").unwrap();
        let value = value.evaluate(&scope(r#"{"ticket_id":42}"#).context).unwrap();
        assert_eq!(value.as_str(), Some("https://example.com/tickets/42"));
    }
}
