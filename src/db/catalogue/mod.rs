//! Tables of others: compares a mapping with what the catalogue says of the table, so that a mistake shows
//! at start with its own message, and turns it into the table's `Shape`.

mod asked;
mod comparison;
mod mistakes;
mod obstacles;
mod own;
mod plan;
mod reading;
mod sent;
mod table;
mod trial;
mod types;

use super::shape::Shape;
use super::{DbError, Session};
use crate::config::{Mapping, OutboxConfig};

use asked::Asked;
use comparison::Comparison;
use mistakes::Mistakes;
use reading::add_other_columns;
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
    obstacles::add(&mut mistakes, session, &table, table.column(id), &usage).await?;
    if let Some(shape) = shape.as_ref().filter(|_| mistakes.0.is_empty()) {
        // The rest asks the server to try what the shape says, which one without mistakes can be.
        mistakes.extend(trial::refusals(session, &table, &asked).await?);
        mistakes.extend(plan::missing_indexes(session, shape, &asked).await?);
    }
    Ok((shape, mistakes))
}
