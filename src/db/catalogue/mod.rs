//! Tables of others: compares a mapping with what the catalogue says of the table, so that a mistake shows
//! at start with its own message, and turns it into the table's `Shape`.

mod obstacles;
mod own;
mod plan;
mod sent;
mod table;
mod trial;
mod types;

use std::fmt;

use crate::config::{Field, Mapping, OnSent, OutboxConfig, PayloadEncoding, Retention, TableName};

use super::outbox::{Column as Selected, Length, PayloadForm, RowForm, Shape};
use super::sequence::Sequence;
use super::{DbError, Session};

use obstacles::Usage;
use sent::Sending;
use table::{Column, Table};
use types::Type;

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

/// What a mistake is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// The table itself.
    Table,
    Columns,
    /// Where ids come from.
    Ids,
    Privileges,
    /// Policies that hide rows.
    Policies,
    /// Triggers and rules.
    Triggers,
    /// Logical replication.
    Publications,
    Constraints,
    Indexes,
}

/// Something about a table that stands in a relay's way. `Display` is a sentence about the table.
#[derive(Debug)]
pub struct Mistake {
    pub about: Aspect,
    pub problem: String,
    /// Where it is not said by the problem.
    pub remedy: Option<String>,
}

impl Mistake {
    fn new(about: Aspect, problem: impl Into<String>) -> Mistake {
        Mistake {
            about,
            problem: problem.into(),
            remedy: None,
        }
    }

    fn mended_by(self, remedy: impl Into<String>) -> Mistake {
        Mistake {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)?;
        match &self.remedy {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

/// All that is wrong.
#[derive(Debug, Default)]
struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// A mistake about columns.
    fn add(&mut self, mistake: String) {
        self.0.push(Mistake::new(Aspect::Columns, mistake));
    }

    /// The value, or nothing and its mistake about columns noted.
    fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|mistake| self.add(mistake)).ok()
    }

    fn extend(&mut self, mistakes: Vec<Mistake>) {
        self.0.extend(mistakes);
    }

    /// The table, if there is one of this name.
    async fn table(
        &mut self,
        session: &mut Session,
        name: &TableName,
    ) -> Result<Option<Table>, DbError> {
        let table = Table::read(session, name).await?;
        let problem = match table.as_ref().map(Table::is_table) {
            Some(Ok(())) => return Ok(table),
            Some(Err(kind)) => format!("is {kind}, must be a table"),
            None => "does not exist".to_owned(),
        };
        self.0.push(Mistake::new(Aspect::Table, problem));
        Ok(None)
    }

    /// Where the ids come from, and what keeps the role from the rows.
    async fn obstacles(
        &mut self,
        session: &mut Session,
        table: &Table,
        id: Option<&Column>,
        usage: &Usage,
    ) -> Result<(), DbError> {
        let mut sequence = None;
        if let Some(id) = id {
            match Sequence::look_up(session, &table.name, &id.name).await? {
                Ok(found) => sequence = Some(found.oid()),
                Err(problem) => self.0.push(Mistake::new(Aspect::Ids, problem)),
            }
        }
        self.extend(obstacles::find(session, table, sequence, usage).await?);
        Ok(())
    }

    fn of(self, table: &TableName) -> DbError {
        let mistakes: Vec<String> = self.0.iter().map(Mistake::to_string).collect();
        DbError::Schema(format!("table {table}: {}", mistakes.join("; ")))
    }
}

/// A mapping beside the table that it should fit.
struct Comparison<'a> {
    asked: &'a Asked<'a>,
    table: &'a Table,
}

impl Comparison<'_> {
    /// The shape, if every column is there and of a type that fits.
    fn shape(&self, mistakes: &mut Mistakes) -> Option<Shape> {
        let columns = self.columns(mistakes);
        for field in [Field::Id, Field::EventId] {
            if let Some(column) = self.mapped(field).filter(|column| !column.not_null) {
                let (name, option) = (&column.name, option(field));
                mistakes.add(format!("column {name:?} ({option}) must be not null"));
            }
        }
        let sending = Sending::read(self.asked, self.table, mistakes)?;
        let (id, event_id) = (self.mapped(Field::Id)?, self.mapped(Field::EventId)?);
        let is_uuid = event_id.kind == Type::Uuid;
        let mut columns = columns?;
        if !is_uuid {
            let fingerprint = self.fingerprint(event_id);
            columns.push(Selected::new("fingerprint", fingerprint, Length::Short));
        }
        Some(Shape {
            table: self.table.name.clone(),
            id_column: id.name.clone(),
            id: id.sql(),
            id_value: format!("{}::bigint", id.sql()),
            fingerprint: match is_uuid {
                true => event_id.sql(),
                false => self.fingerprint(event_id),
            },
            columns,
            other_columns: 0,
            created_at: self
                .mapped(Field::CreatedAt)
                .map(|column| column.as_timestamptz()),
            unsent: sending.unsent,
            is_sent: sending.is_sent,
            mark: sending.mark,
            sent: sending.sent,
            form: RowForm::Mapped {
                uuid: is_uuid,
                payload: self.payload(),
            },
        })
    }

    /// The column of a field, if it has one.
    fn mapped(&self, field: Field) -> Option<&Column> {
        let name = self.asked.mapping.columns.get(field)?;
        self.table.column(name.as_str())
    }

    /// The select list, in the order of outboxd's own fields, then the content type. What the table has not
    /// is null.
    fn columns(&self, mistakes: &mut Mistakes) -> Option<Vec<Selected>> {
        let own = [
            Field::Id,
            Field::EventId,
            Field::AggregateType,
            Field::AggregateId,
            Field::EventType,
            Field::EventVersion,
            Field::Payload,
            Field::PayloadBytes,
            Field::CorrelationId,
            Field::CausationId,
            Field::Traceparent,
            Field::Tracestate,
            Field::Headers,
            Field::Topic,
            Field::PartitionKey,
            Field::CreatedAt,
            Field::ContentType,
        ];
        let columns: Vec<Option<Selected>> = own
            .into_iter()
            .map(|field| match self.asked.mapping.columns.get(field) {
                None => Some(Selected::new(
                    field.name(),
                    "null".to_owned(),
                    Length::Short,
                )),
                Some(name) => {
                    let column = self.table.typed(name, &option(field), types::of(field));
                    Some(types::select(field, mistakes.take(column)?))
                }
            })
            .collect();
        columns.into_iter().collect()
    }

    fn payload(&self) -> PayloadForm {
        let kind = self.mapped(Field::Payload).map(|column| column.kind);
        let is_json = matches!(kind, Some(Type::Json | Type::Jsonb));
        match self.asked.mapping.payload_encoding {
            PayloadEncoding::Auto if is_json => PayloadForm::Json,
            PayloadEncoding::Auto if kind == Some(Type::Bytea) => PayloadForm::Bytes,
            PayloadEncoding::Auto => PayloadForm::Text,
            PayloadEncoding::Json if is_json => PayloadForm::Json,
            PayloadEncoding::Json => PayloadForm::UncheckedJson,
            PayloadEncoding::Text => PayloadForm::Text,
            PayloadEncoding::Bytes => PayloadForm::Bytes,
        }
    }

    /// Sixteen bytes that stand for an event id that is not a UUID. If the id of the event is its place in
    /// the table, its time belongs to it: after a crash of Postgres the sequence can draw an id again, for
    /// another row. SHA-256, because MD5 fails where FIPS is asked for.
    fn fingerprint(&self, event_id: &Column) -> String {
        let bytes = match (
            self.asked.mapping.columns.id == self.asked.mapping.columns.event_id,
            self.mapped(Field::CreatedAt),
        ) {
            (true, Some(created_at)) => format!(
                "int8send({}::bigint) || coalesce(timestamptz_send({}), '')",
                event_id.sql(),
                created_at.as_timestamptz()
            ),
            _ => format!("convert_to({}::text, 'UTF8')", event_id.sql()),
        };
        format!("encode(substring(sha256({bytes}) from 1 for 16), 'hex')::uuid")
    }
}

/// Where the mapping names a field's column.
fn option(field: Field) -> String {
    format!("columns.{}", field.name())
}
