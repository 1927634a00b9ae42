//! Which parked rows have been copied to a topic for dead letters.

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{Executor, Row};

use super::{DbError, Session};
use crate::event::EventRef;

/// A parked row that was not copied yet.
#[derive(Debug, Clone)]
pub struct Uncopied {
    pub event: EventRef,
    pub topic: String,
    pub key: Option<Vec<u8>>,
    pub class: String,
    /// Nobody died of it, and Postgres could read it.
    pub is_readable: bool,
    pub reason: String,
    pub attempts: i32,
    /// In microseconds since 1970: parked again, the row is to be copied again.
    parked_at_us: i64,
}

/// The statements about copies.
#[derive(Debug, Clone)]
pub struct Copies {
    uncopied: Arc<str>,
    copied: Arc<str>,
}

impl Copies {
    pub fn new(relay_schema: &str) -> Copies {
        let table = format!("\"{relay_schema}\".outboxd_parked");
        let parked_at = "(extract(epoch from p.parked_at) * 1000000)::bigint";
        Copies {
            uncopied: format!(
                "select p.id, p.event_id, p.topic, p.key, p.class, \
                        p.class not in ('crash', 'unreadable') as is_readable, p.reason, \
                        p.attempts, {parked_at} as parked_at_us \
                 from {table} p where p.outbox = $1 and p.copied_at is null and p.id > $2 order by p.id limit $3"
            )
            .into(),
            copied: format!(
                "update {table} p set copied_at = clock_timestamp() \
                 from unnest($2::bigint[], $3::uuid[], $4::bigint[]) as m (id, event_id, parked_at_us) \
                 where p.outbox = $1 and p.id = m.id and p.event_id = m.event_id and {parked_at} = m.parked_at_us"
            )
            .into(),
        }
    }

    /// The first rows above `after` that were not copied, in order.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn uncopied(
        &self,
        session: &mut Session,
        outbox: &str,
        after: i64,
        most: i64,
    ) -> Result<Vec<Uncopied>, DbError> {
        let query = session
            .query(&self.uncopied)
            .bind(outbox.to_owned())
            .bind(after)
            .bind(most);
        let rows = session.connection().fetch_all(query).await;
        rows.and_then(|rows| rows.iter().map(uncopied).collect())
            .map_err(DbError::query(format!(
                "looking for parked rows of {outbox} to copy"
            )))
    }

    /// Notes that these are copied, unless they were parked anew meanwhile.
    ///
    /// # Errors
    /// Whatever Postgres says; they are then copied again.
    pub async fn copied(
        &self,
        session: &mut Session,
        outbox: &str,
        rows: &[&Uncopied],
    ) -> Result<(), DbError> {
        let ids: Vec<i64> = rows.iter().map(|row| row.event.id).collect();
        let event_ids: Vec<uuid::Uuid> = rows.iter().map(|row| row.event.event_id).collect();
        let parked_at: Vec<i64> = rows.iter().map(|row| row.parked_at_us).collect();
        let query = session
            .query(&self.copied)
            .bind(outbox.to_owned())
            .bind(ids)
            .bind(event_ids)
            .bind(parked_at);
        let done = session.connection().execute(query).await;
        done.map(|_| ())
            .map_err(DbError::query(format!("noting copied rows of {outbox}")))
    }
}

fn uncopied(row: &PgRow) -> sqlx::Result<Uncopied> {
    Ok(Uncopied {
        event: EventRef {
            id: row.try_get("id")?,
            event_id: row.try_get("event_id")?,
        },
        topic: row.try_get("topic")?,
        key: row.try_get("key")?,
        class: row.try_get("class")?,
        is_readable: row.try_get("is_readable")?,
        reason: row.try_get("reason")?,
        attempts: row.try_get("attempts")?,
        parked_at_us: row.try_get("parked_at_us")?,
    })
}
