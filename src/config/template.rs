//! Text with placeholders for the row's columns.

use std::fmt;

/// A column that a placeholder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `event_id`
    EventId,
    /// `aggregate_type`
    AggregateType,
    /// `aggregate_id`
    AggregateId,
    /// `event_type`
    EventType,
    /// `event_version`
    EventVersion,
    /// `correlation_id`
    CorrelationId,
    /// `causation_id`
    CausationId,
    /// `traceparent`
    Traceparent,
    /// `tracestate`
    Tracestate,
    /// `created_at`, as RFC 3339 in UTC
    CreatedAt,
}

impl Field {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::EventId,
        Self::AggregateType,
        Self::AggregateId,
        Self::EventType,
        Self::EventVersion,
        Self::CorrelationId,
        Self::CausationId,
        Self::Traceparent,
        Self::Tracestate,
        Self::CreatedAt,
    ];

    /// The column's name, as it stands between the braces.
    pub fn name(self) -> &'static str {
        match self {
            Self::EventId => "event_id",
            Self::AggregateType => "aggregate_type",
            Self::AggregateId => "aggregate_id",
            Self::EventType => "event_type",
            Self::EventVersion => "event_version",
            Self::CorrelationId => "correlation_id",
            Self::CausationId => "causation_id",
            Self::Traceparent => "traceparent",
            Self::Tracestate => "tracestate",
            Self::CreatedAt => "created_at",
        }
    }
}

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Text that is the same for every row; never empty.
    Literal(String),
    /// The value of a column.
    Field(Field),
}

/// Text such as `{aggregate_type}-events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
}

impl Template {
    /// Reads a template that uses `known` fields; the error is the rule it breaks, to be followed by the
    /// value.
    pub(super) fn parse(text: &str, known: &[Field]) -> Result<Self, String> {
        let mut segments = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            push_literal(&mut segments, &rest[..open])?;
            let (name, after) = rest[open + 1..]
                .split_once('}')
                .ok_or_else(|| "must close every { with }".to_owned())?;
            segments.push(Segment::Field(field(name, known)?));
            rest = after;
        }
        push_literal(&mut segments, rest)?;
        Ok(Self { segments })
    }

    /// The pieces in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The pieces that are the same for every row.
    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(text) => Some(text.as_str()),
            Segment::Field(_) => None,
        })
    }
}

fn field(name: &str, known: &[Field]) -> Result<Field, String> {
    let found = known.iter().find(|field| field.name() == name);
    found.copied().ok_or_else(|| {
        let known: Vec<_> = known
            .iter()
            .map(|field| format!("{{{}}}", field.name()))
            .collect();
        format!("must use only the placeholders {}", known.join(", "))
    })
}

fn push_literal(segments: &mut Vec<Segment>, text: &str) -> Result<(), String> {
    if text.contains('}') {
        return Err("must open every } with {".to_owned());
    }
    if !text.is_empty() {
        segments.push(Segment::Literal(text.to_owned()));
    }
    Ok(())
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => f.write_str(text)?,
                Segment::Field(field) => write!(f, "{{{}}}", field.name())?,
            }
        }
        Ok(())
    }
}
