//! One span for each event of a sampled trace that Kafka has, or that was parked.

use std::time::{Instant, SystemTime};

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;

use crate::event::{Event, EventRef};

/// Makes the spans of one outbox.
#[derive(Debug, Clone)]
pub struct Spans {
    tracer: SdkTracer,
    outbox: String,
}

/// What a span says of an event that the relay is done with.
#[derive(Debug, Clone, Copy)]
pub struct Relayed<'e> {
    /// The span that wrote the row, see [`trace_of`].
    pub trace: &'e SpanContext,
    pub event: EventRef,
    pub event_type: Option<&'e str>,
    pub topic: &'e str,
    pub outcome: Outcome,
    /// When the row was seen first.
    pub first_seen: Instant,
    /// When it was acknowledged, or parked.
    pub ended: Instant,
}

/// What became of an event.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    Acknowledged {
        partition: i32,
    },
    /// The class of the reason; the reason itself is noted with the row.
    Parked {
        class: &'static str,
    },
}

/// The `traceparent` and `tracestate` of a row, as W3C's Trace Context has them.
struct Carrier<'r>(&'r Event<'r>);

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.0.traceparent,
            "tracestate" => self.0.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// The span that wrote the row, if its trace is sampled.
pub fn trace_of(event: &Event<'_>) -> Option<SpanContext> {
    event.traceparent?;
    let found =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Carrier(event));
    let context = found.span().span_context().clone();
    (context.is_valid() && context.is_sampled()).then_some(context)
}

impl Spans {
    pub(super) fn new(tracer: SdkTracer, outbox: &str) -> Spans {
        Spans {
            tracer,
            outbox: outbox.to_owned(),
        }
    }

    /// Notes an event. The span lasts from the first sight of its row to the acknowledgement, or until the row
    /// was parked. It is the root of a trace of its own, with a link to the row's: that may have ended long ago.
    ///
    /// Attributes as in the semantic conventions for messaging, version 1.43; a Kafka key is none of them.
    pub fn relayed(&self, relayed: Relayed<'_>) {
        let Relayed {
            trace,
            event,
            event_type,
            topic,
            outcome,
            first_seen,
            ended: ended_at,
        } = relayed;
        let ended = SystemTime::now();
        let started = ended - ended_at.saturating_duration_since(first_seen);
        let mut attributes = vec![
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.name", "send"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.destination.name", topic.to_owned()),
            KeyValue::new("messaging.message.id", event.event_id.to_string()),
            KeyValue::new("outboxd.outbox", self.outbox.clone()),
            KeyValue::new("outboxd.row.id", event.id),
        ];
        if let Some(event_type) = event_type {
            attributes.push(KeyValue::new("outboxd.event.type", event_type.to_string()));
        }
        attributes.push(match outcome {
            Outcome::Acknowledged { partition } => {
                KeyValue::new("messaging.destination.partition.id", partition.to_string())
            }
            Outcome::Parked { class } => KeyValue::new("error.type", class),
        });
        let mut span = SpanBuilder::from_name(format!("send {topic}"))
            .with_kind(SpanKind::Producer)
            .with_start_time(started)
            .with_attributes(attributes)
            .with_links(vec![Link::with_context(trace.clone())])
            .start_with_context(&self.tracer, &Context::new());
        if let Outcome::Parked { .. } = outcome {
            span.set_status(Status::error("parked"));
        }
        span.end_with_timestamp(ended);
    }
}
