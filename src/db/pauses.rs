//! What somebody has paused: an outbox, or one topic of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::{Executor, Row};

use super::{DbError, Session, rfc3339};

/// One pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Nothing: all of the outbox.
    pub topic: Option<String>,
    /// RFC 3339 in UTC.
    pub since: String,
    pub by: String,
    pub why: Option<String>,
}

/// What of an outbox is paused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paused {
    /// All of it.
    pub outbox: bool,
    pub topics: BTreeSet<String>,
}

impl Paused {
    pub fn covers(&self, topic: &str) -> bool {
        self.outbox || self.topics.contains(topic)
    }
}

impl FromIterator<Pause> for Paused {
    fn from_iter<T: IntoIterator<Item = Pause>>(pauses: T) -> Paused {
        let mut paused = Paused::default();
        for pause in pauses {
            match pause.topic {
                Some(topic) => drop(paused.topics.insert(topic)),
                None => paused.outbox = true,
            }
        }
        paused
    }
}

/// The statements on the pauses of one outbox, named as in its lease.
#[derive(Debug, Clone)]
pub struct Pauses {
    outbox: String,
    list: Arc<str>,
    pause: Arc<str>,
    resume: Arc<str>,
}

impl Pauses {
    pub fn new(relay_schema: &str, outbox: &str) -> Pauses {
        let s = format!("\"{relay_schema}\"");
        let since = rfc3339("since");
        Pauses {
            outbox: outbox.to_owned(),
            list: format!(
                "select topic, {since} as since, by, why \
                 from {s}.outboxd_pauses where outbox = $1 order by topic nulls first"
            )
            .into(),
            pause: format!("select {s}.outbox_pause($1, $2, $3, coalesce($4, session_user::text))")
                .into(),
            resume: format!("select {s}.outbox_resume($1, $2)").into(),
        }
    }

    /// All of them, that of the whole outbox first.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn list(&self, session: &mut Session) -> Result<Vec<Pause>, DbError> {
        let query = session.query(&self.list).bind(self.outbox.clone());
        let rows = session.connection().fetch_all(query).await;
        let pause = |row: &sqlx::postgres::PgRow| {
            Ok(Pause {
                topic: row.try_get("topic")?,
                since: row.try_get("since")?,
                by: row.try_get("by")?,
                why: row.try_get("why")?,
            })
        };
        rows.and_then(|rows| rows.iter().map(pause).collect())
            .map_err(self.action("listing the pauses of"))
    }

    /// Pauses the outbox or the topic; false if it was paused before, which then stays as it is. Without
    /// `who` it is the session's user.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn pause(
        &self,
        session: &mut Session,
        topic: Option<&str>,
        why: Option<&str>,
        who: Option<&str>,
    ) -> Result<bool, DbError> {
        let query = session
            .query(&self.pause)
            .bind(self.outbox.clone())
            .bind(topic.map(str::to_owned))
            .bind(why.map(str::to_owned))
            .bind(who.map(str::to_owned));
        let row = session.fetch_one(query).await;
        row.and_then(|row| row.try_get(0))
            .map_err(self.action("pausing"))
    }

    /// Lets the outbox or the topic go on; false if it was not paused.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn resume(
        &self,
        session: &mut Session,
        topic: Option<&str>,
    ) -> Result<bool, DbError> {
        let query = session
            .query(&self.resume)
            .bind(self.outbox.clone())
            .bind(topic.map(str::to_owned));
        let row = session.fetch_one(query).await;
        row.and_then(|row| row.try_get(0))
            .map_err(self.action("resuming"))
    }

    fn action(&self, verb: &str) -> impl FnOnce(sqlx::Error) -> DbError {
        DbError::query(format!("{verb} {}", self.outbox))
    }
}
