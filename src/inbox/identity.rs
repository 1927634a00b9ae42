//! Who claims, and what is claimed.

use std::fmt;
use std::time::SystemTime;

use uuid::Uuid;

/// As the check constraint of `processed_events` says.
const MAX_CONSUMER_BYTES: usize = 200;

/// As the check constraint of `processed_events` says; an index entry must fit a third of a page.
const MAX_ID_BYTES: usize = 1000;

/// A name or an id that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The name of a consumer, empty, too long, or with control characters.
    #[error(
        "the consumer's name must have 1 to {MAX_CONSUMER_BYTES} bytes, without control characters, is {0:?}"
    )]
    Consumer(String),
    /// An event's id is empty, too long or holds a NUL, which Postgres' text cannot.
    #[error("an event id must have 1 to {MAX_ID_BYTES} bytes, without NUL, has {bytes}")]
    EventId {
        /// How many bytes it has.
        bytes: usize,
    },
}

/// Who claims. Two names are two consumers, which do not disturb each other.
///
/// The name is the identity of all that was processed: whoever changes it processes everything again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerName(String);

impl ConsumerName {
    /// # Errors
    /// When it is empty, longer than 200 bytes, or has control characters.
    pub fn new(name: impl Into<String>) -> Result<ConsumerName, IdentityError> {
        let name = name.into();
        match name.is_empty()
            || name.len() > MAX_CONSUMER_BYTES
            || name.chars().any(char::is_control)
        {
            true => Err(IdentityError::Consumer(name)),
            false => Ok(ConsumerName(name)),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConsumerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of an event in the form in which it is kept: text, a UUID in lower case.
///
/// ```
/// use outboxd::inbox::EventId;
///
/// let id = EventId::text("0192F0C1-2345-7ABC-8DEF-0123456789AB")?;
/// assert_eq!(id.as_str(), "0192f0c1-2345-7abc-8def-0123456789ab");
/// assert_eq!(EventId::text("evt_01J8XKQ0")?.as_str(), "evt_01J8XKQ0");
/// # Ok::<(), outboxd::inbox::IdentityError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(String);

impl EventId {
    /// Any producer's id: UUIDs in lower case, everything else byte for byte, so a ULID in another case
    /// is another id.
    ///
    /// # Errors
    /// When it is empty, longer than 1000 bytes, or holds a NUL.
    pub fn text(id: impl Into<String>) -> Result<EventId, IdentityError> {
        let mut id = id.into();
        if is_uuid(&id) {
            id.make_ascii_lowercase();
        }
        match id.is_empty() || id.len() > MAX_ID_BYTES || id.contains('\0') {
            true => Err(IdentityError::EventId { bytes: id.len() }),
            false => Ok(EventId(id)),
        }
    }

    /// The id of an event whose producer only promises it to be its own: CloudEvents' identity is source
    /// and id together. A UUID is unique by itself and kept alone, anything else as `source#id`.
    ///
    /// ```
    /// use outboxd::inbox::EventId;
    ///
    /// assert_eq!(EventId::of_source("/shop", "17")?.as_str(), "/shop#17");
    /// # Ok::<(), outboxd::inbox::IdentityError>(())
    /// ```
    ///
    /// # Errors
    /// As [`EventId::text`].
    pub fn of_source(source: &str, id: &str) -> Result<EventId, IdentityError> {
        if is_uuid(id) || id.is_empty() {
            return EventId::text(id);
        }
        EventId::text(format!("{source}#{id}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Uuid> for EventId {
    fn from(id: Uuid) -> EventId {
        EventId(id.to_string())
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 8-4-4-4-12 hexadecimal digits, the form of `inbox_event_id` in SQL.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// What a claim needs to know of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub id: EventId,
    /// When the event came to be, by its producer's clock. Without it only a UUIDv7 tells, and an event
    /// with any other id that was forgotten is taken as new.
    pub created_at: Option<SystemTime>,
}

impl Identity {
    pub fn new(id: impl Into<EventId>) -> Identity {
        Identity {
            id: id.into(),
            created_at: None,
        }
    }

    /// With the time at which the event came to be.
    pub fn created_at(mut self, time: SystemTime) -> Identity {
        self.created_at = Some(time);
        self
    }

    /// The same in microseconds since 1970, within what Postgres can hold: a nonsensical time is far away
    /// and not an error.
    pub(super) fn created_micros(&self) -> Option<i64> {
        /// The start of the year 9999.
        const FAR: i64 = 253_370_764_800_000_000;
        let since_epoch = |time: SystemTime| match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
        };
        self.created_at
            .map(|time| since_epoch(time).clamp(-FAR / 4, FAR))
    }
}

impl From<EventId> for Identity {
    fn from(id: EventId) -> Identity {
        Identity::new(id)
    }
}

impl From<Uuid> for Identity {
    fn from(id: Uuid) -> Identity {
        Identity::new(id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_uuids_change_their_case() {
        for (given, kept) in [
            (
                "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            ),
            ("01J8XKQ0ABCDEFGHJKMNPQRSTV", "01J8XKQ0ABCDEFGHJKMNPQRSTV"),
            (
                "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}",
                "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}",
            ),
            (
                "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A1G",
                "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A1G",
            ),
            ("Ä", "Ä"),
        ] {
            assert_eq!(EventId::text(given).expect("an id").as_str(), kept);
        }
        let uuid = Uuid::from_u128(0xA0EE_BC99);
        assert_eq!(
            EventId::from(uuid),
            EventId::text(uuid.to_string().to_uppercase()).expect("an id")
        );
    }

    #[test]
    fn ids_of_a_source_are_told_apart_unless_they_are_uuids() {
        let of = |source, id| EventId::of_source(source, id).expect("an id");
        assert_ne!(of("/a", "1"), of("/b", "1"));
        let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        assert_eq!(of("/a", uuid), of("/b", &uuid.to_uppercase()));
        assert!(EventId::of_source("/a", "").is_err());
    }

    #[test]
    fn what_cannot_be_kept_is_refused_in_words() {
        let error = EventId::text("x".repeat(1001)).expect_err("too long");
        assert!(error.to_string().ends_with("has 1001"), "{error}");
        assert!(EventId::text("a\0b").is_err());
        assert!(EventId::text("x".repeat(1000)).is_ok());
        assert!(ConsumerName::new("").is_err());
        assert!(ConsumerName::new("a\nb").is_err());
        assert!(ConsumerName::new("é".repeat(101)).is_err());
        assert!(ConsumerName::new("é".repeat(100)).is_ok());
    }

    #[test]
    fn a_nonsensical_time_is_far_away_and_no_error() {
        let at = |time| {
            Identity::new(Uuid::nil())
                .created_at(time)
                .created_micros()
                .expect("a time")
        };
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(at(epoch + Duration::from_micros(1_500_001)), 1_500_001);
        assert_eq!(at(epoch - Duration::from_secs(1)), -1_000_000);
        assert_eq!(
            at(epoch + Duration::from_secs(1 << 50)),
            253_370_764_800_000_000
        );
        assert!(at(epoch - Duration::from_secs(1 << 50)) < -1_000_000);
    }
}
