//! Where a configuration comes from: the defaults, a file, variables, flags; merged by figment.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format as _, Toml},
    value::{Dict, Map, Value as Tree},
};

use super::{
    error::{ConfigError, ConfigErrors},
    origin::{Origin, Origins},
    properties,
    read::{join, kind, text_of},
    secret::SecretFile,
};
use crate::secret::why;

/// Every option with its default and a comment: the reference for operators.
pub const DEFAULTS: &str = include_str!("../../config/outboxd.toml");

/// Names on the way to the deepest option, a header of an outbox; more would only be a way to exhaust the
/// stack.
const MAX_DEPTH: usize = 4;

/// The layers above the defaults, the later ones stronger.
#[derive(Debug, Clone)]
pub struct Sources<E = std::vec::IntoIter<(String, String)>> {
    /// A TOML file. Without one, `OUTBOXD_CONFIG` names it; without that, none is read.
    pub file: Option<PathBuf>,
    /// The environment, as names and values; all but `OUTBOXD_` names with `__` are passed over.
    pub environment: E,
    /// Values of flags by the dotted paths of their options, such as `("postgres.url", …)`.
    pub overrides: Vec<(String, String)>,
}

impl Sources {
    /// The sources of this process. The only place where the real environment is read.
    ///
    /// # Errors
    /// A variable that starts with `OUTBOXD_` is not UTF-8.
    pub fn of_process(
        file: Option<PathBuf>,
        overrides: Vec<(String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let mut environment = Vec::new();
        let mut errors = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with("OUTBOXD_")) else {
                continue;
            };
            match value.into_string() {
                Ok(value) => environment.push((name.to_owned(), value)),
                Err(_) => errors.push(unreadable(name, "must be UTF-8")),
            }
        }
        ConfigErrors::check(errors)?;
        Ok(Self {
            file,
            environment: environment.into_iter(),
            overrides,
        })
    }
}

/// The merged layers, defaults included, with `[outbox.default]` of the defaults set apart.
pub(super) struct Merged {
    pub(super) figment: Figment,
    pub(super) outbox_defaults: BTreeMap<String, Tree>,
    pub(super) origins: Origins,
    /// What was wrong with a layer by itself.
    pub(super) errors: Vec<ConfigError>,
    /// The options whose values could not be read, which is among the errors.
    pub(super) unread: BTreeSet<String>,
}

/// Merges the layers.
///
/// # Errors
/// A file that cannot be read as TOML ends it: without it nothing else can be said.
pub(super) fn merge(
    sources: Sources<impl Iterator<Item = (String, String)>>,
) -> Result<Merged, ConfigErrors> {
    let environment: BTreeMap<String, String> = sources.environment.collect();
    let mut defaults = parse("the defaults", DEFAULTS)?;
    let outbox_defaults = take_outbox(&mut defaults);

    let mut layers = vec![Layer {
        origin: Origin::Default,
        tree: defaults,
    }];
    let mut errors = Vec::new();
    if let Some(path) = sources
        .file
        .or_else(|| environment.get("OUTBOXD_CONFIG").map(PathBuf::from))
    {
        layers.push(read_file(&path)?);
    }
    let mut unread = BTreeSet::new();
    layers.extend(variables(&environment, &mut unread, &mut errors));
    layers.extend(
        sources
            .overrides
            .into_iter()
            .map(|(path, value)| Layer::of_setting(Origin::CommandLine, path.split('.'), value)),
    );
    let mut origins = Origins::default();
    let figment = layers
        .into_iter()
        .fold(Figment::new(), |figment, mut layer| {
            layer.check_tables(&mut errors);
            layer.flatten_properties(&mut errors);
            origins.note(&layer.tree, &layer.origin);
            figment.merge(layer)
        });
    Ok(Merged {
        figment,
        outbox_defaults,
        origins,
        errors,
        unread,
    })
}

/// `[outbox.default]` of a file that is built in.
pub(super) fn outbox_of(text: &str) -> BTreeMap<String, Tree> {
    let parsed = parse("a preset", text);
    parsed
        .map(|mut file| take_outbox(&mut file))
        .unwrap_or_default()
}

fn take_outbox(file: &mut Dict) -> BTreeMap<String, Tree> {
    let mut outboxes = table(file.remove("outbox"));
    table(outboxes.remove("default"))
}

/// One source of values. The name of its metadata is what a message says after "from".
struct Layer {
    origin: Origin,
    tree: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.tree.clone()))
    }
}

impl Layer {
    /// A single value, kept as text: figment's own provider reads `0123` as a number.
    fn of_setting<'p>(origin: Origin, path: impl Iterator<Item = &'p str>, value: String) -> Self {
        let path: Vec<&str> = path.collect();
        // Below [kafka.properties] all the rest is one name.
        let depth = if path.starts_with(&["kafka", "properties"]) {
            2
        } else {
            MAX_DEPTH - 1
        };
        let (tables, name) = path.split_at(depth.min(path.len().saturating_sub(1)));
        let value = Tree::from(value);
        let tree = tables
            .iter()
            .rev()
            .fold(Dict::from([(name.join("."), value)]), |below, key| {
                Dict::from([((*key).to_owned(), Tree::from(below))])
            });
        Self { origin, tree }
    }

    /// Takes out single values that stand where a table belongs, before they replace it.
    fn check_tables(&mut self, errors: &mut Vec<ConfigError>) {
        let origin = self.origin.to_string();
        let mut expect = |path: &str, tree: &mut Dict, key: &str| match tree.get(key) {
            Some(Tree::Dict(..)) | None => {}
            Some(value) => {
                errors.push(ConfigError::Malformed {
                    field: join(path, key),
                    rule: "must be a table".to_owned(),
                    value: kind(value).to_owned(),
                    origin: origin.clone(),
                });
                tree.remove(key);
            }
        };
        for section in [
            "postgres", "kafka", "admin", "otlp", "relay", "log", "outbox",
        ] {
            expect("", &mut self.tree, section);
        }
        if let Some(Tree::Dict(_, kafka)) = self.tree.get_mut("kafka") {
            expect("kafka", kafka, "properties");
            expect("kafka", kafka, "create_topics");
            expect("kafka", kafka, "oauth");
        }
        if let Some(Tree::Dict(_, outboxes)) = self.tree.get_mut("outbox") {
            for name in outboxes.keys().cloned().collect::<Vec<_>>() {
                expect("outbox", outboxes, &name);
            }
        }
    }

    /// In every layer, so that a property has one name when layers meet.
    fn flatten_properties(&mut self, errors: &mut Vec<ConfigError>) {
        if let Some(Tree::Dict(_, kafka)) = self.tree.get_mut("kafka")
            && let Some(Tree::Dict(_, properties)) = kafka.get_mut("properties")
        {
            *properties = properties::flatten(std::mem::take(properties), errors);
        }
    }
}

/// A layer for each variable that is configuration, in the order of the names.
fn variables(
    environment: &BTreeMap<String, String>,
    unread: &mut BTreeSet<String>,
    errors: &mut Vec<ConfigError>,
) -> Vec<Layer> {
    let mut origins: BTreeMap<String, &str> = BTreeMap::new();
    let mut layers = Vec::new();
    for (variable, value) in environment {
        let Some(name) = variable
            .strip_prefix("OUTBOXD_")
            .filter(|name| name.contains("__"))
        else {
            continue;
        };
        let (path, file) = option_path(name);
        if let Some(other) = origins.insert(path.join("."), variable) {
            errors.push(ConfigError::Contradictory {
                field: path
                    .iter()
                    .fold(String::new(), |path, key| join(&path, key)),
                conflict: format!("{other} and {variable} are both set, set only one"),
            });
            continue;
        }
        let (value, origin) = match file {
            true => {
                let file = SecretFile {
                    variable: variable.clone(),
                    path: value.into(),
                };
                let secret = file.read().map_err(|error| errors.push(error)).ok();
                (secret, Origin::VariableFile(file))
            }
            false => (Some(value.clone()), Origin::Variable(variable.clone())),
        };
        match value {
            Some(value) => {
                let path = path.iter().map(String::as_str);
                layers.push(Layer::of_setting(origin, path, value));
            }
            None => {
                unread.insert(path.join("."));
            }
        }
    }
    layers
}

/// The path of the option that a variable sets, and whether the variable names a file with the
/// value.
fn option_path(name: &str) -> (Vec<String>, bool) {
    let name = name.to_lowercase();
    if let Some(property) = name.strip_prefix("kafka__properties__") {
        let property = property.replace("__", ".").replace('_', ".");
        let (property, file) = match property.strip_suffix(".file") {
            Some(secret) => (secret.to_owned(), true),
            None => (property, false),
        };
        return (
            vec!["kafka".to_owned(), "properties".to_owned(), property],
            file,
        );
    }
    let (name, file) = match name.strip_suffix("_file") {
        Some(secret) => (secret, true),
        None => (name.as_str(), false),
    };
    (
        name.splitn(MAX_DEPTH, "__").map(str::to_owned).collect(),
        file,
    )
}

fn read_file(path: &Path) -> Result<Layer, ConfigErrors> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        unreadable(&name, format!("reading the configuration: {}", why(&error)))
    })?;
    Ok(Layer {
        tree: parse(&name, &text)?,
        origin: Origin::File(name),
    })
}

/// TOML's own message without the excerpt of the file, which may show a secret.
fn parse(name: &str, text: &str) -> Result<Dict, ConfigErrors> {
    let tree: Dict = Toml::from_str(text).map_err(|error| {
        let at = error
            .span()
            .and_then(|span| text.get(..span.start))
            .unwrap_or_default();
        let line = at.matches('\n').count() + 1;
        let column = at.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        unreadable(
            name,
            format!("line {line}, column {column}: is not TOML: {message}"),
        )
    })?;
    Ok(tree
        .into_iter()
        .map(|(key, value)| (key, dates_as_text(value)))
        .collect())
}

/// An unquoted `2026-01-31` is a date to TOML; here it is a name or a password.
fn dates_as_text(value: Tree) -> Tree {
    match value {
        Tree::Dict(tag, entries) => match entries.get("$__toml_private_datetime").and_then(text_of)
        {
            Some(date) => Tree::String(tag, date),
            None => Tree::Dict(
                tag,
                entries
                    .into_iter()
                    .map(|(key, value)| (key, dates_as_text(value)))
                    .collect(),
            ),
        },
        value => value,
    }
}

fn table(value: Option<Tree>) -> BTreeMap<String, Tree> {
    match value {
        Some(Tree::Dict(_, entries)) => entries,
        _ => BTreeMap::new(),
    }
}

fn unreadable(name: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Unreadable {
        name: name.to_owned(),
        problem: problem.into(),
    }
}
