//! From the merged layers to a [`Config`]: every option read once, every rule checked.

use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

use figment::{Profile, Provider as _, value::Value as Tree};

use super::{
    AdminConfig, Config, CreateTopicsConfig, InboxConfig, KafkaConfig, KafkaProperties, LogConfig,
    OtlpConfig, Pooler, PostgresConfig, PostgresUrl, RelayConfig, Sources,
    error::{ConfigError, ConfigErrors},
    names::Identifier,
    oauth,
    origin::Origins,
    outboxes::{Database, Outboxes},
    properties,
    read::{Report, Section},
    sources::{self, Merged},
    times::{HOUR, MAX_RETENTION, MINUTE, MS, SECOND},
    topic_name::TopicNames,
    values::Listen,
};
use crate::secret::Secret;

/// A configuration that knows where its values come from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration itself.
    pub config: Config,
    pub(super) origins: Origins,
}

impl Config {
    /// Reads the defaults, the file, the environment and the overrides, the later ones stronger.
    ///
    /// # Errors
    /// Every broken rule at once, except that a file which cannot be read, or is not TOML, is
    /// reported alone.
    pub fn load(
        sources: Sources<impl Iterator<Item = (String, String)>>,
    ) -> Result<Self, ConfigErrors> {
        Ok(Loaded::load(sources)?.config)
    }
}

impl Loaded {
    /// As [`Config::load`].
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(
        sources: Sources<impl Iterator<Item = (String, String)>>,
    ) -> Result<Self, ConfigErrors> {
        let Merged {
            figment,
            outbox_defaults,
            mut origins,
            errors,
            unread,
        } = sources::merge(sources)?;
        let mut report = Report::new(&figment, errors, unread);
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
        let mut config = config.ok_or_else(|| {
            // Not reached: whatever leaves a part out is in the report.
            ConfigError::Unreadable {
                name: "configuration".to_owned(),
                problem: "an option could not be read".to_owned(),
            }
        })?;
        config.postgres.url_file = origins.file_of("postgres", "url");
        config.postgres.direct_url_file = origins.file_of("postgres", "direct_url");
        let file = origins.file_of("kafka.properties", "sasl.password");
        config.kafka.properties.keep_password_in(file);
        if let Some(oauth) = &mut config.kafka.oauth
            && let Some(file) = origins.file_of("kafka.oauth", "client_secret")
        {
            oauth.client_secret = Secret::in_file(file.path);
        }
        for (name, outbox) in &config.outboxes {
            if let Some(preset) = outbox.preset {
                origins.note_preset(name, preset);
            }
        }
        Ok(Self { config, origins })
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
    let otlp = read_otlp(root.table("otlp"), report);
    let relay = read_relay(root.table("relay"), report);
    let inbox = read_inbox(root.table("inbox"), report);
    let log = read_log(root.table("log"), report);
    root.finish(report);
    let outboxes = Outboxes::new(database).read(outbox, defaults, report);
    Some(Config {
        postgres: postgres?,
        kafka: kafka?,
        admin: admin?,
        otlp: otlp?,
        relay: relay?,
        inbox: inbox?,
        log: log?,
        outboxes: outboxes?,
    })
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
            // Where values are from is known when all layers are read.
            url_file: None,
            direct_url_file: None,
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
    let needs_tokens = properties.as_ref().map(KafkaProperties::need_tokens);
    let oauth = oauth::read(section.table("oauth"), needs_tokens, report);
    section.finish(report);
    Some(KafkaConfig {
        bootstrap_servers: bootstrap_servers?,
        create_topics: create_topics?,
        properties: properties?,
        oauth: oauth?,
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
    let token = section.optional(report, "token");
    section.finish(report);
    Some(AdminConfig {
        listen: listen?.0,
        token: token?,
    })
}

fn read_otlp(mut section: Section, report: &mut Report) -> Option<OtlpConfig> {
    let endpoint = section.optional(report, "endpoint");
    let traces = section.read(report, "traces");
    let metrics = section.read(report, "metrics");
    let interval = section.within(report, "interval", SECOND..=HOUR);
    section.finish(report);
    Some(OtlpConfig {
        endpoint: endpoint?,
        traces: traces?,
        metrics: metrics?,
        interval: interval?,
    })
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
