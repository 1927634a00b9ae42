//! What single arguments must be, and how it is said when they are not.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{self, Name};
use crate::inbox::ConsumerName;

/// An argument that is wrong in the light of the configuration, or of another argument: what clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{argument}: {rule}")]
pub struct WrongArgument {
    /// As it is typed, `--outbox`.
    pub argument: &'static str,
    /// What it must be, and what it is.
    pub rule: String,
}

/// A whole number within these bounds.
pub fn number<N: TryFrom<i64>>(
    bounds: RangeInclusive<i64>,
) -> impl Fn(&str) -> Result<N, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        number
            .and_then(|number| N::try_from(number).ok())
            .ok_or_else(|| {
                let (least, most) = (bounds.start(), bounds.end());
                format!("must be a whole number from {least} to {most}")
            })
    }
}

/// The id of a row.
pub fn id(text: &str) -> Result<i64, String> {
    let rule = |_| "must be a row's id, a whole number".to_owned();
    text.parse().map_err(rule)
}

/// A duration with its unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text)
}

/// An instant.
pub fn instant(text: &str) -> Result<Timestamp, String> {
    let rule = |_| "must be RFC 3339, such as 2026-01-02T03:04:05Z".to_owned();
    text.parse().map_err(rule)
}

/// The name of a topic that is to be read from or written to.
pub fn topic(text: &str) -> Result<String, String> {
    match config::is_topic_name(text) {
        true => Ok(text.to_owned()),
        false => Err("must be 1 to 249 of a-z A-Z 0-9 . _ -".to_owned()),
    }
}

/// A correlation id. An empty one would be that of no event.
pub fn correlation_id(text: &str) -> Result<String, String> {
    match text.is_empty() {
        false => Ok(text.to_owned()),
        true => Err("must not be empty".to_owned()),
    }
}

/// Where somebody listens.
pub fn address(text: &str) -> Result<String, String> {
    match config::is_address(text) {
        true => Ok(text.to_owned()),
        false => Err("must be host:port, such as 127.0.0.1:9464".to_owned()),
    }
}

/// The name of a consumer.
pub fn consumer(text: &str) -> Result<ConsumerName, String> {
    let rule = |_| "must have 1 to 200 bytes, without control characters".to_owned();
    ConsumerName::new(text).map_err(rule)
}

/// A role of Postgres, as the catalogue spells it.
pub fn role(text: &str) -> Result<String, String> {
    text.parse().map(|name: Name| name.as_str().to_owned())
}
