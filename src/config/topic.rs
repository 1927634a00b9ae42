//! Topic templates: where an outbox's events go when the row names no topic.

use std::fmt;

/// The longest topic name Kafka accepts, in bytes (`org.apache.kafka.common.internals.Topic`).
pub const MAX_TOPIC_BYTES: usize = 249;

/// A topic name with placeholders, such as `{aggregate_type}-events`.
///
/// The literal parts are legal in a Kafka topic. What the placeholders become is only known for a
/// row, so the resolved name must be checked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate {
    segments: Vec<TopicSegment>,
}

/// A piece of a [`TopicTemplate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicSegment {
    /// Text that is the same for every row; never empty.
    Literal(String),
    /// The value of a column.
    Field(TopicField),
}

/// A column that a topic can be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicField {
    /// `aggregate_type`
    AggregateType,
    /// `aggregate_id`
    AggregateId,
    /// `event_type`
    EventType,
    /// `event_version`
    EventVersion,
}

impl TopicTemplate {
    /// Reads a template; the error is the rule it breaks, to be followed by the value.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        let mut segments = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            push_literal(&mut segments, &rest[..open])?;
            let (name, after) = rest[open + 1..]
                .split_once('}')
                .ok_or_else(|| "must close every { with }".to_owned())?;
            segments.push(TopicSegment::Field(TopicField::named(name)?));
            rest = after;
        }
        push_literal(&mut segments, rest)?;
        Self { segments }.checked()
    }

    /// The pieces in order, at least one.
    pub fn segments(&self) -> &[TopicSegment] {
        &self.segments
    }

    fn checked(self) -> Result<Self, String> {
        let literal: usize = self.segments.iter().map(TopicSegment::literal_len).sum();
        if literal > MAX_TOPIC_BYTES {
            return Err(format!("must be at most {MAX_TOPIC_BYTES} bytes"));
        }
        match self.segments.as_slice() {
            [TopicSegment::Literal(name)] if name == "." || name == ".." => {
                Err("must not be . or ..".to_owned())
            }
            _ => Ok(self),
        }
    }
}

impl TopicSegment {
    fn literal_len(&self) -> usize {
        match self {
            Self::Literal(text) => text.len(),
            Self::Field(_) => 0,
        }
    }
}

impl TopicField {
    const ALL: [Self; 4] = [
        Self::AggregateType,
        Self::AggregateId,
        Self::EventType,
        Self::EventVersion,
    ];

    /// The column's name, as it stands between the braces.
    pub fn name(self) -> &'static str {
        match self {
            Self::AggregateType => "aggregate_type",
            Self::AggregateId => "aggregate_id",
            Self::EventType => "event_type",
            Self::EventVersion => "event_version",
        }
    }

    fn named(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|field| field.name() == name)
            .ok_or_else(|| {
                let known = Self::ALL
                    .map(|field| format!("{{{}}}", field.name()))
                    .join(", ");
                format!("must use only the placeholders {known}")
            })
    }
}

fn push_literal(segments: &mut Vec<TopicSegment>, text: &str) -> Result<(), String> {
    if text.contains('}') {
        return Err("must open every } with {".to_owned());
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !text.bytes().all(legal) {
        return Err(
            "must use only the characters a-z, A-Z, 0-9, '.', '_' and '-' outside of placeholders"
                .to_owned(),
        );
    }
    if !text.is_empty() {
        segments.push(TopicSegment::Literal(text.to_owned()));
    }
    Ok(())
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                TopicSegment::Literal(text) => f.write_str(text)?,
                TopicSegment::Field(field) => write!(f, "{{{}}}", field.name())?,
            }
        }
        Ok(())
    }
}
