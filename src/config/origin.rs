//! Where the value of an option comes from.

use std::collections::BTreeMap;
use std::fmt;

use figment::value::{Dict, Value as Tree};

use super::secret::SecretFile;
use super::words::Preset;

/// Where a value comes from. `Display` is what a message says after "from".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// What is built in.
    Default,
    /// The options of a preset, which lie below the outbox's own.
    Preset(Preset),
    /// This TOML file.
    File(String),
    /// This variable of the environment.
    Variable(String),
    /// The file that a variable names.
    VariableFile(SecretFile),
    /// A flag.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::Preset(preset) => write!(f, "preset {:?}", preset.as_str()),
            Self::File(name) | Self::Variable(name) => f.write_str(name),
            Self::VariableFile(SecretFile { variable, path }) => {
                write!(f, "{} ({variable})", path.display())
            }
            Self::CommandLine => f.write_str("the command line"),
        }
    }
}

/// The origin of every option that is set, by the names on the way to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins(BTreeMap<Vec<String>, Origin>);

impl Origins {
    /// Notes what a layer sets, which is stronger than what was noted before.
    pub(super) fn note(&mut self, layer: &Dict, origin: &Origin) {
        each_leaf(&mut Vec::new(), layer, &mut |path| {
            self.0.insert(path.to_vec(), origin.clone());
        });
    }

    /// Notes what lies below an outbox's own options.
    pub(super) fn note_preset(&mut self, outbox: &str, preset: Preset) {
        let mut path = vec!["outbox".to_owned(), outbox.to_owned()];
        each_leaf(&mut path, &preset.options(), &mut |path| {
            let origin = self.0.entry(path.to_vec());
            origin.or_insert(Origin::Preset(preset));
        });
    }

    /// Where the option's value comes from.
    pub(super) fn of(&self, table: &[String], key: &str) -> Origin {
        let path: Vec<String> = table.iter().cloned().chain([key.to_owned()]).collect();
        self.0.get(&path).cloned().unwrap_or(Origin::Default)
    }

    /// The file that holds the option's value, if a file does.
    pub(super) fn file_of(&self, table: &str, key: &str) -> Option<SecretFile> {
        let table: Vec<String> = table.split('.').map(str::to_owned).collect();
        match self.of(&table, key) {
            Origin::VariableFile(file) => Some(file),
            _ => None,
        }
    }
}

fn each_leaf(path: &mut Vec<String>, tree: &Dict, note: &mut impl FnMut(&[String])) {
    for (key, value) in tree {
        path.push(key.clone());
        match value {
            Tree::Dict(_, below) => each_leaf(path, below, note),
            _ => note(path),
        }
        path.pop();
    }
}
