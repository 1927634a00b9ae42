//! Secrets in files, which are read again when they may have changed.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use super::error::ConfigError;
use super::url::{PostgresUrl, REDACTED};

/// A file with a secret is short; more than this is somebody's mistake (a device, a dump).
const MAX_SECRET_BYTES: u64 = 1 << 20;

/// A file that holds the value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The variable that names it.
    pub variable: String,
    /// Where it is.
    pub path: PathBuf,
}

impl SecretFile {
    /// What it holds now, without the newline that editors put at its end.
    ///
    /// # Errors
    /// When it cannot be read, is not UTF-8, or holds nothing: a secret that was not put in its place must not pass
    /// for one that is not needed.
    pub fn read(&self) -> Result<String, ConfigError> {
        let problem = |problem: &str| ConfigError::Unreadable {
            name: self.variable.clone(),
            problem: format!("reading {:?}: {problem}", self.path),
        };
        let mut content = String::new();
        let length = File::open(&self.path)
            .and_then(|file| file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut content))
            .map_err(|error| problem(&why(&error)))?;
        if length as u64 > MAX_SECRET_BYTES {
            return Err(problem("it is longer than 1 MiB"));
        }
        let line = content.strip_suffix('\n').unwrap_or(&content);
        let line = line.strip_suffix('\r').unwrap_or(line);
        match line.is_empty() {
            false => Ok(line.to_owned()),
            true => Err(problem("it is empty")),
        }
    }

    /// The URL that it holds now.
    ///
    /// # Errors
    /// As [`SecretFile::read`], or when it is none.
    pub fn read_url(&self) -> Result<PostgresUrl, ConfigError> {
        PostgresUrl::parse(&self.read()?).map_err(|rule| ConfigError::Malformed {
            field: self.variable.clone(),
            rule,
            value: REDACTED.to_owned(),
            origin: self.path.display().to_string(),
        })
    }
}

/// What came of reading a file.
pub(super) fn why(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::InvalidData => "it must be UTF-8".to_owned(),
        _ => error.to_string(),
    }
}
