//! The fields of an event: what a column of an outbox can hold.

/// One of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// `id`: the monotonic column, in whose order events are published
    Id,
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
    /// `payload`
    Payload,
    /// `payload_bytes`
    PayloadBytes,
    /// `correlation_id`
    CorrelationId,
    /// `causation_id`
    CausationId,
    /// `traceparent`
    Traceparent,
    /// `tracestate`
    Tracestate,
    /// `headers`: a flat JSON object of strings
    Headers,
    /// `topic`: overrides the outbox's
    Topic,
    /// `partition_key`: overrides the aggregate id as Kafka key
    PartitionKey,
    /// `content_type`: of a payload that is not JSON
    ContentType,
    /// `created_at`, as RFC 3339 in UTC
    CreatedAt,
}

impl Field {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Id,
        Self::EventId,
        Self::AggregateType,
        Self::AggregateId,
        Self::EventType,
        Self::EventVersion,
        Self::Payload,
        Self::PayloadBytes,
        Self::CorrelationId,
        Self::CausationId,
        Self::Traceparent,
        Self::Tracestate,
        Self::Headers,
        Self::Topic,
        Self::PartitionKey,
        Self::ContentType,
        Self::CreatedAt,
    ];

    /// Its name: between the braces of a placeholder, in `[outbox.<name>.columns]`, and as column of
    /// outboxd's own table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::EventId => "event_id",
            Self::AggregateType => "aggregate_type",
            Self::AggregateId => "aggregate_id",
            Self::EventType => "event_type",
            Self::EventVersion => "event_version",
            Self::Payload => "payload",
            Self::PayloadBytes => "payload_bytes",
            Self::CorrelationId => "correlation_id",
            Self::CausationId => "causation_id",
            Self::Traceparent => "traceparent",
            Self::Tracestate => "tracestate",
            Self::Headers => "headers",
            Self::Topic => "topic",
            Self::PartitionKey => "partition_key",
            Self::ContentType => "content_type",
            Self::CreatedAt => "created_at",
        }
    }
}
