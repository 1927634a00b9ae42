//! Rows that were sent and are still there, to be sent again.

use std::sync::Arc;

use sqlx::{Executor, Row};

use super::read::read;
use super::{Batch, BatchLimit, Outbox};
use crate::config::OutboxConfig;
use crate::db::shape::{RowForm, Selection, Shape, row};
use crate::db::{DbError, Session, TableName};
use crate::event::{CreatedAt, Event};

/// Which rows; nothing stands for all.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    pub ids: Option<Vec<i64>>,
    /// As Postgres writes them.
    pub event_ids: Option<Vec<String>>,
    pub key: Option<String>,
    pub event_type: Option<String>,
    pub correlation_id: Option<String>,
    /// When they were created: from this instant on, in microseconds since 1970.
    pub from_us: Option<i64>,
    /// Up to before this one.
    pub to_us: Option<i64>,
}

/// A part of a table, by id: above the first, up to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub after: i64,
    pub upto: i64,
}

/// The statements on the sent rows of one outbox. Rows that were discarded carry the same mark, and are
/// none of them.
#[derive(Debug, Clone)]
pub struct SentRows {
    table: TableName,
    form: RowForm,
    other_columns: usize,
    /// Rows have a time of creation.
    pub has_time: bool,
    oldest: Arc<str>,
    last: Arc<str>,
    step: Arc<str>,
    chosen: Arc<str>,
}

/// Rows that one statement looks through, whether they are chosen or not: it ends soon even where nearly
/// none is.
const STEP: i64 = 20_000;

impl SentRows {
    /// # Errors
    /// As [`Outbox::open`].
    pub async fn open(
        session: &mut Session,
        config: &OutboxConfig,
        relay_schema: &str,
        max_message_bytes: usize,
    ) -> Result<SentRows, DbError> {
        let shape = Outbox::shape(session, config).await?;
        Ok(SentRows::of(&shape, relay_schema, max_message_bytes))
    }

    fn of(shape: &Shape, relay_schema: &str, max_message_bytes: usize) -> SentRows {
        let (table, id, value) = (shape.table.quoted(), &shape.id, &shape.id_value);
        // Without a mark every row is unsent.
        let is_sent = shape.is_sent.as_deref().unwrap_or("false");
        let created_at = shape.created_at.as_deref().unwrap_or("null::timestamptz");
        let instant = |parameter| {
            format!("timestamptz 'epoch' + {parameter}::bigint * interval '1 microsecond'")
        };
        let (from, to) = (instant("$9"), instant("$10"));
        let selection = Selection::new(&shape.columns, max_message_bytes);
        let (fields, fingerprint) = (selection.fields(), &shape.fingerprint);
        let set_aside = |table: &str, condition: &str| {
            format!(
                "not exists (select from \"{relay_schema}\".{table} d where d.outbox = $4 \
                     and d.id = f.id and d.event_id = f.outboxd_fingerprint{condition})"
            )
        };
        let (discarded, parked) = (
            set_aside("outboxd_decisions", " and d.decision = 'discard'"),
            set_aside("outboxd_parked", ""),
        );
        SentRows {
            table: shape.table.clone(),
            form: shape.form,
            other_columns: shape.other_columns,
            has_time: shape.created_at.is_some(),
            oldest: format!(
                "select {value}, {created_at} from {table} e where {is_sent} order by {id} limit 1"
            )
            .into(),
            last: format!("select {value} from {table} e order by {id} desc limit 1").into(),
            step: format!(
                "select max(s.id) from (select {value} as id from {table} e \
                     where {id} > $1 and {id} <= $2 order by {id} limit {STEP}) s"
            )
            .into(),
            chosen: selection.of(&format!(
                "select f.* from (select {fields}, {fingerprint} as outboxd_fingerprint from {table} e \
                     where {is_sent} and {id} > $1 and {id} <= $2 and ($5::bigint[] is null or {id} = any($5)) \
                       and ($9::bigint is null or {created_at} >= {from}) \
                       and ($10::bigint is null or {created_at} < {to})) f \
                 where ($6::text[] is null or f.event_id::text = any($6)) \
                   and ($7::text is null or coalesce(f.partition_key, f.aggregate_id) = $7) \
                   and ($8::text is null or f.event_type = $8) \
                   and ($11::text is null or f.correlation_id = $11) \
                   and {discarded} and {parked} order by f.id limit $3"
            ))
            .into(),
        }
    }

    /// The first sent row, and when it was created.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn oldest(
        &self,
        session: &mut Session,
    ) -> Result<Option<(i64, Option<CreatedAt>)>, DbError> {
        let action = || DbError::query(format!("looking for the first sent row of {}", self.table));
        let query = session.query(&self.oldest);
        let found = session.connection().fetch_optional(query).await;
        let Some(found) = found.map_err(action())? else {
            return Ok(None);
        };
        let id = found.try_get(0).map_err(action())?;
        Ok(Some((id, row::created_at(&found, 1).map_err(action())?)))
    }

    /// The last id of the table.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn last(&self, session: &mut Session) -> Result<Option<i64>, DbError> {
        let query = session.query(&self.last);
        let row = session.connection().fetch_optional(query).await;
        row.and_then(|row| row.map(|row| row.try_get(0)).transpose())
            .map_err(DbError::query(format!(
                "looking for the last row of {}",
                self.table
            )))
    }

    /// The first chosen rows of `span`, in order. Returns them and where the rest of the span begins;
    /// nothing when there is no rest.
    ///
    /// # Errors
    /// Whatever Postgres says. Must not be cancelled, or the connection has to drain.
    pub async fn read<T>(
        &self,
        session: &mut Session,
        choice: &Choice,
        span: Span,
        limit: BatchLimit,
        outbox: &str,
        mut take: impl FnMut(&Event<'_>) -> T,
    ) -> Result<(Vec<T>, Option<i64>), DbError> {
        let action = || DbError::query(format!("reading the sent rows of {}", self.table));
        let end = match choice.ids {
            // They are looked up.
            Some(_) => Some(span.upto),
            None => self.end_of_step(session, span).await.map_err(action())?,
        };
        let Some(end) = end else {
            return Ok((Vec::new(), None));
        };
        let choice = choice.clone();
        let query = session
            .query(&self.chosen)
            .bind(span.after)
            .bind(end)
            .bind(limit.rows as i64)
            .bind(outbox.to_owned())
            .bind(choice.ids)
            .bind(choice.event_ids)
            .bind(choice.key)
            .bind(choice.event_type)
            .bind(choice.from_us)
            .bind(choice.to_us)
            .bind(choice.correlation_id);
        let mut last = end;
        let take = |event: &Event<'_>| {
            last = event.reference.id;
            take(event)
        };
        let Batch { rows, full } =
            read(session, query, (self.form, self.other_columns), limit, take)
                .await
                .map_err(action())?;
        let reached = if full { last } else { end };
        Ok((rows, (reached < span.upto).then_some(reached)))
    }

    async fn end_of_step(&self, session: &mut Session, span: Span) -> sqlx::Result<Option<i64>> {
        let query = session.query(&self.step).bind(span.after).bind(span.upto);
        session.fetch_one(query).await?.try_get(0)
    }
}
