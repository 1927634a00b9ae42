//! Parked rows as a person sees them: which there are, and what is to become of them.
//!
//! What the relay does with both is in [`parked`](super::parked).

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Executor, Postgres, Row};

use super::parked::Decision;
use super::wishes::Reason;
use super::{DbError, Session, rfc3339};
use crate::event::EventRef;

/// Which parked rows of an outbox; nothing stands for all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub ids: Option<Vec<i64>>,
    pub topic: Option<String>,
    pub event_type: Option<String>,
    pub key: Option<String>,
    pub class: Option<String>,
    /// Is contained in the reason, in capitals or not.
    pub reason: Option<String>,
    /// Since it was parked.
    pub older_than: Option<Duration>,
}

/// The note about a parked row. Times are RFC 3339 in UTC.
#[derive(Debug, Clone)]
pub struct Note {
    pub event: EventRef,
    pub event_type: Option<String>,
    pub topic: String,
    pub key: Option<Vec<u8>>,
    pub class: String,
    pub reason: String,
    pub attempts: i32,
    pub first_failed_at: String,
    pub parked_at: String,
    /// To the topic for dead letters.
    pub copied_at: Option<String>,
    pub blocks_key: bool,
    /// What was decided and not yet acted upon.
    pub verdict: Option<Verdict>,
}

/// A decision as it stands in a note.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub decision: String,
    pub at: String,
    pub by: String,
    pub why: Option<String>,
}

/// The statements on the notes of one outbox, named as in its lease.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    outbox: String,
    page: Arc<str>,
    count: Arc<str>,
    ids: Arc<str>,
    decide: Arc<str>,
}

/// The first eight parameters: the outbox and a [`Filter`].
const CHOSEN: &str = "p.outbox = $1 and ($2::bigint[] is null or p.id = any($2)) \
     and ($3::text is null or p.topic = $3) and ($4::text is null or p.event_type = $4) \
     and ($5::bytea is null or p.key = $5) and ($6::text is null or p.class = $6) \
     and ($7::text is null or strpos(lower(p.reason), lower($7)) > 0) \
     and ($8::float8 is null or p.parked_at <= clock_timestamp() - make_interval(secs => $8))";

impl DeadLetters {
    pub fn new(relay_schema: &str, outbox: &str) -> DeadLetters {
        let s = format!("\"{relay_schema}\"");
        let time = |column: &str| format!("{} as {column}", rfc3339(&format!("p.{column}")));
        let times = ["first_failed_at", "parked_at", "copied_at", "decided_at"].map(time);
        DeadLetters {
            outbox: outbox.to_owned(),
            page: format!(
                "select p.id, p.event_id, p.event_type, p.topic, p.key, p.class, p.reason, p.attempts, \
                        p.blocks_key, p.decision, p.decided_by, p.decided_why, {} \
                 from {s}.outboxd_parked p where {CHOSEN} and p.id > $9 order by p.id limit $10",
                times.join(", ")
            )
            .into(),
            count: format!("select count(*) from {s}.outboxd_parked p where {CHOSEN} and p.id > $9").into(),
            ids: format!("select p.id from {s}.outboxd_parked p where {CHOSEN} order by p.id").into(),
            decide: format!(
                "select {s}.outbox_dead_decide($1, $2, $3, $4, coalesce($5, session_user::text))"
            )
            .into(),
        }
    }

    /// The chosen notes above `after`, in order, `most` of them.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn page(
        &self,
        session: &mut Session,
        filter: &Filter,
        after: i64,
        most: i64,
    ) -> Result<Vec<Note>, DbError> {
        let query = self
            .chosen(session, &self.page, filter)
            .bind(after)
            .bind(most);
        let rows = session.connection().fetch_all(query).await;
        rows.and_then(|rows| rows.iter().map(note).collect())
            .map_err(self.action("listing"))
    }

    /// How many are chosen above `after`.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn count(
        &self,
        session: &mut Session,
        filter: &Filter,
        after: i64,
    ) -> Result<i64, DbError> {
        let query = self.chosen(session, &self.count, filter).bind(after);
        let row = session.fetch_one(query).await;
        row.and_then(|row| row.try_get(0))
            .map_err(self.action("counting"))
    }

    /// The chosen rows' ids: at most as many as a relay parks.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn ids(&self, session: &mut Session, filter: &Filter) -> Result<Vec<i64>, DbError> {
        let query = self.chosen(session, &self.ids, filter);
        let rows = session.connection().fetch_all(query).await;
        rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
            .map_err(self.action("choosing"))
    }

    /// Notes a decision for the relay to act upon; returns how many of the rows are still parked.
    ///
    /// # Errors
    /// Whatever Postgres says; then nothing is decided.
    pub async fn decide(
        &self,
        session: &mut Session,
        ids: &[i64],
        decision: Decision,
        reason: &Reason,
    ) -> Result<i64, DbError> {
        let query = session
            .query(&self.decide)
            .bind(self.outbox.clone())
            .bind(ids.to_vec())
            .bind(decision.name())
            .bind(reason.why.clone())
            .bind(reason.who.clone());
        let row = session.fetch_one(query).await;
        row.and_then(|row| row.try_get(0))
            .map_err(self.action("deciding about"))
    }

    fn chosen(
        &self,
        session: &Session,
        sql: &Arc<str>,
        filter: &Filter,
    ) -> Query<'static, Postgres, PgArguments> {
        let filter = filter.clone();
        session
            .query(sql)
            .bind(self.outbox.clone())
            .bind(filter.ids)
            .bind(filter.topic)
            .bind(filter.event_type)
            .bind(filter.key.map(String::into_bytes))
            .bind(filter.class)
            .bind(filter.reason)
            .bind(filter.older_than.map(|age| age.as_secs_f64()))
    }

    fn action(&self, verb: &str) -> impl FnOnce(sqlx::Error) -> DbError {
        DbError::query(format!("{verb} the parked rows of {}", self.outbox))
    }
}

fn note(row: &PgRow) -> sqlx::Result<Note> {
    let decision: Option<String> = row.try_get("decision")?;
    Ok(Note {
        event: EventRef {
            id: row.try_get("id")?,
            event_id: row.try_get("event_id")?,
        },
        event_type: row.try_get("event_type")?,
        topic: row.try_get("topic")?,
        key: row.try_get("key")?,
        class: row.try_get("class")?,
        reason: row.try_get("reason")?,
        attempts: row.try_get("attempts")?,
        first_failed_at: row.try_get("first_failed_at")?,
        parked_at: row.try_get("parked_at")?,
        copied_at: row.try_get("copied_at")?,
        blocks_key: row.try_get("blocks_key")?,
        verdict: match decision {
            None => None,
            Some(decision) => Some(Verdict {
                decision,
                at: row.try_get("decided_at")?,
                by: row.try_get("decided_by")?,
                why: row.try_get("decided_why")?,
            }),
        },
    })
}
