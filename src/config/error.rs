//! What can be wrong with a configuration, and how it is said.

use std::fmt;

/// One broken rule. Its `Display` is one line, `field: rule, is value`, and never shows a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named cannot be used: missing, unreadable, not UTF-8 or not TOML.
    #[error("{name}: {problem}")]
    Unreadable {
        /// The file, or the variable that names it.
        name: String,
        /// What was attempted and what came of it.
        problem: String,
    },
    /// A key that no option has.
    #[error("{field}: is not an option{}, from {origin}", Nearest(.nearest.as_deref()))]
    Unknown {
        /// The dotted path of the key.
        field: String,
        /// The option that was probably meant.
        nearest: Option<String>,
        /// The file, variable or flag that holds the key.
        origin: String,
    },
    /// A required option without a value.
    #[error("{field}: must be set ({how})")]
    Missing {
        /// The dotted path of the option.
        field: String,
        /// The places where it can be set.
        how: String,
    },
    /// Two settings that exclude each other.
    #[error("{field}: {conflict}")]
    Contradictory {
        /// The dotted path of the option that is reported.
        field: String,
        /// What it contradicts.
        conflict: String,
    },
    /// A value that cannot be read as the option's type.
    #[error("{field}: {rule}, is {value}, from {origin}")]
    Malformed {
        /// The dotted path of the option.
        field: String,
        /// What the value must be.
        rule: String,
        /// The value found, quoted if it is text, redacted if it may hold a secret.
        value: String,
        /// The file, variable or flag that holds the value.
        origin: String,
    },
    /// A value of the right type that breaks a rule.
    #[error("{field}: {rule}, is {value}")]
    Refused {
        /// The dotted path of the option.
        field: String,
        /// The rule.
        rule: String,
        /// The value found, redacted if it is a secret.
        value: String,
    },
}

/// Everything that is wrong with a configuration, at least one rule; `Display` gives one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub(super) Vec<ConfigError>);

impl ConfigErrors {
    /// `Err` with the broken rules, or `Ok` if there are none.
    pub(super) fn check(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Self(errors))
        }
    }

    /// The broken rules, in the order of the options.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

struct Nearest<'a>(Option<&'a str>);

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(key) => write!(f, " (did you mean {key}?)"),
            None => Ok(()),
        }
    }
}
