//! Presets: options below the outbox's own.

use super::{messages, valid};
use crate::config::{Config, Field, OnSent, OutboxConfig, Preset};

fn outbox(toml: &str) -> OutboxConfig {
    valid(toml, &[]).outboxes["a"].clone()
}

#[test]
fn every_preset_is_valid_by_itself_and_says_for_what() {
    for preset in Preset::ALL {
        let outbox = outbox(&format!("[outbox.a]\npreset = '{}'", preset.as_str()));
        assert_eq!(outbox.preset, Some(*preset));
        assert!(outbox.mapping.is_some(), "{preset:?}");
        let text = preset.text();
        let says = text.split_once(':').map(|(first, _)| first);
        let version = says.is_some_and(|says| says.contains(|digit: char| digit.is_ascii_digit()));
        assert!(version, "names project and version first: {text}");
    }
}

#[test]
fn a_preset_can_stand_in_a_file_as_it_is() {
    for preset in Preset::ALL {
        let named = outbox(&format!("[outbox.a]\npreset = '{}'", preset.as_str()));
        let written = outbox(&preset.text().replace("outbox.default", "outbox.a"));
        let expected = OutboxConfig {
            preset: Some(*preset),
            ..written
        };
        assert_eq!(named, expected);
    }
}

#[test]
fn own_options_are_stronger_than_the_presets_name_by_name() {
    let outbox = outbox(
        "[outbox.a]\npreset = 'debezium'\ntable = 'events'\non_sent = 'mark'\n\
         [outbox.a.columns]\nid = 'position'\ncorrelation_id = 'trace'\n\
         [outbox.a.sent]\ncolumn = 'done'\n\
         [outbox.a.headers]\neventType = '{event_type}'",
    );
    assert_eq!(outbox.table.to_string(), "public.events");
    assert_eq!(outbox.on_sent, OnSent::Mark);
    let columns = &outbox.mapping.as_ref().expect("a mapping").columns;
    let name = |field| columns.get(field).map(|name| name.as_str());
    assert_eq!(name(Field::Id), Some("position"));
    assert_eq!(name(Field::AggregateType), Some("aggregatetype"));
    assert_eq!(name(Field::CorrelationId), Some("trace"));
    let headers = outbox.templates.headers.iter();
    let headers: Vec<_> = headers
        .map(|(name, text)| (name, text.to_string()))
        .collect();
    let expected = [("eventType", "{event_type}"), ("id", "{event_id}")];
    assert_eq!(headers, expected.map(|(name, text)| (name, text.into())));
}

#[test]
fn a_variable_names_a_preset_too() {
    let variable = ("OUTBOXD_OUTBOX__A__PRESET", "debezium");
    let config: Config = valid("", &[variable]);
    let topic = config.outboxes["a"].templates.topic.to_string();
    assert_eq!(topic, "outbox.event.{aggregate_type}");
    assert_eq!(messages(Ok(config)), Vec::<String>::new());
}
