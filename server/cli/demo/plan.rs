//! What is to happen, and the words by which a mail is known to have its variables in place.

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use switchboard_client::email::v1::TemplateVariable;

use super::events::{Planned, READER};

/// What is to happen.
#[derive(Debug)]
pub struct Plan {
    /// The endpoint that gets every event.
    pub webhook_id: String,
    /// The events, in their order.
    pub events: &'static [Planned],
    /// The mails that no event causes.
    pub direct: Vec<DirectMail>,
}

/// A mail that an application sends by itself.
#[derive(Debug)]
pub struct DirectMail {
    /// The template.
    pub template: String,
    /// Its variables.
    pub variables: Struct,
    /// What both bodies must show.
    pub words: Vec<String>,
}

/// A mail that is to be captured.
#[derive(Debug, Clone)]
pub struct ExpectedMail<'a> {
    /// What causes it.
    pub cause: Cause,
    /// Its template.
    pub template: &'a str,
    /// Who gets it.
    pub recipient: &'a str,
    /// What both bodies must show.
    pub words: Vec<&'a str>,
}

/// What causes a mail, by its place in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// An event.
    Event(usize),
    /// A call of SendEmail.
    Direct(usize),
}

impl Plan {
    /// Every mail that is to be captured.
    pub fn mails(&self) -> Vec<ExpectedMail<'_>> {
        let mut expected = Vec::new();
        for (index, event) in self.events.iter().enumerate() {
            for mails in event.mails {
                expected.extend(mails.recipients.iter().map(|recipient| ExpectedMail {
                    cause: Cause::Event(index),
                    template: mails.template,
                    recipient,
                    words: mails.words.to_vec(),
                }));
            }
        }
        expected.extend(self.direct.iter().enumerate().map(|(index, mail)| ExpectedMail {
            cause: Cause::Direct(index),
            template: &mail.template,
            recipient: READER,
            words: mail.words.iter().map(String::as_str).collect(),
        }));
        expected
    }
}

impl DirectMail {
    /// A mail with the template's own sample values.
    pub fn from_samples(template: String, variables: Vec<TemplateVariable>) -> Self {
        let samples = variables.into_iter().filter_map(|variable| Some((variable.name, variable.sample?)));
        let variables = Struct { fields: samples.collect() };
        let mut words = Vec::new();
        variables.fields.values().for_each(|value| collect_words(value, &mut words));
        Self { template, variables, words }
    }
}

/// Collects the texts of a value.  Numbers and dates are left out: a template writes them in its own way.
fn collect_words(value: &Value, words: &mut Vec<String>) {
    match &value.kind {
        Some(Kind::StringValue(text)) if !is_date(text) => words.push(text.clone()),
        Some(Kind::ListValue(list)) => list.values.iter().for_each(|value| collect_words(value, words)),
        Some(Kind::StructValue(object)) => {
            object.fields.values().for_each(|value| collect_words(value, words));
        }
        _ => {}
    }
}

fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 10 && bytes[4] == b'-' && bytes[7] == b'-' && bytes[..4].iter().all(u8::is_ascii_digit)
}

/// Brings a body to a form in which words can be looked for: entities resolved, every run of white space one space.
pub fn readable(body: &str) -> String {
    let mut text = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find('&') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let entity = rest.find(';').and_then(|end| Some((resolve(&rest[1..end])?, end + 1)));
        let (character, length) = entity.unwrap_or(('&', 1));
        text.push(character);
        rest = &rest[length..];
    }
    text.push_str(rest);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn resolve(entity: &str) -> Option<char> {
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => match entity.strip_prefix("#x").or_else(|| entity.strip_prefix("#X")) {
            Some(digits) => char::from_u32(u32::from_str_radix(digits, 16).ok()?),
            None => char::from_u32(entity.strip_prefix('#')?.parse().ok()?),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_reads_the_same_escaped_and_wrapped() {
        assert_eq!(
            readable("Feed &lt;3&#32;mm&#62; &amp;\n  pellets &c; & &#x27;"),
            "Feed <3 mm> & pellets &c; & '"
        );
    }

    #[test]
    fn words_come_from_texts_at_any_depth_but_not_from_dates() {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let job = Struct { fields: [("title".to_owned(), text("Gardener"))].into() };
        let list = prost_types::ListValue { values: vec![Value { kind: Some(Kind::StructValue(job)) }] };
        let variable =
            |name: &str, sample| TemplateVariable { name: name.to_owned(), sample, ..Default::default() };
        let mail = DirectMail::from_samples(
            "job_alert".to_owned(),
            vec![
                variable("applied_at", Some(text("2026-03-05"))),
                variable("jobs", Some(Value { kind: Some(Kind::ListValue(list)) })),
                variable("user_name", Some(text("Ada"))),
                variable("without_sample", None),
            ],
        );
        assert_eq!(mail.words, ["Gardener", "Ada"]);
        assert_eq!(mail.variables.fields.len(), 3);
    }
}
