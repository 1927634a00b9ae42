//! Templates with names of their own: headers, and members of the body, that an outbox adds to its events.

use figment::value::Value as Tree;

use super::field::Field;
use super::read::{Report, join, text_of};
use super::template::{OtherColumns, Template};
use super::words::EnvelopeFormat;

/// Names and what they stand for, in the order of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedTemplates(Vec<(String, Template)>);

impl NamedTemplates {
    /// Each name with its template.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Template)> {
        self.0
            .iter()
            .map(|(name, template)| (name.as_str(), template))
    }

    /// The header by which a consumer of bare payloads can recognize a repeat, named as Debezium's
    /// outbox event router names it.
    pub(super) fn bare() -> Self {
        let id = Template::of_field(Field::EventId);
        Self(vec![("id".to_owned(), id)])
    }

    /// Reads the table at `path`; what is malformed is in the report.
    pub(super) fn read(
        path: &str,
        table: Tree,
        others: &mut OtherColumns,
        report: &mut Report,
    ) -> Self {
        let Tree::Dict(_, entries) = table else {
            report.malformed(
                path.to_owned(),
                "must be a table of names and texts",
                &table,
            );
            return Self::default();
        };
        let mut templates = Vec::new();
        for (name, found) in entries {
            let option = join(path, &name);
            let template = text_of(&found)
                .ok_or_else(|| "must be text".to_owned())
                .and_then(|text| Template::parse(&text, &option, others));
            match template {
                Ok(template) => templates.push((name, template)),
                Err(rule) => report.malformed(option, rule, &found),
            }
        }
        Self(templates)
    }

    /// Whether the names can stand in the body of this format, beside what is there already.
    pub(super) fn check_fields(&self, path: &str, envelope: EnvelopeFormat, report: &mut Report) {
        let (rule, is_legal): (_, fn(&str) -> bool) = match envelope {
            EnvelopeFormat::Native => (
                "the name must match [a-zA-Z][a-zA-Z0-9_]*, have at most 64 bytes and be none of the envelope's own",
                is_member_name,
            ),
            EnvelopeFormat::CloudEvents | EnvelopeFormat::CloudEventsBinary => (
                "the name must match [a-z0-9]{1,20} and be no attribute or extension that is there already",
                is_extension_name,
            ),
            EnvelopeFormat::Raw if self.0.is_empty() => return,
            EnvelopeFormat::Raw => {
                let rule = "must be left out: \"raw\" publishes the payload alone, more facts go into headers";
                let names: Vec<_> = self.iter().map(|(name, _)| name).collect();
                report.refuse(path.to_owned(), rule, names.join(", "));
                return;
            }
        };
        for (name, _) in self.iter().filter(|(name, _)| !is_legal(name)) {
            report.refuse(join(path, name), rule, format!("{name:?}"));
        }
    }
}

/// A member that can be added to the native envelope.
fn is_member_name(name: &str) -> bool {
    const OWN: &[&str] = &[
        "envelopeVersion",
        "eventId",
        "eventType",
        "eventVersion",
        "timestamp",
        "source",
        "correlationId",
        "causationId",
        "traceparent",
        "tracestate",
        "aggregateType",
        "aggregateId",
        "data",
        "dataBase64",
    ];
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.len() <= 64
        && name.bytes().all(legal)
        && !OWN.contains(&name)
}

/// An extension that can be added to a CloudEvent, by the naming conventions of its specification.
fn is_extension_name(name: &str) -> bool {
    const OWN: &[&str] = &[
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "data",
        "partitionkey",
        "correlationid",
        "causationid",
        "traceparent",
        "tracestate",
        "aggregatetype",
        "eventversion",
    ];
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=20).contains(&name.len()) && name.bytes().all(legal) && !OWN.contains(&name)
}
