//! `[outbox.<name>]`: each by itself, and what holds across all of them.

use std::collections::BTreeMap;

use bytesize::ByteSize;
use figment::value::Value as Tree;

use super::{
    EnvelopeFormat, MAX_WINDOWS_BYTES, MAX_WINDOWS_ROWS, OutboxConfig, Retention, TableName,
    Templates,
    error::ConfigError,
    mapping::{self, Mapping},
    names::{AnyTable, Identifier, OwnTable},
    preset,
    read::{Report, Section, join},
    times::{DAY, MAX_RETENTION, MINUTE, MS, SECOND},
    topic_name::TopicName,
    values::{Label, Value as _},
};

/// As long as an identifier of Postgres: the name stands in leases, metrics and logs.
const MAX_NAME_BYTES: usize = 63;

/// What the outboxes need to know of `[postgres]`, even where another of its options is wrong.
pub(super) struct Database {
    pub schema: Option<Identifier>,
    /// A pooler in transaction mode, and no way around it.
    pub without_session: bool,
}

/// What is checked across all outboxes.
pub(super) struct Outboxes {
    database: Database,
    /// Each table with the first outbox that reads it.
    tables: BTreeMap<TableName, String>,
    window_rows: u64,
    window_bytes: u64,
}

impl Outboxes {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            tables: BTreeMap::new(),
            window_rows: 0,
            window_bytes: 0,
        }
    }

    pub(super) fn read(
        mut self,
        outboxes: BTreeMap<String, Tree>,
        defaults: &BTreeMap<String, Tree>,
        report: &mut Report,
    ) -> Option<BTreeMap<String, OutboxConfig>> {
        let mut read = BTreeMap::new();
        for (name, options) in outboxes {
            let mut entries = defaults.clone();
            if let Tree::Dict(_, options) = options {
                let options = preset::layered(options);
                entries.extend(mapping::defaults(&options));
                entries.extend(options);
            }
            let section = Section::new(join("outbox", &name), entries);
            if let Some(outbox) = self.read_one(&name, section, report) {
                read.insert(name, outbox);
            }
        }
        self.check_sums(report);
        Some(read)
    }

    fn read_one(
        &mut self,
        name: &str,
        mut section: Section,
        report: &mut Report,
    ) -> Option<OutboxConfig> {
        check_name(name, &section, report);
        let mapping = Mapping::read(&mut section, report);
        let table = match &mapping {
            Some(None) => section.read::<OwnTable>(report, "table").map(|own| own.0),
            _ => section.read::<AnyTable>(report, "table").map(|any| any.0),
        };
        let preset = section.optional(report, "preset");
        let source = section.read::<Label>(report, "source");
        let envelope = section.read(report, "envelope");
        let templates = Templates::read(&mut section, envelope, report);
        let tombstone_on_empty = section.read(report, "tombstone_on_empty");
        let bytes_content_type = section.read::<Label>(report, "bytes_content_type");
        let timestamp = section.read(report, "timestamp");
        let on_poison = section.read(report, "on_poison");
        let dead_letter_topic = section.optional::<TopicName>(report, "dead_letter_topic");
        let max_attempts = section.count(report, "max_attempts", 1_000);
        let breaker_errors = section.count(report, "breaker_errors", 100_000);
        let on_sent = section.read(report, "on_sent");
        let retention = section.read(report, "retention");
        let poll_interval = section.within(report, "poll_interval", MS..=MINUTE);
        let notify = section.read(report, "notify");
        let batch_rows = section.count(report, "batch_rows", 100_000);
        let window_rows = section.count(report, "window_rows", 1_000_000);
        let window_bytes =
            section.within(report, "window_bytes", ByteSize::mib(1)..=MAX_WINDOWS_BYTES);
        let sweep_interval = section.within(report, "sweep_interval", SECOND..=DAY);

        let table = table.and_then(|table| Some(table.in_schema(self.database.schema.as_ref()?)));
        if let Some(table) = &table {
            self.check_table(name, table, &section, report);
        }
        if notify == Some(true) && self.database.without_session {
            report.errors.push(ConfigError::Contradictory {
                field: section.field("notify"),
                conflict: "needs a session, which pooler = \"transaction\" takes away, unless \
                           postgres.direct_url is set"
                    .to_owned(),
            });
        }
        if let Some(Retention::For(time)) = retention
            && time > MAX_RETENTION
        {
            let rule = "must be at most 100y, or \"forever\"";
            report.refuse(section.field("retention"), rule, time.show());
        }
        if let (Some(batch), Some(window)) = (batch_rows, window_rows)
            && window < batch
        {
            let rule = format!("must be at least batch_rows ({batch})");
            report.refuse(section.field("window_rows"), rule, window.to_string());
        }
        check_source(source.as_ref(), envelope, &section, report);
        if tombstone_on_empty == Some(true) && envelope.is_some_and(|e| e != EnvelopeFormat::Raw) {
            report.errors.push(ConfigError::Contradictory {
                field: section.field("tombstone_on_empty"),
                conflict: "is for envelope = \"raw\" alone".to_owned(),
            });
        }
        self.window_rows += window_rows.map_or(0, |rows| u64::from(rows.get()));
        // Each is at most 1 GiB, but nothing bounds how many there are.
        self.window_bytes = self
            .window_bytes
            .saturating_add(window_bytes.map_or(0, |size: ByteSize| size.0));
        let path = section.path().to_owned();
        section.finish(report);
        let outbox = OutboxConfig {
            name: name.to_owned(),
            table: table?,
            mapping: mapping?,
            preset: preset?,
            templates: templates?,
            source: source?.0,
            envelope: envelope?,
            tombstone_on_empty: tombstone_on_empty?,
            bytes_content_type: bytes_content_type?.0,
            timestamp: timestamp?,
            on_poison: on_poison?,
            dead_letter_topic: dead_letter_topic?.map(|topic| topic.0),
            max_attempts: max_attempts?,
            breaker_errors: breaker_errors?,
            on_sent: on_sent?,
            retention: retention?,
            poll_interval: poll_interval?,
            notify: notify?,
            batch_rows: batch_rows?,
            window_rows: window_rows?,
            window_bytes: window_bytes?,
            sweep_interval: sweep_interval?,
        };
        if let Some(mapping) = &outbox.mapping {
            mapping.check(&outbox, &path, report);
        }
        Some(outbox)
    }

    fn check_table(
        &mut self,
        name: &str,
        table: &TableName,
        section: &Section,
        report: &mut Report,
    ) {
        if let Some(other) = self.tables.get(table) {
            let rule = format!("must differ from the table of {}", join("outbox", other));
            report.refuse(section.field("table"), rule, table.to_string());
        } else {
            self.tables.insert(table.clone(), name.to_owned());
        }
    }

    fn check_sums(&self, report: &mut Report) {
        if self.window_rows > MAX_WINDOWS_ROWS {
            let rule =
                format!("window_rows of all outboxes must add up to at most {MAX_WINDOWS_ROWS}");
            report.refuse("outbox".to_owned(), rule, self.window_rows.to_string());
        }
        if self.window_bytes > MAX_WINDOWS_BYTES.0 {
            let rule = format!(
                "window_bytes of all outboxes must add up to at most {}",
                MAX_WINDOWS_BYTES.show()
            );
            report.refuse(
                "outbox".to_owned(),
                rule,
                ByteSize(self.window_bytes).show(),
            );
        }
    }
}

/// CloudEvents asks for a URI reference (RFC 3986).
fn check_source(
    source: Option<&Label>,
    envelope: Option<EnvelopeFormat>,
    section: &Section,
    report: &mut Report,
) {
    let (Some(source), Some(envelope)) = (source, envelope) else {
        return;
    };
    let legal = |byte: u8| byte.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&byte);
    if matches!(
        envelope,
        EnvelopeFormat::CloudEvents | EnvelopeFormat::CloudEventsBinary
    ) && !source.0.bytes().all(legal)
    {
        let rule = "must be a URI reference for CloudEvents, such as \"/shop/orders\"";
        report.refuse(section.field("source"), rule, source.show());
    }
}

fn check_name(name: &str, section: &Section, report: &mut Report) {
    let legal = name.bytes().enumerate().all(|(index, byte)| {
        byte.is_ascii_lowercase() || (index > 0 && (byte.is_ascii_digit() || byte == b'_'))
    });
    if name.is_empty() || !legal || name.len() > MAX_NAME_BYTES {
        let rule =
            format!("the name must match [a-z][a-z0-9_]* and have at most {MAX_NAME_BYTES} bytes");
        report.refuse(section.path().to_owned(), rule, format!("{name:?}"));
    }
}
