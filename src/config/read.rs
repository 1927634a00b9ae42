//! Reading options out of the merged tree, collecting what is wrong instead of stopping at it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    num::NonZeroU32,
    ops::RangeInclusive,
};

use figment::{Figment, value::Value as Tree};

use super::{error::ConfigError, values::Value};

/// What was found wrong so far, and where values came from.
pub(super) struct Report<'a> {
    figment: &'a Figment,
    pub(super) errors: Vec<ConfigError>,
    /// Options whose values could not be read, which is among the errors.
    unread: BTreeSet<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        figment: &'a Figment,
        errors: Vec<ConfigError>,
        unread: BTreeSet<String>,
    ) -> Self {
        Self {
            figment,
            errors,
            unread,
        }
    }

    /// The file, variable or flag that holds this value.
    pub(super) fn origin(&self, value: &Tree) -> String {
        self.figment
            .get_metadata(value.tag())
            .map_or_else(|| "the defaults".to_owned(), |layer| layer.name.to_string())
    }

    pub(super) fn refuse(&mut self, field: String, rule: impl Into<String>, value: String) {
        self.errors.push(ConfigError::Refused {
            field,
            rule: rule.into(),
            value,
        });
    }
}

impl Report<'_> {
    /// Something that cannot be read at all, shown as it was found.
    pub(super) fn malformed(&mut self, field: String, rule: impl Into<String>, found: &Tree) {
        let value = match found {
            Tree::String(_, text) => format!("{text:?}"),
            _ => text_of(found).unwrap_or_else(|| kind(found).to_owned()),
        };
        let origin = self.origin(found);
        self.errors.push(ConfigError::Malformed {
            field,
            rule: rule.into(),
            value,
            origin,
        });
    }
}

/// One table of the configuration. Each option is taken once; what is left over is unknown.
pub(super) struct Section {
    path: String,
    entries: BTreeMap<String, Tree>,
    known: Vec<&'static str>,
}

impl Section {
    pub(super) fn new(path: impl Into<String>, entries: BTreeMap<String, Tree>) -> Self {
        Self {
            path: path.into(),
            entries,
            known: Vec::new(),
        }
    }

    /// The table below this one, empty if there is none.
    pub(super) fn table(&mut self, key: &'static str) -> Section {
        self.known.push(key);
        let entries = match self.entries.remove(key) {
            Some(Tree::Dict(_, entries)) => entries,
            _ => BTreeMap::new(),
        };
        Self::new(join(&self.path, key), entries)
    }

    /// The option as it is, if it was given.
    pub(super) fn whole(&mut self, key: &'static str) -> Option<Tree> {
        self.known.push(key);
        self.entries.remove(key)
    }

    /// All that is left, as it is.
    pub(super) fn rest(self) -> BTreeMap<String, Tree> {
        self.entries
    }

    /// The dotted path of the table.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The dotted path of one of the options.
    pub(super) fn field(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// The value of an option that is read in the light of others; as [`Section::read`].
    pub(super) fn read_by<T>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (text, found) = self.take(report, key)?;
        let value = read(&text);
        value
            .map_err(|rule| report.malformed(self.field(key), rule, &found))
            .ok()
    }

    /// The value of an option; `None` if it is malformed, which is then in the report.
    pub(super) fn read<T: Value>(&mut self, report: &mut Report, key: &'static str) -> Option<T> {
        let (text, found) = self.take(report, key)?;
        match T::read(&text) {
            Ok(value) => Some(value),
            Err(rule) => {
                let value = match found {
                    Tree::String(..) => T::show_malformed(&text),
                    _ => text,
                };
                let origin = report.origin(&found);
                report.errors.push(ConfigError::Malformed {
                    field: self.field(key),
                    rule,
                    value,
                    origin,
                });
                None
            }
        }
    }

    /// An option that is not set if it is left out or empty: `Some(None)`.
    pub(super) fn optional<T: Value>(
        &mut self,
        report: &mut Report,
        key: &'static str,
    ) -> Option<Option<T>> {
        let empty = |value| text_of(value).is_some_and(|text| text.is_empty());
        if self.entries.get(key).is_none_or(empty) {
            self.known.push(key);
            self.entries.remove(key);
            return Some(None);
        }
        self.read(report, key).map(Some)
    }

    /// An option without a default.
    pub(super) fn required<T: Value>(
        &mut self,
        report: &mut Report,
        key: &'static str,
    ) -> Option<T> {
        let value = self.optional(report, key)?;
        if value.is_none() && !report.unread.contains(&self.field(key)) {
            let variable = format!(
                "OUTBOXD_{}__{}",
                self.path.to_uppercase().replace('.', "__"),
                key.to_uppercase()
            );
            let how = format!("{variable} or [{}] {key}", self.path);
            report.errors.push(ConfigError::Missing {
                field: self.field(key),
                how,
            });
        }
        value
    }

    /// An option with bounds, both allowed.
    pub(super) fn within<T: Value + PartialOrd>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        bounds: RangeInclusive<T>,
    ) -> Option<T> {
        let value: T = self.read(report, key)?;
        if bounds.contains(&value) {
            return Some(value);
        }
        let rule = format!(
            "must be between {} and {}",
            bounds.start().show(),
            bounds.end().show()
        );
        report.refuse(self.field(key), rule, value.show());
        None
    }

    /// A number from 1 to `max`.
    pub(super) fn count(
        &mut self,
        report: &mut Report,
        key: &'static str,
        max: u32,
    ) -> Option<NonZeroU32> {
        let value = self.within(report, key, 1..=i128::from(max))?;
        u32::try_from(value).ok().and_then(NonZeroU32::new)
    }

    /// Reports every key that no option took.
    pub(super) fn finish(self, report: &mut Report) {
        for (key, value) in &self.entries {
            let nearest = nearest(key, &self.known).map(str::to_owned);
            let origin = report.origin(value);
            report.errors.push(ConfigError::Unknown {
                field: self.field(key),
                nearest,
                origin,
            });
        }
    }

    fn take(&mut self, report: &mut Report, key: &'static str) -> Option<(String, Tree)> {
        self.known.push(key);
        let value = self.entries.remove(key)?;
        match text_of(&value) {
            Some(text) => Some((text, value)),
            None => {
                let rule = "must be text, a number or true/false";
                report.malformed(self.field(key), rule, &value);
                None
            }
        }
    }
}

/// The text of a single value, `None` for tables and arrays.
pub(super) fn text_of(value: &Tree) -> Option<String> {
    match value {
        Tree::String(_, text) => Some(text.clone()),
        Tree::Char(_, char) => Some(char.to_string()),
        Tree::Bool(_, bool) => Some(bool.to_string()),
        Tree::Num(_, number) => Some(
            match (number.to_i128(), number.to_u128(), number.to_f64()) {
                (Some(number), _, _) => number.to_string(),
                (_, Some(number), _) => number.to_string(),
                // `{:?}` keeps the point of 1.0.
                (_, _, number) => format!("{:?}", number.unwrap_or(f64::NAN)),
            },
        ),
        Tree::Empty(..) | Tree::Dict(..) | Tree::Array(..) => None,
    }
}

/// What a value is, for messages.
pub(super) fn kind(value: &Tree) -> &'static str {
    match value {
        Tree::Dict(..) => "a table",
        Tree::Array(..) => "an array",
        _ => "a single value",
    }
}

/// A dotted path; a key that would not stand bare in TOML is quoted, so that a message keeps to
/// one line.
pub(super) fn join(path: &str, key: &str) -> String {
    let mut joined = path.to_owned();
    if !path.is_empty() {
        joined.push('.');
    }
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if !key.is_empty() && key.bytes().all(bare) {
        joined.push_str(key);
    } else {
        // Writing to a String cannot fail.
        let _ = write!(joined, "{key:?}");
    }
    joined
}

/// The known key that is at most a third of its letters away, or one letter if it is shorter than three.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    if key.len() > 64 {
        return None;
    }
    let distance = |candidate: &str| edits(&key.to_ascii_lowercase(), candidate);
    let near = known
        .iter()
        .copied()
        .min_by_key(|candidate| distance(candidate))?;
    (distance(near) <= (near.len() / 3).clamp(1, 3)).then_some(near)
}

/// How many bytes must be inserted, deleted, replaced or swapped with their neighbour (the
/// distance of Damerau and Levenshtein, each place edited once).
fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = above[j] + usize::from(a[i] != b[j]);
            let mut cost = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}
