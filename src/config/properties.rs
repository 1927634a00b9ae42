//! librdkafka's own properties: passed through, except those that the promise depends on.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use figment::value::Value as Tree;

use super::{
    error::ConfigError,
    read::{Report, Section, join, kind, text_of},
    secret::SecretFile,
    security,
    url::REDACTED,
};
use crate::secret::Secret;

/// Properties for librdkafka, by their dotted names. `Debug` redacts the secrets among them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaProperties {
    values: BTreeMap<String, String>,
    /// `sasl.password`, if it is from a file.
    password: Option<Secret>,
}

impl KafkaProperties {
    /// The value of a property, if it was set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether the client logs in with tokens.
    pub(super) fn need_tokens(&self) -> bool {
        let mechanism = self.get("sasl.mechanism").or(self.get("sasl.mechanisms"));
        mechanism == Some(security::TOKENS)
    }

    /// The user and the password, if that is from a file, where it may change.
    pub fn password(&self) -> Option<(&str, &Secret)> {
        Some((self.get("sasl.username")?, self.password.as_ref()?))
    }

    /// The password was read from this file, if it was from one.
    pub(super) fn keep_password_in(&mut self, file: Option<SecretFile>) {
        self.password = file.map(|file| Secret::in_file(file.path));
    }

    /// All properties with their values, secrets included: for the Kafka client alone.
    pub fn expose(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// All properties with the values that may be shown.
    pub fn redacted(&self) -> impl Iterator<Item = (&str, &str)> {
        self.expose().map(|(name, value)| {
            (
                name,
                if is_secret(name, value) {
                    REDACTED
                } else {
                    value
                },
            )
        })
    }
}

impl fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.redacted()).finish()
    }
}

const DELIVERY: &str = "an event counts as sent only when all in-sync replicas have it";
const DUPLICATES: &str =
    "without idempotence a retried batch could be stored twice or out of order";
const TIMEOUT: &str = "after a message times out the later messages of its key would overtake it";
const RETRIES: &str =
    "a message that is given up early lets the later messages of its key overtake it";
const ADDRESS: &str = "the brokers are named by [kafka] bootstrap_servers alone";
const QUEUE: &str = "the producer's queue is sized from the outboxes' windows";
const REPORTS: &str = "every event needs its own delivery report before its row is marked";
const TRANSACTIONS: &str = "outboxd publishes without Kafka transactions";
const VERSIONS: &str = "headers and idempotence need the versions that the brokers really speak";
const LOG: &str = "outboxd takes the client's log over and filters it by [log] level";
const CODE: &str = "it can only be set from code";
const MOCK: &str = "a mock broker acknowledges events that no real broker has";
const UNSIGNED: &str = "a token that nobody has signed proves nothing";
const PLUGIN: &str = "a plugin can change any property that the promise depends on";

/// The properties that are refused, every alias included, each with its reason.
///
/// Taken from CONFIGURATION.md of librdkafka 2.12, and from `rdkafka_conf.c` for the hidden ones.
const REFUSED: &[(&str, &str)] = &[
    ("acks", DELIVERY),
    ("request.required.acks", DELIVERY),
    ("enable.idempotence", DUPLICATES),
    (
        "enable.gapless.guarantee",
        "without it a batch that fails for good lets the later events of its keys overtake it",
    ),
    ("message.timeout.ms", TIMEOUT),
    ("delivery.timeout.ms", TIMEOUT),
    ("message.send.max.retries", RETRIES),
    ("retries", RETRIES),
    (
        "partitioner",
        "a key must go to the partition to which Java clients send it (murmur2_random)",
    ),
    ("partitioner_cb", CODE),
    (
        "allow.auto.create.topics",
        "a misspelled topic must be reported, not created; see [kafka.create_topics]",
    ),
    ("bootstrap.servers", ADDRESS),
    ("metadata.broker.list", ADDRESS),
    ("transactional.id", TRANSACTIONS),
    ("transaction.timeout.ms", TRANSACTIONS),
    ("queue.buffering.max.messages", QUEUE),
    ("queue.buffering.max.kbytes", QUEUE),
    (
        "queuing.strategy",
        "events of a key must leave the queue in the order in which they entered it",
    ),
    ("msg_order_cmp", CODE),
    ("delivery.report.only.error", REPORTS),
    ("enabled_events", REPORTS),
    ("dr_cb", CODE),
    ("dr_msg_cb", CODE),
    ("error_cb", CODE),
    ("throttle_cb", CODE),
    ("stats_cb", CODE),
    ("log_cb", CODE),
    ("background_event_cb", CODE),
    ("socket_cb", CODE),
    ("connect_cb", CODE),
    ("closesocket_cb", CODE),
    ("open_cb", CODE),
    ("resolve_cb", CODE),
    ("consume_cb", CODE),
    ("rebalance_cb", CODE),
    ("offset_commit_cb", CODE),
    ("oauthbearer_token_refresh_cb", CODE),
    ("ssl.certificate.verify_cb", CODE),
    ("ssl_engine_callback_data", CODE),
    ("ssl_key", CODE),
    ("ssl_certificate", CODE),
    ("ssl_ca", CODE),
    ("opaque", CODE),
    ("default_topic_conf", CODE),
    ("interceptors", CODE),
    ("plugin.library.paths", PLUGIN),
    ("log_level", LOG),
    ("log.queue", LOG),
    ("api.version.request", VERSIONS),
    ("api.version.fallback.ms", VERSIONS),
    ("broker.version.fallback", VERSIONS),
    ("builtin.features", "it describes how the client was built"),
    ("enable.sasl.oauthbearer.unsecure.jwt", UNSIGNED),
    ("test.mock.num.brokers", MOCK),
    ("test.mock.broker.rtt", MOCK),
    ("ut_handle_ProduceResponse", CODE),
];

/// The beginnings of names that are refused together.
const REFUSED_FAMILIES: &[(&str, &str)] = &[
    ("sasl.kerberos.", "Kerberos is not built"),
    (
        "sasl.oauthbearer.",
        "tokens are fetched as [kafka.oauth] says",
    ),
];

/// Names of one property. With two of them set, it would be left to chance which value holds.
const ALIASES: &[(&str, &str)] = &[
    ("linger.ms", "queue.buffering.max.ms"),
    ("compression.type", "compression.codec"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("sasl.mechanism", "sasl.mechanisms"),
];

/// With more requests in flight an idempotent producer cannot keep their order, and librdkafka
/// refuses to start.
const MAX_IN_FLIGHT: u32 = 5;

/// Why a property cannot be set, if it cannot. A variable has dots where the name has underscores.
pub(super) fn refusal(name: &str) -> Option<&'static str> {
    let plain = |name: &str| name.trim().to_ascii_lowercase().replace('_', ".");
    let wanted = plain(name);
    let mut alone = REFUSED.iter().filter(|(name, _)| plain(name) == wanted);
    let mut families = REFUSED_FAMILIES
        .iter()
        .filter(|(start, _)| wanted.starts_with(start));
    let refused = alone.next().or_else(|| families.next());
    refused.map(|&(_, reason)| reason)
}

/// Whether a value must not be shown. Rather one too many: a name alone does not tell for sure.
fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let telling = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "key.pem",
        "oauthbearer",
        "jaas",
    ];
    telling.iter().any(|word| name.contains(word))
        || value.contains("PRIVATE KEY")
        || value
            .split_once("://")
            .is_some_and(|(_, rest)| rest.contains('@'))
}

/// The properties of one layer under their dotted names: `linger = { ms = 5 }` is `linger.ms`.
/// A name that is written in both ways is an error; the later one is left out.
pub(super) fn flatten(
    properties: BTreeMap<String, Tree>,
    errors: &mut Vec<ConfigError>,
) -> BTreeMap<String, Tree> {
    let mut flat = BTreeMap::new();
    flatten_into(&mut flat, "", properties, errors);
    flat
}

fn flatten_into(
    flat: &mut BTreeMap<String, Tree>,
    prefix: &str,
    properties: BTreeMap<String, Tree>,
    errors: &mut Vec<ConfigError>,
) {
    for (key, value) in properties {
        let name = if prefix.is_empty() {
            key
        } else {
            format!("{prefix}.{key}")
        };
        if let Tree::Dict(_, below) = value {
            flatten_into(flat, &name, below, errors);
            continue;
        }
        match flat.entry(name) {
            Entry::Vacant(free) => {
                free.insert(value);
            }
            Entry::Occupied(taken) => errors.push(ConfigError::Contradictory {
                field: join("kafka.properties", taken.key()),
                conflict: "is set twice in one file".to_owned(),
            }),
        }
    }
}

/// Reads `[kafka.properties]`; `None` if any of them is refused.
pub(super) fn read(section: Section, report: &mut Report) -> Option<KafkaProperties> {
    let before = report.errors.len();
    let path = section.path().to_owned();
    let mut properties = BTreeMap::new();
    for (name, value) in section.rest() {
        let field = join(&path, &name);
        let Some(text) = text_of(&value) else {
            let origin = report.origin(&value);
            let rule = "must be text, a number or true/false".to_owned();
            report.errors.push(ConfigError::Malformed {
                field,
                rule,
                value: kind(&value).to_owned(),
                origin,
            });
            continue;
        };
        check(report, field, &name, &text);
        properties.insert(name, text);
    }
    check_aliases(report, &path, &properties);
    if report.errors.len() == before {
        security::check(report, &path, &properties);
    }
    (report.errors.len() == before).then_some(KafkaProperties {
        values: properties,
        password: None,
    })
}

fn check(report: &mut Report, field: String, name: &str, text: &str) {
    let shown = if is_secret(name, text) {
        REDACTED.to_owned()
    } else {
        format!("{text:?}")
    };
    if let Some(reason) = refusal(name) {
        report.refuse(field, format!("cannot be set, {reason}"), shown);
    } else if text.contains('\0') || name.contains('\0') {
        report.refuse(field, "must not contain a NUL character", shown);
    } else if name.starts_with("max.in.flight")
        && !text
            .trim()
            .parse::<u32>()
            .is_ok_and(|count| (1..=MAX_IN_FLIGHT).contains(&count))
    {
        let rule = format!(
            "must be between 1 and {MAX_IN_FLIGHT}, or an idempotent producer loses the order"
        );
        report.refuse(field, rule, shown);
    }
}

fn check_aliases(report: &mut Report, path: &str, properties: &BTreeMap<String, String>) {
    for (alias, name) in ALIASES {
        if properties.contains_key(*alias) && properties.contains_key(*name) {
            report.errors.push(ConfigError::Contradictory {
                field: join(path, alias),
                conflict: format!("is another name of {name}, set only one of them"),
            });
        }
    }
}
