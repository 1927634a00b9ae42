//! Secrets that may change while the process lives: what is in a file is read again whenever it is needed.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// A file with a secret is short; more than this is somebody's mistake (a device, a dump).
const MAX_BYTES: u64 = 1 << 20;

/// What stands in the place of a secret.
pub const REDACTED: &str = "<redacted>";

/// What a client knows and nobody else may: a text, or a file that holds one. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Place);

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Text(String),
    File(PathBuf),
}

/// A file with a secret cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("reading {path:?}: {problem}")]
pub struct SecretError {
    path: PathBuf,
    problem: String,
}

impl Secret {
    /// One that stays what it is.
    pub fn text(text: impl Into<String>) -> Secret {
        Secret(Place::Text(text.into()))
    }

    /// One that whoever rotates secrets writes into this file, without the newline that editors put at its end.
    pub fn in_file(path: impl Into<PathBuf>) -> Secret {
        Secret(Place::File(path.into()))
    }

    /// The secret as it is now.
    ///
    /// # Errors
    /// When its file cannot be read, is not UTF-8, or holds nothing: a secret that was not put in its place must not
    /// pass for one that is not needed.
    pub fn current(&self) -> Result<String, SecretError> {
        match &self.0 {
            Place::Text(text) => Ok(text.clone()),
            Place::File(path) => read(path),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// What the file holds now: see [`Secret::current`].
pub(crate) fn read(path: &Path) -> Result<String, SecretError> {
    let problem = |problem: &str| SecretError {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let mut content = String::new();
    let length = File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut content))
        .map_err(|error| problem(&why(&error)))?;
    if length as u64 > MAX_BYTES {
        return Err(problem("it is longer than 1 MiB"));
    }
    let line = content.strip_suffix('\n').unwrap_or(&content);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line.is_empty() {
        false => Ok(line.to_owned()),
        true => Err(problem("it is empty")),
    }
}

/// What came of reading a file as text.
pub(crate) fn why(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::InvalidData => "it must be UTF-8".to_owned(),
        _ => error.to_string(),
    }
}
