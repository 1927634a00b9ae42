//! Tables of others: which column holds which field, and how a sent row is told from an unsent one.

use std::collections::BTreeMap;

use figment::value::Value as Tree;

use super::OutboxConfig;
use super::error::ConfigError;
use super::field::Field;
use super::names::Name;
use super::read::{Report, Section, join};
use super::values::Value;
use super::words::{EnvelopeFormat, EventTimestamp, OnSent, PayloadEncoding};

/// What a table that is not outboxd's own looks like. Nothing here is known to fit the table: that is
/// compared with the catalogue when the relay starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// `[outbox.<name>.columns]`
    pub columns: Columns,
    /// `[outbox.<name>.sent]`; none: every row is unsent, and sent rows are deleted.
    pub sent: Option<SentColumn>,
    /// What the payload's column holds.
    pub payload_encoding: PayloadEncoding,
    /// Triggers that may run before a row is marked or deleted.
    pub trusted_triggers: Vec<String>,
}

/// The columns that hold the fields. A field without a column does not exist in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The monotonic column.
    pub id: Name,
    /// The event's own id; may be the same column.
    pub event_id: Name,
    others: BTreeMap<Field, Name>,
}

impl Columns {
    /// The column that holds the field.
    pub fn get(&self, field: Field) -> Option<&Name> {
        match field {
            Field::Id => Some(&self.id),
            Field::EventId => Some(&self.event_id),
            field => self.others.get(&field),
        }
    }

    /// Every field that has a column.
    pub fn iter(&self) -> impl Iterator<Item = (Field, &Name)> {
        let all = Field::ALL.iter();
        all.filter_map(|field| Some((*field, self.get(*field)?)))
    }

    fn read(mut section: Section, report: &mut Report) -> Option<Self> {
        let id = section.required(report, Field::Id.name());
        let event_id = section.required(report, Field::EventId.name());
        let mut others = BTreeMap::new();
        for field in Field::ALL {
            if matches!(field, Field::Id | Field::EventId) {
                continue;
            }
            if let Some(Some(column)) = section.optional(report, field.name()) {
                others.insert(*field, column);
            }
        }
        section.finish(report);
        Some(Self {
            id: id?,
            event_id: event_id?,
            others,
        })
    }
}

/// The column that tells a sent row from an unsent one, by its type: a timestamp is null until the row is
/// sent, a boolean is false, text and enumerations have a value for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentColumn {
    /// The column.
    pub column: Name,
    /// For text and enumerations.
    pub values: Option<SentValues>,
    /// A timestamp column that is set along with it.
    pub at: Option<Name>,
}

/// The values of a status column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentValues {
    /// Of rows that are to be published; all other values are left alone.
    pub unsent: String,
    /// Of rows that were.
    pub sent: String,
}

impl SentColumn {
    fn read(mut section: Section, report: &mut Report) -> Option<Self> {
        let column = section.required(report, "column");
        let unsent = section.optional::<Status>(report, "unsent");
        let sent = section.optional::<Status>(report, "sent");
        let at = section.optional(report, "at");
        let values = match (unsent?, sent?) {
            (None, None) => None,
            (Some(unsent), Some(sent)) if unsent.0 == sent.0 => {
                let rule = "must differ from unsent";
                report.refuse(section.field("sent"), rule, sent.show());
                None
            }
            (Some(unsent), Some(sent)) => Some(SentValues {
                unsent: unsent.0,
                sent: sent.0,
            }),
            (unsent, _) => {
                let missing = if unsent.is_some() { "sent" } else { "unsent" };
                report.errors.push(ConfigError::Contradictory {
                    field: section.field(missing),
                    conflict: "a status has two values, unsent and sent: set both or none"
                        .to_owned(),
                });
                None
            }
        };
        section.finish(report);
        Some(Self {
            column: column?,
            values,
            at: at?,
        })
    }
}

impl Mapping {
    /// Reads the mapping of an outbox: `Some(None)` if its table is outboxd's own.
    pub(super) fn read(section: &mut Section, report: &mut Report) -> Option<Option<Self>> {
        let columns = subtable(section, report, "columns");
        let sent = subtable(section, report, "sent");
        let payload_encoding = section.read::<PayloadEncoding>(report, "payload_encoding");
        let trusted_triggers = section.optional::<TriggerNames>(report, "trusted_triggers");
        let Some(columns) = columns? else {
            let given = [
                ("sent", sent?.is_some()),
                (
                    "payload_encoding",
                    payload_encoding? != PayloadEncoding::Auto,
                ),
                ("trusted_triggers", trusted_triggers?.is_some()),
            ];
            for (option, _) in given.iter().filter(|(_, given)| *given) {
                report.errors.push(ConfigError::Contradictory {
                    field: section.field(option),
                    conflict: format!(
                        "is for a table of others: needs {}",
                        section.field("columns")
                    ),
                });
            }
            return Some(None);
        };
        let columns = Columns::read(columns, report);
        let sent = match sent? {
            Some(sent) => Some(SentColumn::read(sent, report)?),
            None => None,
        };
        Some(Some(Self {
            columns: columns?,
            sent,
            payload_encoding: payload_encoding?,
            trusted_triggers: trusted_triggers?.map(|names| names.0).unwrap_or_default(),
        }))
    }
}

impl Mapping {
    /// The columns that a mark sets.
    pub fn marked_columns(&self) -> impl Iterator<Item = &Name> {
        let sent = self.sent.iter();
        sent.flat_map(|sent| [Some(&sent.column), sent.at.as_ref()])
            .flatten()
    }

    /// What the rest of the outbox's options at `path` ask of its table.
    pub(super) fn check(&self, outbox: &OutboxConfig, path: &str, report: &mut Report) {
        let mut contradict = |option: &str, conflict: String| {
            report.errors.push(ConfigError::Contradictory {
                field: join(path, option),
                conflict,
            });
        };
        let columns = join(path, "columns");
        let mut need = |option: &str, what: &str, fields: &mut dyn Iterator<Item = Field>| {
            for field in fields.filter(|field| self.columns.get(*field).is_none()) {
                let name = field.name();
                let conflict = format!("{what} needs a column for {name}, {columns} names none");
                contradict(option, conflict);
            }
        };
        let envelope = outbox.envelope;
        need(
            "envelope",
            &format!("\"{}\"", envelope.as_str()),
            &mut needed_by(envelope).iter().copied(),
        );
        let templates = &outbox.templates;
        need("topic", "the template", &mut templates.topic.fields());
        for (event_type, topic) in &templates.topics {
            let mut fields = topic.fields().chain([Field::EventType]);
            need(&join("topics", event_type), "the topic", &mut fields);
        }
        if let Some(key) = &templates.key
            && self.columns.get(Field::PartitionKey).is_none()
        {
            need("key", "the template", &mut key.fields());
        }
        for (table, named) in [
            ("headers", &templates.headers),
            ("fields", &templates.fields),
        ] {
            for (name, template) in named.iter() {
                let option = join(table, name);
                need(&option, "the template", &mut template.fields());
            }
        }
        if outbox.timestamp == EventTimestamp::CreatedAt {
            let field = [Field::CreatedAt];
            need("timestamp", "\"created_at\"", &mut field.into_iter());
        }
        for column in self.marked_columns() {
            if let Some((field, _)) = self.columns.iter().find(|(_, other)| *other == column) {
                let (column, field) = (column.as_str(), field.name());
                let conflict =
                    format!("column {column:?} holds {field}, which a mark must not change");
                contradict("sent", conflict);
            }
        }
        if self.sent.is_none() && outbox.on_sent == OnSent::Mark {
            let conflict =
                "must name the column that marks a sent row, unless on_sent is \"delete\"";
            contradict("sent.column", conflict.to_owned());
        }
        if outbox.notify {
            let conflict = "needs a trigger, and outboxd makes none on a table of others";
            contradict("notify", conflict.to_owned());
        }
    }
}

/// What every message of the format says.
fn needed_by(envelope: EnvelopeFormat) -> &'static [Field] {
    match envelope {
        EnvelopeFormat::Native => &[
            Field::EventType,
            Field::AggregateType,
            Field::AggregateId,
            Field::CreatedAt,
        ],
        EnvelopeFormat::CloudEvents | EnvelopeFormat::CloudEventsBinary => &[Field::EventType],
        EnvelopeFormat::Raw => &[],
    }
}

/// Defaults that differ for a mapped table, given the outbox's own options: nothing is deleted from a
/// table of others unless it is asked for, and where there is no time there is no timestamp.
pub(super) fn defaults(options: &BTreeMap<String, Tree>) -> BTreeMap<String, Tree> {
    let mut defaults = BTreeMap::new();
    if let Some(columns) = options.get("columns") {
        defaults.insert("retention".to_owned(), Tree::from("forever"));
        let has_time =
            matches!(columns, Tree::Dict(_, names) if names.contains_key(Field::CreatedAt.name()));
        if !has_time {
            defaults.insert("timestamp".to_owned(), Tree::from("none"));
        }
    }
    defaults
}

/// A table below an outbox that has no default: `Some(None)` if it was not given.
fn subtable(
    section: &mut Section,
    report: &mut Report,
    key: &'static str,
) -> Option<Option<Section>> {
    let path = section.field(key);
    match section.whole(key) {
        None => Some(None),
        Some(Tree::Dict(_, entries)) => Some(Some(Section::new(path, entries))),
        Some(other) => {
            report.malformed(path, "must be a table of names and texts", &other);
            None
        }
    }
}

/// A value of a status column.
struct Status(String);

impl Value for Status {
    fn read(text: &str) -> Result<Self, String> {
        match text.contains('\0') {
            true => Err("must not hold the character 0".to_owned()),
            false => Ok(Self(text.to_owned())),
        }
    }

    fn show(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Triggers by their names, separated by commas.
pub(super) struct TriggerNames(pub(super) Vec<String>);

impl Value for TriggerNames {
    fn read(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(|name| Name::read(name.trim()));
        let names: Result<Vec<Name>, String> = names.collect();
        let rule = |_| "must be names of triggers, separated by commas".to_owned();
        let names = names.map_err(rule)?;
        Ok(Self(
            names.iter().map(|name| name.as_str().to_owned()).collect(),
        ))
    }

    fn show(&self) -> String {
        self.0.join(",")
    }
}
