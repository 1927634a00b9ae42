//! Tables of others: compares a mapping with what the catalogue says of the table, so that a mistake shows
//! at start with its own message, and turns it into the table's `Shape`.

mod comparison;
mod mistakes;
mod obstacles;
mod own;
mod plan;
mod sent;
mod table;
mod trial;
mod types;

use crate::config::{Mapping, OnSent, OutboxConfig, Retention};

use super::outbox::{Column as Selected, Shape};
use super::{DbError, Session};

use comparison::Comparison;
use mistakes::Mistakes;
use obstacles::Usage;
use table::Table;

pub use mistakes::{Aspect, Mistake};

/// Outboxd's own table with the columns that templates name besides its own.
///
/// # Errors
/// [`DbError::Schema`] with every column that is not there; else whatever Postgres says.
pub async fn own_shape(session: &mut Session, config: &OutboxConfig) -> Result<Shape, DbError> {
    let name = &config.table;
    let mut shape = Shape::own(name);
    if config.templates.other_columns.iter().len() > 0
        && let Some(table) = Table::read(session, name).await?
    {
        let mut mistakes = Mistakes::default();
        add_other_columns(&mut shape, &table, config, &mut mistakes);
        if !mistakes.0.is_empty() {
            return Err(mistakes.of(name));
        }
    }
    Ok(shape)
}

/// The columns that only templates name, as text.
fn add_other_columns(
    shape: &mut Shape,
    table: &Table,
    config: &OutboxConfig,
    mistakes: &mut Mistakes,
) {
    for (place, (name, option)) in config.templates.other_columns.iter().enumerate() {
        match table.column(name.as_str()) {
            Some(column) => {
                let other = types::select_text(&format!("other_{place}"), column);
                let label = format!("column {:?}", name.as_str());
                shape.columns.push(Selected { label, ..other });
                shape.other_columns += 1;
            }
            None => mistakes.add(format!(
                "column {:?} ({option}) does not exist",
                name.as_str()
            )),
        }
    }
}

/// Reads the catalogue and compares.
///
/// # Errors
/// [`DbError::Schema`] with every mistake; else whatever Postgres says.
pub async fn shape(
    session: &mut Session,
    config: &OutboxConfig,
    mapping: &Mapping,
) -> Result<Shape, DbError> {
    let (shape, mistakes) = examine(session, config, mapping).await?;
    match shape {
        Some(shape) if mistakes.0.is_empty() => Ok(shape),
        _ => Err(mistakes.of(&config.table)),
    }
}

/// Everything about the configured table that stands in a relay's way, one by one.
///
/// # Errors
/// Whatever Postgres says.
pub async fn mistakes(
    session: &mut Session,
    config: &OutboxConfig,
) -> Result<Vec<Mistake>, DbError> {
    let mistakes = match &config.mapping {
        Some(mapping) => examine(session, config, mapping).await?.1,
        None => own::examine(session, config).await?,
    };
    Ok(mistakes.0)
}

async fn examine(
    session: &mut Session,
    config: &OutboxConfig,
    mapping: &Mapping,
) -> Result<(Option<Shape>, Mistakes), DbError> {
    let name = &config.table;
    let mut mistakes = Mistakes::default();
    let Some(table) = mistakes.table(session, name).await? else {
        return Ok((None, mistakes));
    };
    let asked = Asked::of(config, mapping);
    let comparison = Comparison {
        asked: &asked,
        table: &table,
    };
    let mut shape = comparison.shape(&mut mistakes);
    if let Some(shape) = &mut shape {
        add_other_columns(shape, &table, config, &mut mistakes);
    }
    let usage = asked.usage();
    let id = mapping.columns.id.as_str();
    mistakes
        .obstacles(session, &table, table.column(id), &usage)
        .await?;
    if let Some(shape) = shape.as_ref().filter(|_| mistakes.0.is_empty()) {
        // The rest asks the server to try what the shape says, which one without mistakes can be.
        mistakes.extend(trial::refusals(session, &table, &asked).await?);
        mistakes.extend(plan::missing_indexes(session, shape, &asked).await?);
    }
    Ok((shape, mistakes))
}

/// What an outbox's options ask of a table.
struct Asked<'a> {
    mapping: &'a Mapping,
    /// Sent rows are deleted rather than marked.
    deletes: bool,
    /// Marked rows are deleted after a while.
    expires: bool,
}

impl<'a> Asked<'a> {
    fn of(config: &OutboxConfig, mapping: &'a Mapping) -> Asked<'a> {
        let deletes = config.on_sent == OnSent::Delete;
        Asked {
            mapping,
            deletes,
            expires: !deletes && config.retention != Retention::Forever,
        }
    }

    /// What the statements do to the table.
    fn usage(&self) -> Usage {
        let mapped = self.mapping.columns.iter().map(|(_, column)| column);
        let reads = mapped.chain(self.mapping.marked_columns());
        Usage {
            reads: reads.map(|name| name.as_str().to_owned()).collect(),
            marks: self.marked_columns(),
            deletes: self.deletes,
            expires: self.expires,
            trusted_triggers: Some(self.mapping.trusted_triggers.clone()),
        }
    }

    /// The columns that a mark sets.
    fn marked_columns(&self) -> Vec<String> {
        let columns = self.mapping.marked_columns();
        columns.map(|name| name.as_str().to_owned()).collect()
    }
}
