//! Which tags a template may have, and which names.
//!
//! A template reads: it prints values, asks, and goes over lists.  There is nothing to assign with and nothing to take
//! in, so that no template grows a value beyond what it was given, however often it goes round.

use super::fault::Fault;
use super::lexer::{Kind, Tag, Token};
use crate::event::route::bounded::NO_TIMES;

/// How deep statements may be nested.
const DEPTH_LIMIT: usize = 16;
/// How many `elif` an `if` may have.
const BRANCH_LIMIT: usize = 50;

/// The filters that there are.
pub(super) const FILTERS: &[&str] = &[
    "abs",
    "bool",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sort",
    "split",
    "string",
    "sum",
    "times",
    "title",
    "trim",
    "unique",
    "upper",
];
/// The tests that there are, to be used after `is`.
pub(super) const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "even",
    "false",
    "float",
    "ge",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
];

/// Words of the language, which name nothing.
pub(super) const KEYWORDS: [&str; 13] =
    ["and", "or", "not", "in", "is", "if", "else", "true", "True", "false", "False", "none", "None"];

/// A statement that is open.
struct Open<'s> {
    word: &'s str,
    at: usize,
    /// What a loop binds.
    targets: Vec<&'s str>,
    branches: usize,
    has_else: bool,
}

/// Everything that is wrong with these tags; `known` are the variables.
pub(super) fn check(source: &str, tags: &[Tag<'_>], known: &[&str]) -> Vec<Fault> {
    let mut checker = Checker { source, known, open: Vec::new(), faults: Vec::new() };
    for tag in tags {
        if tag.prints {
            checker.expression(&tag.tokens, &[]);
        } else if !checker.statement(tag) {
            break;
        }
    }
    while let Some(open) = checker.open.pop() {
        checker.fault(open.at, format!("{{% {0} %}} does not end: {{% end{0} %}} is missing", open.word));
    }
    checker.faults
}

struct Checker<'s, 'k> {
    source: &'s str,
    known: &'k [&'k str],
    open: Vec<Open<'s>>,
    faults: Vec<Fault>,
}

impl<'s> Checker<'s, '_> {
    fn fault(&mut self, at: usize, message: impl Into<String>) {
        self.faults.push(Fault::at(self.source, at, message));
    }

    /// Reads a statement; answers false when what follows it can not be made sense of.
    fn statement(&mut self, tag: &Tag<'s>) -> bool {
        let Some((first, rest)) = tag.tokens.split_first() else {
            self.fault(tag.at, "the tag is empty");
            return true;
        };
        match first.text {
            "if" => {
                self.expression(rest, &[]);
                self.begin(first, Vec::new())
            }
            "for" => {
                let targets = self.for_loop(first, rest);
                self.begin(first, targets)
            }
            "elif" | "else" => self.branch(first, rest),
            "endif" | "endfor" => match self.open.pop() {
                Some(open) if first.text[3..] == *open.word => true,
                _ => {
                    self.fault(first.at, format!("{{% {} %}} ends what is not open", first.text));
                    false
                }
            },
            "include" | "import" | "from" | "extends" | "block" | "macro" | "call" => {
                let message = "a template stands for itself and takes nothing in: there is no";
                self.fault(first.at, format!("{message} {{% {} %}}", first.text));
                false
            }
            other => {
                self.fault(first.at, format!("there is no {{% {other} %}}; there are if, for and raw"));
                false
            }
        }
    }

    fn begin(&mut self, word: &Token<'s>, targets: Vec<&'s str>) -> bool {
        if self.open.len() == DEPTH_LIMIT {
            self.fault(word.at, "statements can be nested 16 deep and no deeper");
            return false;
        }
        self.open.push(Open { word: word.text, at: word.at, targets, branches: 0, has_else: false });
        true
    }

    fn branch(&mut self, word: &Token<'s>, rest: &[Token<'s>]) -> bool {
        let is_elif = word.text == "elif";
        if is_elif {
            self.expression(rest, &[]);
        }
        let wrong = match self.open.last_mut() {
            None => Some("stands outside of a statement"),
            Some(open) if open.has_else => Some("stands behind {% else %}"),
            Some(open) if is_elif && open.word != "if" => Some("belongs into an {% if %}"),
            Some(open) => {
                open.branches += 1;
                open.has_else = !is_elif;
                // Where a loop had nothing to go over, what it binds is not there.
                if !is_elif {
                    open.targets.clear();
                }
                (open.branches > BRANCH_LIMIT).then_some("is one too many: an {% if %} may have 50")
            }
        };
        if let Some(wrong) = wrong {
            self.fault(word.at, format!("{{% {} %}} {wrong}", word.text));
        }
        wrong.is_none()
    }

    /// Reads what follows `for`; answers what the loop binds.
    fn for_loop(&mut self, word: &Token<'s>, rest: &[Token<'s>]) -> Vec<&'s str> {
        let Some(position) = rest.iter().position(|token| token.names("in")) else {
            self.fault(word.at, "a loop is written {% for entry in list %}");
            return Vec::new();
        };
        let (names, over) = (&rest[..position], &rest[position + 1..]);
        let targets: Vec<&str> =
            names.iter().filter(|token| token.kind == Kind::Name).map(|token| token.text).collect();
        if let Some(odd) = names.iter().find(|token| token.kind != Kind::Name && !token.is(",")) {
            self.fault(odd.at, "a loop binds names, separated by commas");
        }
        // A list that is made here could hold its own entries twice, and grow with each loop inside a loop.
        for (index, token) in over.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| &over[before]);
            let follows_value = before.is_some_and(|before| match before.kind {
                Kind::Name => !KEYWORDS.contains(&before.text),
                Kind::Literal => true,
                Kind::Symbol => before.is(")") || before.is("]"),
            });
            let makes = token.is("{") || token.is("~") || token.is("+") || token.is("*") || token.is("**");
            if makes || ((token.is("[") || token.is("(")) && !follows_value) {
                self.fault(token.at, format!("a loop goes over what there is: it has no {}", token.text));
            }
            if token.names("recursive") && follows_value {
                self.fault(token.at, "a loop can not be recursive");
            }
        }
        let split = over.iter().position(|token| token.names("if")).unwrap_or(over.len());
        self.expression(&over[..split], &[]);
        self.expression(over.get(split + 1..).unwrap_or_default(), &targets);
        targets
    }

    /// Checks every name of an expression; `bound` are names that only it knows.
    fn expression(&mut self, tokens: &[Token<'s>], bound: &[&str]) {
        if let Some(token) = tokens.iter().find(|token| token.is("*")) {
            self.fault(token.at, NO_TIMES);
        }
        for (index, token) in tokens.iter().enumerate().filter(|(_, token)| token.kind == Kind::Name) {
            let before = |steps: usize| index.checked_sub(steps).map(|at| &tokens[at]);
            let follows = |symbol: &str| before(1).is_some_and(|token| token.is(symbol));
            let next_is = |symbol: &str| tokens.get(index + 1).is_some_and(|token| token.is(symbol));
            let name = token.text;
            let after = |word: &str, steps: usize| before(steps).is_some_and(|token| token.names(word));
            let is_test = after("is", 1) || (after("not", 1) && after("is", 2));
            let wrong = if follows(".") {
                let of_loop = after("loop", 2) && ["cycle", "changed"].contains(&name);
                (next_is("(") && !of_loop)
                    .then(|| format!("there is no method {name:?}: use a filter, as in |{name}"))
            } else if follows("|") {
                let known = FILTERS.contains(&name);
                (!known).then(|| format!("there is no filter {name:?}"))
            } else if is_test && name != "not" {
                let known = TESTS.contains(&name);
                (!known).then(|| format!("there is no test {name:?}"))
            } else if KEYWORDS.contains(&name) || next_is("=") {
                None
            } else if next_is("(") {
                (name != "range").then(|| format!("there is no function {name:?}"))
            } else {
                (!self.knows(name) && !bound.contains(&name)).then(|| self.unknown(name))
            };
            if let Some(wrong) = wrong {
                self.fault(token.at, wrong);
            }
        }
    }

    fn knows(&self, name: &str) -> bool {
        let in_loop = || self.open.iter().any(|open| open.word == "for" && !open.targets.is_empty());
        self.known.contains(&name)
            || self.open.iter().any(|open| open.targets.contains(&name))
            || (name == "loop" && in_loop())
    }

    fn unknown(&self, name: &str) -> String {
        format!("there is no variable {name:?}; known: {}", self.known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer;
    use super::*;

    fn faults(source: &str) -> Vec<String> {
        let tags = lexer::tags(source).unwrap();
        check(source, &tags, &["a", "b", "list"]).iter().map(Fault::to_string).collect()
    }

    #[test]
    fn what_is_known_is_taken() {
        for good in [
            "{{ a }} {{ a.unknown.deep }} {{ a[b] }} {{ a|default('x')|upper }}",
            "{% if a is defined and b is not none and a is divisibleby 3 %}{{ a }}{% elif b %}x{% else %}y{% endif %}",
            "{% for x, y in list|dictsort if y.z %}{{ loop.index }}{{ x ~ y }}{% else %}{{ a }}{% endfor %}",
            "{% for x in list[:5] %}{% for y in x.items|sort(attribute='n') %}{{ loop.cycle('a', 'b') }}{% endfor %}{% endfor %}",
            "{{ range(3)|join(', ') }} {{ 'x' if a else 'y' }} {{ {'k': a}['k'] }} {% for i in range(3) %}{{ i }}{% endfor %}",
            "{% raw %}{{ nothing }}{% endraw %}{# {{ nothing }} #}",
        ] {
            assert_eq!(faults(good), [""; 0], "{good}");
        }
    }

    #[test]
    fn every_unknown_name_is_told_with_its_place() {
        assert_eq!(
            faults("{{ a }}\n  {{ tikcet }} {{ b|uper }}{{ x.y }}"),
            [
                "line 2, column 6: there is no variable \"tikcet\"; known: a, b, list",
                "line 2, column 21: there is no filter \"uper\"",
                "line 2, column 31: there is no variable \"x\"; known: a, b, list",
            ]
        );
        assert_eq!(
            faults("{% for x in list %}{{ x }}{% else %}{{ x }}{% endfor %}{{ x }}{{ loop.index }}").len(),
            3
        );
        assert_eq!(faults("{% for x in x %}{% endfor %}").len(), 1);
        assert_eq!(faults("{{ a is odds }}"), ["line 1, column 9: there is no test \"odds\""]);
        assert_eq!(faults("{{ a|safe }}"), ["line 1, column 6: there is no filter \"safe\""]);
        assert!(faults("{{ a.upper() }}")[0].contains("there is no method \"upper\""));
        assert!(faults("{{ a * 2 }}")[0].starts_with("line 1, column 6: there is no operator *"));
        assert!(faults("{{ a|times(2) }}{{ a ** 2 }}").is_empty());
        assert!(faults("{{ debug() }}")[0].contains("there is no function \"debug\""));
        assert!(faults("{{ loop }}{{ self }}").len() == 2);
    }

    #[test]
    fn nothing_is_taken_in_and_nothing_is_assigned() {
        for word in
            ["include 'x'", "import 'x' as y", "from 'x' import y", "extends 'x'", "block x", "macro x()"]
        {
            let found = faults(&format!("x\n{{% {word} %}}"));
            assert!(found[0].starts_with("line 2, column 4: a template stands for itself"), "{found:?}");
        }
        for word in ["set x = a", "with x = a", "filter upper", "autoescape false", "do a()", "break", "frob"]
        {
            assert!(faults(&format!("{{% {word} %}}"))[0].contains("there are if, for and raw"), "{word}");
        }
        for over in
            ["[a, a]", "(a, a)", "{'x': a}", "list ~ list", "list * 9", "list + list", "list|map([a])"]
        {
            assert!(
                faults(&format!("{{% for x in {over} %}}{{% endfor %}}"))[0].contains("a loop goes over"),
                "{over}"
            );
        }
        assert!(faults("{% for x in list recursive %}{% endfor %}")[0].contains("recursive"));
    }

    #[test]
    fn statements_are_paired_and_bounded() {
        assert_eq!(
            faults("{% if a %}x"),
            ["line 1, column 4: {% if %} does not end: {% endif %} is missing"]
        );
        assert!(faults("{% if a %}{% endfor %}")[0].contains("ends what is not open"));
        assert!(faults("{% endif %}")[0].contains("ends what is not open"));
        assert!(faults("{% else %}")[0].contains("outside"));
        assert!(faults("{% if a %}{% else %}{% elif b %}{% endif %}")[0].contains("behind"));
        assert!(faults("{% for x in list %}{% elif b %}{% endfor %}")[0].contains("belongs"));
        assert!(faults("{% %}")[0].contains("empty"));
        assert!(faults(&"{% if a %}".repeat(20_000))[0].contains("nested 16 deep"));
        let branches = format!("{{% if a %}}{}{{% endif %}}", "{% elif b %}".repeat(20_000));
        assert!(faults(&branches)[0].contains("one too many"));
    }
}
