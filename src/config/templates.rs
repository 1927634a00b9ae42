//! What the messages of an outbox are made of, besides their payload: topic, key, headers, fields.

use std::collections::BTreeMap;

use figment::value::Value as Tree;

use super::named::NamedTemplates;
use super::read::{Report, Section, join, text_of};
use super::template::{OtherColumns, Template};
use super::topic::TopicTemplate;
use super::words::EnvelopeFormat;

/// The templates of one outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    /// The topic of an event whose row names none, and whose type none of `topics`.
    pub topic: TopicTemplate,
    /// The topics of events whose row names none, by their types.
    pub topics: BTreeMap<String, TopicTemplate>,
    /// The Kafka key of an event whose row has no partition key; nothing: it has none.
    pub key: Option<Template>,
    /// Headers of every event, besides the envelope's and the row's.
    pub headers: NamedTemplates,
    /// Members or extension attributes of every event, besides the envelope's.
    pub fields: NamedTemplates,
    /// The columns that these name and that hold no field.
    pub other_columns: OtherColumns,
}

impl Templates {
    pub(super) fn read(
        section: &mut Section,
        envelope: Option<EnvelopeFormat>,
        report: &mut Report,
    ) -> Option<Self> {
        let mut others = OtherColumns::default();
        let option = section.field("topic");
        let topic = section.read_by(report, "topic", |text| {
            TopicTemplate::parse(text, &option, &mut others)
        });
        let topics = match section.whole("topics") {
            Some(table) => read_topics(&section.field("topics"), table, &mut others, report),
            None => BTreeMap::new(),
        };
        let option = section.field("key");
        let key = section.read_by(report, "key", |text| match text {
            "" => Ok(None),
            _ => Template::parse(text, &option, &mut others).map(Some),
        });
        let headers = match (section.whole("headers"), envelope) {
            (Some(table), _) => {
                NamedTemplates::read(&section.field("headers"), table, &mut others, report)
            }
            (None, Some(EnvelopeFormat::Raw)) => NamedTemplates::bare(),
            (None, _) => NamedTemplates::default(),
        };
        let path = section.field("fields");
        let fields = match section.whole("fields") {
            Some(table) => NamedTemplates::read(&path, table, &mut others, report),
            None => NamedTemplates::default(),
        };
        if let Some(envelope) = envelope {
            fields.check_fields(&path, envelope, report);
        }
        Some(Self {
            topic: topic?,
            topics,
            key: key?,
            headers,
            fields,
            other_columns: others,
        })
    }
}

/// Reads the table at `path`; what is malformed is in the report.
fn read_topics(
    path: &str,
    table: Tree,
    others: &mut OtherColumns,
    report: &mut Report,
) -> BTreeMap<String, TopicTemplate> {
    let Tree::Dict(_, entries) = table else {
        let rule = "must be a table of event types and topics";
        report.malformed(path.to_owned(), rule, &table);
        return BTreeMap::new();
    };
    let mut topics = BTreeMap::new();
    for (event_type, found) in entries {
        let option = join(path, &event_type);
        let topic = text_of(&found)
            // As TOML has it, a dot parts the names of tables.
            .ok_or_else(|| "must be text, with the event type in quotes".to_owned())
            .and_then(|text| TopicTemplate::parse(&text, &option, others));
        match topic {
            Ok(topic) => {
                topics.insert(event_type, topic);
            }
            Err(rule) => report.malformed(option, rule, &found),
        }
    }
    topics
}
