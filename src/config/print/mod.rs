//! The effective configuration as TOML or setting by setting, its secrets redacted.

mod page;

use super::{
    AdminConfig, Config, CreateTopicsConfig, InboxConfig, KafkaConfig, Loaded, LogConfig, Mapping,
    NamedTemplates, Origin, OtlpConfig, OtlpEndpoint, OutboxConfig, PayloadEncoding,
    PostgresConfig, Preset, RelayConfig, SentColumn, SentValues, Templates,
    read::join,
    topic_name::TopicNames,
    values::{Listen, Value as _},
};
use crate::oauth::ClientCredentials;

use page::Page;
pub use page::Shown;

impl Config {
    /// The effective configuration as TOML: every option, in the order of the embedded defaults.
    /// Passwords and other secrets are `<redacted>`.
    pub fn redacted_toml(&self) -> String {
        self.page().toml(|_, _| None)
    }

    fn page(&self) -> Page {
        // Without `..`, here and below: a new option does not compile until it is printed.
        let Self {
            postgres,
            kafka,
            admin,
            otlp,
            relay,
            inbox,
            log,
            outboxes,
        } = self;
        let mut page = Page::default();
        postgres.print(&mut page);
        kafka.print(&mut page);
        let AdminConfig { listen, token } = admin;
        page.table(["admin"]);
        page.text("listen", Listen(*listen).show());
        let token = token.as_ref().map(super::values::Value::show);
        page.text("token", token.unwrap_or_default());
        otlp.print(&mut page);
        relay.print(&mut page);
        let InboxConfig { retention, topics } = inbox;
        page.table(["inbox"]);
        page.text("retention", retention.show());
        page.text("topics", TopicNames(topics.clone()).show());
        let LogConfig { level, format } = log;
        page.table(["log"]);
        page.text("level", level.as_str());
        page.text("format", format.as_str());
        outboxes.values().for_each(|outbox| outbox.print(&mut page));
        page
    }
}

impl PostgresConfig {
    fn print(&self, page: &mut Page) {
        let Self {
            url,
            direct_url,
            // They show as the origin of the values.
            url_file: _,
            direct_url_file: _,
            pooler,
            schema,
            connect_timeout,
            statement_timeout,
            lock_timeout,
        } = self;
        page.table(["postgres"]);
        page.text("url", url);
        page.text(
            "direct_url",
            direct_url
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        );
        page.text("pooler", pooler.as_str());
        page.text("schema", schema);
        page.text("connect_timeout", connect_timeout.show());
        page.text("statement_timeout", statement_timeout.show());
        page.text("lock_timeout", lock_timeout.show());
    }
}

impl KafkaConfig {
    fn print(&self, page: &mut Page) {
        let Self {
            bootstrap_servers,
            create_topics,
            properties,
            oauth,
        } = self;
        let CreateTopicsConfig {
            enabled,
            partitions,
            replication,
        } = create_topics;
        page.table(["kafka"]);
        page.text("bootstrap_servers", bootstrap_servers);
        page.table(["kafka", "create_topics"]);
        page.plain("enabled", enabled);
        page.plain("partitions", partitions);
        page.plain("replication", replication);
        page.table(["kafka", "properties"]);
        properties
            .redacted()
            .for_each(|(name, value)| page.text(name, value));
        page.table(["kafka", "oauth"]);
        let text = |option: fn(&ClientCredentials) -> Option<String>| {
            oauth.as_ref().and_then(option).unwrap_or_default()
        };
        page.text("token_url", text(|oauth| Some(oauth.token_url.show())));
        page.text("client_id", text(|oauth| Some(oauth.client_id.clone())));
        page.text(
            "client_secret",
            text(|oauth| Some(oauth.client_secret.show())),
        );
        page.text("scope", text(|oauth| oauth.scope.clone()));
        page.text("ca_location", text(|oauth| oauth.ca_location.clone()));
    }
}

impl OtlpConfig {
    fn print(&self, page: &mut Page) {
        let Self {
            endpoint,
            traces,
            metrics,
            interval,
        } = self;
        page.table(["otlp"]);
        let endpoint = endpoint.as_ref().map(OtlpEndpoint::as_str);
        page.text("endpoint", endpoint.unwrap_or_default());
        page.plain("traces", traces);
        page.plain("metrics", metrics);
        page.text("interval", interval.show());
    }
}

impl RelayConfig {
    fn print(&self, page: &mut Page) {
        let Self {
            shutdown_deadline,
            lease,
            stall_timeout,
        } = self;
        page.table(["relay"]);
        page.text("shutdown_deadline", shutdown_deadline.show());
        page.text("lease", lease.show());
        page.text("stall_timeout", stall_timeout.show());
    }
}

impl OutboxConfig {
    fn print(&self, page: &mut Page) {
        let Self {
            name,
            table,
            mapping,
            preset,
            templates,
            source,
            envelope,
            tombstone_on_empty,
            bytes_content_type,
            timestamp,
            on_poison,
            dead_letter_topic,
            max_attempts,
            breaker_errors,
            on_sent,
            retention,
            poll_interval,
            notify,
            batch_rows,
            window_rows,
            window_bytes,
            sweep_interval,
        } = self;
        page.table(["outbox", name]);
        page.text("table", table);
        let Templates {
            topic,
            topics,
            key,
            headers,
            fields,
            // What the others name.
            other_columns: _,
        } = templates;
        page.text("preset", preset.map(Preset::as_str).unwrap_or_default());
        page.text("topic", topic);
        let key = key.as_ref().map(ToString::to_string);
        page.text("key", key.unwrap_or_default());
        page.text("source", source);
        page.text("envelope", envelope.as_str());
        page.text("bytes_content_type", bytes_content_type);
        page.plain("tombstone_on_empty", tombstone_on_empty);
        page.text("timestamp", timestamp.as_str());
        page.text("on_poison", on_poison.as_str());
        page.text(
            "dead_letter_topic",
            dead_letter_topic.as_deref().unwrap_or_default(),
        );
        page.plain("max_attempts", max_attempts);
        page.plain("breaker_errors", breaker_errors);
        page.text("on_sent", on_sent.as_str());
        page.text("retention", retention.show());
        page.text("poll_interval", poll_interval.show());
        page.plain("notify", notify);
        page.plain("batch_rows", batch_rows);
        page.plain("window_rows", window_rows);
        page.text("window_bytes", window_bytes.show());
        page.text("sweep_interval", sweep_interval.show());
        let (encoding, triggers) = match mapping {
            Some(mapping) => (mapping.payload_encoding, mapping.trusted_triggers.join(",")),
            None => (PayloadEncoding::Auto, String::new()),
        };
        page.text("payload_encoding", encoding.as_str());
        page.text("trusted_triggers", triggers);
        page.table(["outbox", name, "headers"]);
        headers.print(page);
        page.table(["outbox", name, "fields"]);
        fields.print(page);
        page.table(["outbox", name, "topics"]);
        for (event_type, topic) in topics {
            page.text(event_type, topic);
        }
        if let Some(mapping) = mapping {
            mapping.print(name, page);
        }
    }
}

impl NamedTemplates {
    fn print(&self, page: &mut Page) {
        for (name, template) in self.iter() {
            page.text(name, template);
        }
    }
}

impl Mapping {
    fn print(&self, outbox: &str, page: &mut Page) {
        page.table(["outbox", outbox, "columns"]);
        for (field, column) in self.columns.iter() {
            page.text(field.name(), column.as_str());
        }
        if let Some(SentColumn { column, values, at }) = &self.sent {
            page.table(["outbox", outbox, "sent"]);
            page.text("column", column.as_str());
            if let Some(SentValues { unsent, sent }) = values {
                page.text("unsent", unsent);
                page.text("sent", sent);
            }
            if let Some(at) = at {
                page.text("at", at.as_str());
            }
        }
    }
}

/// An option with its value and where that comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The names on the way to it, the last of them its own.
    pub path: Vec<String>,
    /// Its value, redacted if it may be a secret.
    pub value: Shown,
    /// Where the value comes from.
    pub origin: Origin,
}

impl Setting {
    /// Its dotted path, as messages and flags have it.
    pub fn option(&self) -> String {
        let path = self.path.iter();
        path.fold(String::new(), |path, key| join(&path, key))
    }
}

impl Loaded {
    /// The effective configuration as TOML, with the origin of each value as comment.
    pub fn annotated_toml(&self) -> String {
        self.config
            .page()
            .toml(|table, key| Some(self.origins.of(table, key)))
    }

    /// Every option.
    pub fn settings(&self) -> Vec<Setting> {
        let tables = self.config.page().tables.into_iter();
        let settings = tables.flat_map(|table| {
            table.options.into_iter().map(move |(key, value)| {
                let origin = self.origins.of(&table.path, &key);
                let path = table.path.iter().cloned().chain([key]).collect();
                Setting {
                    path,
                    value,
                    origin,
                }
            })
        });
        settings.collect()
    }
}
