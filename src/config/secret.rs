//! Secrets: what is in a file, read again when it may have changed, and the admin port's token.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use super::error::ConfigError;
use super::url::{PostgresUrl, REDACTED};
use super::values::Value;

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

/// A secret, and the file it is from if it is from one. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    file: Option<SecretFile>,
}

impl Secret {
    pub(super) fn new(text: String, file: Option<SecretFile>) -> Secret {
        Secret { text, file }
    }

    /// The same, which was read from this file if it was from one.
    pub(super) fn keep_in(&mut self, file: Option<SecretFile>) {
        self.file = file;
    }

    /// The secret as it is now: whoever rotates secrets writes a new one into the file.
    ///
    /// # Errors
    /// As [`SecretFile::read`].
    pub fn current(&self) -> Result<String, ConfigError> {
        match &self.file {
            Some(file) => file.read(),
            None => Ok(self.text.clone()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Value for Secret {
    fn read(text: &str) -> Result<Self, String> {
        Ok(Self::new(text.to_owned(), None))
    }

    fn show(&self) -> String {
        REDACTED.to_owned()
    }

    fn show_malformed(_: &str) -> String {
        REDACTED.to_owned()
    }
}

/// What came of reading a file.
pub(super) fn why(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::InvalidData => "it must be UTF-8".to_owned(),
        _ => error.to_string(),
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
