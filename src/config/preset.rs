//! Presets: the options for a table that another project has designed, below the outbox's own.

use std::collections::BTreeMap;

use figment::value::Value as Tree;

use super::read::text_of;
use super::sources;
use super::values::Value as _;
use super::words::Preset;

impl Preset {
    /// Its file: the options of an outbox, as a configuration has them.
    pub fn text(self) -> &'static str {
        match self {
            Self::Debezium => include_str!("../../config/presets/debezium.toml"),
            Self::SpringModulith => include_str!("../../config/presets/spring-modulith.toml"),
            Self::MassTransit => include_str!("../../config/presets/masstransit.toml"),
            Self::ActiveOutbox => include_str!("../../config/presets/active-outbox.toml"),
        }
    }

    pub(super) fn options(self) -> BTreeMap<String, Tree> {
        sources::outbox_of(self.text())
    }
}

/// The options of an outbox above those of the preset that they name. Tables such as `columns` are merged
/// name by name.
pub(super) fn layered(options: BTreeMap<String, Tree>) -> BTreeMap<String, Tree> {
    let named = options.get("preset").and_then(text_of);
    // What is no preset is reported where the option is read.
    let preset = named.and_then(|name| Preset::read(&name).ok());
    let Some(preset) = preset else {
        return options;
    };
    let mut layered = preset.options();
    for (key, option) in options {
        match (layered.get_mut(&key), option) {
            (Some(Tree::Dict(_, below)), Tree::Dict(_, above)) => below.extend(above),
            (_, option) => {
                layered.insert(key, option);
            }
        }
    }
    layered
}
