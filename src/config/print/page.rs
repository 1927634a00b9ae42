//! What is printed: tables of options, and how TOML writes them.

use std::fmt::{Display, Write as _};

use crate::config::Origin;

/// A value as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Text.
    Text(String),
    /// A number or a truth value, as TOML and JSON have it.
    Plain(String),
}

/// The tables in their order.
#[derive(Default)]
pub struct Page {
    pub tables: Vec<Table>,
}

pub struct Table {
    pub path: Vec<String>,
    pub options: Vec<(String, Shown)>,
}

impl Page {
    pub fn table<const N: usize>(&mut self, path: [&str; N]) {
        self.tables.push(Table {
            path: path.map(str::to_owned).to_vec(),
            options: Vec::new(),
        });
    }

    pub fn text(&mut self, key: &str, value: impl Display) {
        self.option(key, Shown::Text(value.to_string()));
    }

    pub fn plain(&mut self, key: &str, value: impl Display) {
        self.option(key, Shown::Plain(value.to_string()));
    }

    fn option(&mut self, key: &str, value: Shown) {
        if let Some(table) = self.tables.last_mut() {
            table.options.push((key.to_owned(), value));
        }
    }

    /// TOML with a comment behind each option for which there is one. Writing to a `String` cannot fail, so the
    /// results are dropped.
    pub fn toml(&self, comment: impl Fn(&[String], &str) -> Option<Origin>) -> String {
        let mut toml = String::new();
        for Table { path, options } in &self.tables {
            let gap = if toml.is_empty() { "" } else { "\n" };
            let path_keys: Vec<String> = path.iter().map(|key| bare_or_quoted(key)).collect();
            let _ = writeln!(toml, "{gap}[{}]", path_keys.join("."));
            let lines = options.iter().map(|(key, value)| {
                let line = format!("{} = {}", bare_or_quoted(key), value.toml());
                (line, comment(path, key))
            });
            let lines: Vec<(String, Option<Origin>)> = lines.collect();
            let widths = lines.iter().map(|(line, _)| line.chars().count());
            let column = widths.filter(|width| *width <= MAX_COLUMN).max();
            for (line, origin) in lines {
                let _ = match origin {
                    Some(origin) => writeln!(
                        toml,
                        "{line:column$}  # {}",
                        origin.to_string().escape_debug(),
                        column = column.unwrap_or_default()
                    ),
                    None => writeln!(toml, "{line}"),
                };
            }
        }
        toml
    }
}

/// Comments stand below each other unless an option is longer than this.
const MAX_COLUMN: usize = 60;

impl Shown {
    fn toml(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Plain(plain) => plain.clone(),
        }
    }
}

fn bare_or_quoted(key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    match !key.is_empty() && key.bytes().all(is_bare) {
        true => key.to_owned(),
        false => quoted(key),
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\n' => quoted.push_str("\\n"),
            char if char.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(char));
            }
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}
