//! From the merged layers to a [`Config`]: every option read once, every rule checked.

use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

use bytesize::ByteSize;
use figment::{Profile, Provider as _, value::Value as Tree};

use super::{
    AdminConfig, Config, CreateTopicsConfig, EnvelopeFormat, HeaderTemplates, InboxConfig,
    KafkaConfig, LogConfig, MAX_WINDOWS_BYTES, MAX_WINDOWS_ROWS, OutboxConfig, Pooler,
    PostgresConfig, PostgresUrl, RelayConfig, Retention, Sources, TableName,
    error::{ConfigError, ConfigErrors},
    names::{Identifier, WrittenTable},
    properties,
    read::{Report, Section, join},
    sources::{self, Merged},
    values::{Label, Listen, TopicNames, Value as _},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A hundred years, as humantime counts them; a longer retention is what "forever" is for.
const MAX_RETENTION: Duration = Duration::from_secs(100 * 31_557_600);

/// As long as an identifier of Postgres: the name stands in leases, metrics and logs.
const MAX_NAME_BYTES: usize = 63;

impl Config {
    /// Reads the defaults, the file, the environment and the overrides, the later ones stronger.
    ///
    /// # Errors
    /// Every broken rule at once, except that a file which cannot be read, or is not TOML, is
    /// reported alone.
    pub fn load(
        sources: Sources<impl Iterator<Item = (String, String)>>,
    ) -> Result<Self, ConfigErrors> {
        let Merged {
            figment,
            outbox_defaults,
            errors,
        } = sources::merge(sources)?;
        let mut report = Report::new(&figment, errors);
        let tree = figment
            .data()
            .ok()
            .and_then(|mut profiles| profiles.remove(&Profile::Default));
        let config = read_config(
            Section::new("", tree.unwrap_or_default()),
            &outbox_defaults,
            &mut report,
        );
        ConfigErrors::check(report.errors)?;
        config.ok_or_else(|| {
            // Not reached: whatever leaves a part out is in the report.
            ConfigError::Unreadable {
                name: "configuration".to_owned(),
                problem: "an option could not be read".to_owned(),
            }
            .into()
        })
    }
}

fn read_config(
    mut root: Section,
    defaults: &BTreeMap<String, Tree>,
    report: &mut Report,
) -> Option<Config> {
    let mut outbox = root.table("outbox").rest();
    if outbox.is_empty() {
        outbox.insert(
            "default".to_owned(),
            Tree::from(BTreeMap::<String, Tree>::new()),
        );
    }
    let (postgres, database) = read_postgres(root.table("postgres"), report);
    let kafka = read_kafka(root.table("kafka"), report);
    let admin = read_admin(root.table("admin"), report);
    let relay = read_relay(root.table("relay"), report);
    let inbox = read_inbox(root.table("inbox"), report);
    let log = read_log(root.table("log"), report);
    root.finish(report);
    let outboxes = Outboxes::new(database).read(outbox, defaults, report);
    Some(Config {
        postgres: postgres?,
        kafka: kafka?,
        admin: admin?,
        relay: relay?,
        inbox: inbox?,
        log: log?,
        outboxes: outboxes?,
    })
}

/// What the outboxes need to know of `[postgres]`, even where another of its options is wrong.
struct Database {
    schema: Option<Identifier>,
    /// A pooler in transaction mode, and no way around it.
    without_session: bool,
}

fn read_postgres(mut section: Section, report: &mut Report) -> (Option<PostgresConfig>, Database) {
    let url = section.required::<PostgresUrl>(report, "url");
    let direct_url = section.optional::<PostgresUrl>(report, "direct_url");
    let pooler = section.read::<Pooler>(report, "pooler");
    let schema = section.read::<Identifier>(report, "schema");
    let connect_timeout = section.within(report, "connect_timeout", MS..=HOUR);
    let statement_timeout = section.within(report, "statement_timeout", MS..=HOUR);
    let lock_timeout = section.within(report, "lock_timeout", MS..=HOUR);
    section.finish(report);
    let database = Database {
        schema: schema.clone(),
        without_session: pooler == Some(Pooler::Transaction) && direct_url == Some(None),
    };
    let build = || {
        Some(PostgresConfig {
            url: url?,
            direct_url: direct_url?,
            pooler: pooler?,
            schema: schema?,
            connect_timeout: connect_timeout?,
            statement_timeout: statement_timeout?,
            lock_timeout: lock_timeout?,
        })
    };
    (build(), database)
}

fn read_kafka(mut section: Section, report: &mut Report) -> Option<KafkaConfig> {
    let bootstrap_servers = section.required(report, "bootstrap_servers");
    let create_topics = read_create_topics(section.table("create_topics"), report);
    let properties = properties::read(section.table("properties"), report);
    section.finish(report);
    Some(KafkaConfig {
        bootstrap_servers: bootstrap_servers?,
        create_topics: create_topics?,
        properties: properties?,
    })
}

fn read_create_topics(mut section: Section, report: &mut Report) -> Option<CreateTopicsConfig> {
    let enabled = section.read(report, "enabled");
    let partitions = section.count(report, "partitions", 10_000);
    // Kafka's replication factor is a signed 16-bit number.
    let replication = section.count(report, "replication", i16::MAX.unsigned_abs().into());
    section.finish(report);
    Some(CreateTopicsConfig {
        enabled: enabled?,
        partitions: partitions?,
        replication: NonZeroU16::try_from(replication?).ok()?,
    })
}

fn read_admin(mut section: Section, report: &mut Report) -> Option<AdminConfig> {
    let listen = section.read::<Listen>(report, "listen");
    section.finish(report);
    Some(AdminConfig { listen: listen?.0 })
}

fn read_relay(mut section: Section, report: &mut Report) -> Option<RelayConfig> {
    let shutdown_deadline = section.within(report, "shutdown_deadline", Duration::ZERO..=HOUR);
    let lease = section.within(report, "lease", SECOND..=5 * MINUTE);
    let stall_timeout = section.within(report, "stall_timeout", SECOND..=HOUR);
    section.finish(report);
    Some(RelayConfig {
        shutdown_deadline: shutdown_deadline?,
        lease: lease?,
        stall_timeout: stall_timeout?,
    })
}

fn read_inbox(mut section: Section, report: &mut Report) -> Option<InboxConfig> {
    let retention = section.within(report, "retention", MINUTE..=MAX_RETENTION);
    let topics = section.optional::<TopicNames>(report, "topics");
    section.finish(report);
    Some(InboxConfig {
        retention: retention?,
        topics: topics?.map(|topics| topics.0).unwrap_or_default(),
    })
}

fn read_log(mut section: Section, report: &mut Report) -> Option<LogConfig> {
    let level = section.read(report, "level");
    let format = section.read(report, "format");
    section.finish(report);
    Some(LogConfig {
        level: level?,
        format: format?,
    })
}

/// What is checked across all outboxes.
struct Outboxes {
    database: Database,
    /// Each table with the first outbox that reads it.
    tables: BTreeMap<TableName, String>,
    window_rows: u64,
    window_bytes: u64,
}

impl Outboxes {
    fn new(database: Database) -> Self {
        Self {
            database,
            tables: BTreeMap::new(),
            window_rows: 0,
            window_bytes: 0,
        }
    }

    fn read(
        mut self,
        outboxes: BTreeMap<String, Tree>,
        defaults: &BTreeMap<String, Tree>,
        report: &mut Report,
    ) -> Option<BTreeMap<String, OutboxConfig>> {
        let mut read = BTreeMap::new();
        for (name, options) in outboxes {
            let mut entries = defaults.clone();
            if let Tree::Dict(_, options) = options {
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
        let table = section.read::<WrittenTable>(report, "table");
        let topic = section.read(report, "topic");
        let source = section.read::<Label>(report, "source");
        let envelope = section.read(report, "envelope");
        let headers = match (section.whole("headers"), envelope) {
            (Some(table), _) => HeaderTemplates::read(&section.field("headers"), table, report),
            (None, Some(EnvelopeFormat::Raw)) => HeaderTemplates::bare(),
            (None, _) => HeaderTemplates::default(),
        };
        let bytes_content_type = section.read::<Label>(report, "bytes_content_type");
        let timestamp = section.read(report, "timestamp");
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
        self.window_rows += window_rows.map_or(0, |rows| u64::from(rows.get()));
        // Each is at most 1 GiB, but nothing bounds how many there are.
        self.window_bytes = self
            .window_bytes
            .saturating_add(window_bytes.map_or(0, |size: ByteSize| size.0));
        section.finish(report);
        Some(OutboxConfig {
            name: name.to_owned(),
            table: table?,
            topic: topic?,
            source: source?.0,
            envelope: envelope?,
            headers,
            bytes_content_type: bytes_content_type?.0,
            timestamp: timestamp?,
            on_sent: on_sent?,
            retention: retention?,
            poll_interval: poll_interval?,
            notify: notify?,
            batch_rows: batch_rows?,
            window_rows: window_rows?,
            window_bytes: window_bytes?,
            sweep_interval: sweep_interval?,
        })
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
