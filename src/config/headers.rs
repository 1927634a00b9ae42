//! Headers that an outbox adds to every event, each a template over the row's columns.

use figment::value::Value as Tree;

use super::field::Field;
use super::read::{Report, join, text_of};
use super::template::Template;

/// Header names and what they hold, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderTemplates(Vec<(String, Template)>);

impl HeaderTemplates {
    /// Each name with its template.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Template)> {
        self.0
            .iter()
            .map(|(name, template)| (name.as_str(), template))
    }

    /// The header by which a consumer of bare payloads can recognize a repeat, named as Debezium's
    /// outbox event router names it.
    pub(super) fn bare() -> Self {
        let id = Template::parse("{event_id}", Field::PLACEHOLDERS);
        Self(id.into_iter().map(|id| ("id".to_owned(), id)).collect())
    }

    /// Reads the table at `path`; what is malformed is in the report.
    pub(super) fn read(path: &str, table: Tree, report: &mut Report) -> Self {
        let Tree::Dict(_, entries) = table else {
            report.malformed(
                path.to_owned(),
                "must be a table of names and texts",
                &table,
            );
            return Self::default();
        };
        let mut headers = Vec::new();
        for (name, found) in entries {
            let template = text_of(&found)
                .ok_or_else(|| "must be text".to_owned())
                .and_then(|text| Template::parse(&text, Field::PLACEHOLDERS));
            match template {
                Ok(template) => headers.push((name, template)),
                Err(rule) => report.malformed(join(path, &name), rule, &found),
            }
        }
        Self(headers)
    }
}
