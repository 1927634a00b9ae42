//! The values of options: how each is read from text, what it must be, and how it is shown.
//!
//! Every layer ends as text (`5`, `true` and `"5s"` in TOML, anything in a variable), so that
//! there is one way to read an option, wherever it was set.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use bytesize::ByteSize;

use super::times::MAX_RETENTION;
use super::url::{PostgresUrl, REDACTED, is_port};
use crate::oauth::http_url;

/// A value that an option can have.
pub(super) trait Value: Sized {
    /// Reads the value; the error is the rule that the text breaks.
    fn read(text: &str) -> Result<Self, String>;

    /// The value as text that reads back as itself, secrets aside.
    fn show(&self) -> String;

    /// How a text that could not be read appears in a message.
    fn show_malformed(text: &str) -> String {
        format!("{text:?}")
    }
}

/// The Kafka brokers to start from: `host:port`, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapServers(Vec<String>);

impl BootstrapServers {
    /// The servers, each `host:port`.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// The list as librdkafka takes it, separated by commas.
impl fmt::Display for BootstrapServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl Value for BootstrapServers {
    fn read(text: &str) -> Result<Self, String> {
        let servers: Vec<String> = text
            .split(',')
            .map(|server| server.trim().to_owned())
            .collect();
        if !servers.iter().all(|server| is_address(server)) {
            return Err("must be host:port, several separated by commas".to_owned());
        }
        Ok(Self(servers))
    }

    fn show(&self) -> String {
        self.to_string()
    }

    // Somebody may have pasted a URL with a password.
    fn show_malformed(text: &str) -> String {
        if text.contains('@') {
            REDACTED.to_owned()
        } else {
            format!("{text:?}")
        }
    }
}

/// Whether this is `host:port`.
pub fn is_address(text: &str) -> bool {
    let is_host = |host: &str| match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    text.rsplit_once(':')
        .is_some_and(|(host, port)| is_host(host) && is_port(port))
}

/// A duration that is no option but an argument: written in the same way, at most a hundred years.
///
/// # Errors
/// The rule that the text breaks.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = Duration::read(text)?;
    match duration <= MAX_RETENTION {
        true => Ok(duration),
        false => Err("must be at most 100y".to_owned()),
    }
}

/// What becomes of sent rows, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Sent rows stay for ever.
    Forever,
    /// Sent rows are removed this long after they were sent; zero: with the next sweep.
    For(Duration),
}

impl Value for Retention {
    fn read(text: &str) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let rule = "must be a duration with its unit, such as \"7d\", or \"forever\"";
        Duration::read(text)
            .map(Self::For)
            .map_err(|_| rule.to_owned())
    }

    fn show(&self) -> String {
        match self {
            Self::Forever => "forever".to_owned(),
            Self::For(time) => time.show(),
        }
    }
}

/// The directives of a `tracing_subscriber::EnvFilter`, such as `info,outboxd=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The directives, known to parse.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for LogFilter {
    fn read(text: &str) -> Result<Self, String> {
        let rule = "must be off, error, warn, info, debug, trace, or directives such as \"info,outboxd=debug\"";
        // A word alone names a target for the filter, so that a misspelled level would pass.
        let word_is_level = |word: &str| {
            ["off", "error", "warn", "info", "debug", "trace"]
                .contains(&word.to_ascii_lowercase().as_str())
        };
        let words_are_levels = text.contains('[')
            || text
                .split(',')
                .all(|part| part.contains('=') || word_is_level(part.trim()));
        // The library's parser takes a value apart between the bytes of a character, and panics.
        if !text.is_ascii() {
            return Err(rule.to_owned());
        }
        match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) if words_are_levels => Ok(Self(text.to_owned())),
            _ => Err(rule.to_owned()),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Text that must not be empty nor hold control characters, at most 255 bytes.
#[derive(Debug, Clone)]
pub(super) struct Label(pub(super) String);

impl Value for Label {
    fn read(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
            return Err("must have 1 to 255 bytes, without control characters".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The address of the admin server, or none.
#[derive(Debug, Clone)]
pub(super) struct Listen(pub(super) Option<SocketAddr>);

impl Value for Listen {
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() || text == "off" {
            return Ok(Self(None));
        }
        let rule = "must be address:port, such as \"127.0.0.1:9464\", or \"off\"";
        text.parse()
            .map(|address| Self(Some(address)))
            .map_err(|_| rule.to_owned())
    }

    fn show(&self) -> String {
        self.0
            .map_or_else(|| "off".to_owned(), |address| address.to_string())
    }
}

/// A collector of traces and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpEndpoint(String);

impl OtlpEndpoint {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_encrypted(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl Value for OtlpEndpoint {
    fn read(text: &str) -> Result<Self, String> {
        let is_bare = |uri: ureq::http::Uri| uri.path() == "/" && uri.query().is_none();
        match http_url(text).is_some_and(is_bare) {
            true => Ok(Self(text.to_owned())),
            false => Err(
                "must be http://host:port or https://host:port, without a user and a path"
                    .to_owned(),
            ),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }

    fn show_malformed(text: &str) -> String {
        show_without_user(text)
    }
}

/// A text that should be a URL of http. What is before an @ may be a password.
pub(super) fn show_without_user(text: &str) -> String {
    match text.contains('@') {
        true => REDACTED.to_owned(),
        false => format!("{text:?}"),
    }
}

impl Value for PostgresUrl {
    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    fn show(&self) -> String {
        self.to_string()
    }

    // What is no URL cannot be searched for its password.
    fn show_malformed(_: &str) -> String {
        REDACTED.to_owned()
    }
}

impl Value for bool {
    fn read(text: &str) -> Result<Self, String> {
        bool::from_str(text).map_err(|_| "must be true or false".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A count; wider than any bound, so that a value out of range is reported as that.
impl Value for i128 {
    fn read(text: &str) -> Result<Self, String> {
        i128::from_str(text).map_err(|_| "must be a whole number".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Duration {
    fn read(text: &str) -> Result<Self, String> {
        let rule = "must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\"";
        // humantime 2.4 panics when a sum of seconds overflows; these bounds keep it far away.
        let digits = text
            .split(|c: char| !c.is_ascii_digit())
            .map(str::len)
            .max()
            .unwrap_or(0);
        if text.len() > 64 || digits > 9 {
            return Err(rule.to_owned());
        }
        humantime::parse_duration(text).map_err(|_| rule.to_owned())
    }

    fn show(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

impl Value for ByteSize {
    fn read(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| "must be a size, such as \"16MiB\"".to_owned())
    }

    /// In the largest binary unit that divides it, so that nothing is rounded away.
    fn show(&self) -> String {
        let units = [
            (bytesize::GIB, "GiB"),
            (bytesize::MIB, "MiB"),
            (bytesize::KIB, "KiB"),
        ];
        match units
            .into_iter()
            .find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit))
        {
            Some((unit, name)) => format!("{}{name}", self.0 / unit),
            None => format!("{}B", self.0),
        }
    }
}
