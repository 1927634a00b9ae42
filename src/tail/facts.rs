//! What a message says of its event, in whichever form it was published. Pure.

use crate::config::{Field, OutboxConfig, Segment};
use crate::envelope::header;
use crate::inbox::consumer::Record;
use crate::inbox::consumer::decode::{CloudEvents, Decoded, Decoder, Native, Payload};

/// The event in a message, as far as the message says.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    /// A copy that somebody asked for.
    pub is_replay: bool,
    /// Nothing: the value as a whole is the payload.
    pub payload: Option<Payload>,
}

/// The headers in which outboxes put fields of their rows: what `raw` says of an event.
#[derive(Debug, Clone, Default)]
pub struct HeaderNames(Vec<(Field, String)>);

impl HeaderNames {
    pub fn of<'o>(outboxes: impl Iterator<Item = &'o OutboxConfig>) -> HeaderNames {
        let headers = outboxes.flat_map(|outbox| outbox.templates.headers.iter());
        let fields = headers.filter_map(|(name, template)| match template.segments() {
            [Segment::Field(field)] => Some((*field, name.to_owned())),
            _ => None,
        });
        HeaderNames(fields.collect())
    }

    fn read(&self, field: Field, record: &Record) -> Option<String> {
        let mut names = self.0.iter().filter(|(of, _)| *of == field);
        let text = names.find_map(|(_, name)| record.header_text(name));
        text.map(str::to_owned)
    }
}

impl Facts {
    pub fn of(record: &Record, headers: &HeaderNames) -> Facts {
        let mut decoders = [&Native as &dyn Decoder, &CloudEvents].into_iter();
        let decoded = decoders.find_map(|decoder| decoder.decode(record));
        let mut facts = match decoded {
            Some(Ok(decoded)) => Facts::decoded(decoded),
            // What is not a valid envelope is shown all the same.
            Some(Err(_)) | None => Facts::default(),
        };
        facts.is_replay = record.header(header::REPLAY).is_some();
        for (fact, field) in [
            (&mut facts.event_id, Field::EventId),
            (&mut facts.event_type, Field::EventType),
            (&mut facts.correlation_id, Field::CorrelationId),
            (&mut facts.causation_id, Field::CausationId),
        ] {
            if fact.is_none() {
                *fact = headers.read(field, record);
            }
        }
        facts
    }

    fn decoded(event: Decoded) -> Facts {
        Facts {
            event_id: Some(event.id.as_str().to_owned()),
            event_type: Some(event.event_type),
            correlation_id: event.correlation_id,
            causation_id: event.causation_id,
            is_replay: false,
            payload: Some(event.payload),
        }
    }
}

/// Which messages are shown; nothing stands for all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub event_types: Vec<String>,
    pub key: Option<String>,
    /// Of an event without one it is its own id, as for what it causes.
    pub correlation_id: Option<String>,
}

impl Filter {
    pub fn takes(&self, record: &Record, facts: &Facts) -> bool {
        let is_type = self.event_types.is_empty()
            || facts
                .event_type
                .as_ref()
                .is_some_and(|event_type| self.event_types.contains(event_type));
        let is_key = self
            .key
            .as_ref()
            .is_none_or(|key| record.key.as_deref() == Some(key.as_bytes()));
        let correlation_id = facts.correlation_id.as_ref().or(facts.event_id.as_ref());
        let is_correlated = self
            .correlation_id
            .as_ref()
            .is_none_or(|wanted| correlation_id == Some(wanted));
        is_type && is_key && is_correlated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"envelopeVersion":1,"eventId":"01920000-0000-7000-8000-000000000001","eventType":"order.placed","eventVersion":"1","timestamp":"2026-01-02T03:04:05Z","source":"s","correlationId":"c-1","aggregateType":"order","aggregateId":"k","data":{"a":1}}"#;

    fn record(headers: &[(&str, &str)], value: &str) -> Record {
        let headers = headers.iter();
        Record {
            topic: "t".into(),
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: Some(b"k".as_slice().into()),
            value: Some(value.as_bytes().into()),
            headers: headers
                .map(|(name, value)| ((*name).into(), value.as_bytes().into()))
                .collect(),
        }
    }

    #[test]
    fn an_envelope_says_it_all_and_raw_headers_say_what_they_are_configured_to() {
        let names = HeaderNames(vec![
            (Field::EventId, "id".to_owned()),
            (Field::EventType, "type".to_owned()),
        ]);
        let native = Facts::of(&record(&[("outboxd-replay", "1")], BODY), &names);
        assert_eq!(native.event_type.as_deref(), Some("order.placed"));
        assert_eq!(native.correlation_id.as_deref(), Some("c-1"));
        assert!(native.is_replay);
        let raw = Facts::of(&record(&[("id", "7"), ("type", "x")], "{}"), &names);
        assert_eq!(
            (raw.event_id.as_deref(), raw.event_type.as_deref()),
            (Some("7"), Some("x"))
        );
        assert!(raw.payload.is_none() && !raw.is_replay);
        let nothing = Facts::of(&record(&[], "{"), &HeaderNames::default());
        assert_eq!(nothing.event_id, None);
    }

    #[test]
    fn a_filter_takes_what_all_of_it_says() {
        let message = record(&[], BODY);
        let facts = Facts::of(&message, &HeaderNames::default());
        let takes = |event_types: &[&str], key: Option<&str>, correlation_id: Option<&str>| {
            let filter = Filter {
                event_types: event_types.iter().map(|t| (*t).to_owned()).collect(),
                key: key.map(str::to_owned),
                correlation_id: correlation_id.map(str::to_owned),
            };
            filter.takes(&message, &facts)
        };
        assert!(takes(&[], None, None));
        assert!(takes(&["x", "order.placed"], Some("k"), Some("c-1")));
        assert!(!takes(&["x"], Some("k"), Some("c-1")));
        assert!(!takes(&[], Some("K"), None));
        assert!(!takes(&[], None, Some("c-2")));
        assert!(!takes(&[], None, facts.event_id.as_deref()), "it has one");
    }
}
