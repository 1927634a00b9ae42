//! Tests of the configuration: each rule with its message, the layers, the secrets, the reference.

mod layers;
mod origins;
mod presets;
mod reference;
mod rules;
mod secrets;
mod soup;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{Config, ConfigErrors, Sources};

const URL: (&str, &str) = (
    "OUTBOXD_POSTGRES__URL",
    "postgres://app:hunter2@db:5432/shop",
);
const BROKERS: (&str, &str) = ("OUTBOXD_KAFKA__BOOTSTRAP_SERVERS", "kafka:9092");

/// A file that is gone after the test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(content: impl AsRef<[u8]>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("outboxd-config-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).expect("writing a temporary file");
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Loads exactly these layers.
fn load_all(
    toml: &str,
    environment: &[(&str, &str)],
    overrides: &[(&str, &str)],
) -> Result<Config, ConfigErrors> {
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let file = (!toml.is_empty()).then(|| TempFile::new(toml));
    let result = Config::load(Sources {
        file: file.as_ref().map(|file| file.path().to_owned()),
        environment: owned(environment).into_iter(),
        overrides: owned(overrides),
    });
    // The name differs from run to run.
    result.map_err(|errors| match &file {
        Some(file) => renamed(&errors, &file.name()),
        None => errors,
    })
}

/// The same errors with `FILE` in the place of the temporary file's name.
fn renamed(errors: &ConfigErrors, name: &str) -> ConfigErrors {
    use super::ConfigError::{Malformed, Unknown, Unreadable};
    let renamed = errors.iter().cloned().map(|mut error| {
        if let Unknown { origin: place, .. }
        | Malformed { origin: place, .. }
        | Unreadable { name: place, .. } = &mut error
        {
            *place = place.replace(name, "FILE");
        }
        error
    });
    ConfigErrors(renamed.collect())
}

/// Loads these layers above what must always be set.
fn load(toml: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let mut all = vec![URL, BROKERS];
    all.retain(|(name, _)| !environment.iter().any(|(other, _)| other == name));
    all.extend_from_slice(environment);
    load_all(toml, &all, &[])
}

fn valid(toml: &str, environment: &[(&str, &str)]) -> Config {
    load(toml, environment).expect("a valid configuration")
}

fn messages(result: Result<Config, ConfigErrors>) -> Vec<String> {
    match result {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}
