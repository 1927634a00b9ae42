//! Secrets as options: the files that some are in, and the admin port's token.

use std::fmt;
use std::path::PathBuf;

use super::error::ConfigError;
use super::url::{PostgresUrl, REDACTED};
use super::values::Value;
use crate::secret::{self, Secret};

/// A file that holds the value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The variable that names it.
    pub variable: String,
    /// Where it is.
    pub path: PathBuf,
}

impl SecretFile {
    /// What it holds now.
    ///
    /// # Errors
    /// As [`Secret::current`].
    pub fn read(&self) -> Result<String, ConfigError> {
        secret::read(&self.path).map_err(|error| ConfigError::Unreadable {
            name: self.variable.clone(),
            problem: error.to_string(),
        })
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

impl Value for Secret {
    fn read(text: &str) -> Result<Self, String> {
        Ok(Self::text(text))
    }

    fn show(&self) -> String {
        REDACTED.to_owned()
    }

    fn show_malformed(_: &str) -> String {
        REDACTED.to_owned()
    }
}

/// What whoever asks the admin port must know. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(String);

/// Long enough that nobody guesses it.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=512;

impl AdminToken {
    /// The token, for the `Authorization` header alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Value for AdminToken {
    /// RFC 6750 allows these characters in a bearer token.
    fn read(text: &str) -> Result<Self, String> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        match TOKEN_BYTES.contains(&text.len()) && text.bytes().all(legal) {
            true => Ok(Self(text.to_owned())),
            false => Err("must be 16 to 512 of a-z A-Z 0-9 - . _ ~ + / =".to_owned()),
        }
    }

    fn show(&self) -> String {
        REDACTED.to_owned()
    }

    fn show_malformed(_: &str) -> String {
        REDACTED.to_owned()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdminToken({REDACTED})")
    }
}
