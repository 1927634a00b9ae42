//! Breakers that somebody has bypassed: the topic's refused rows are parked all the same, until it takes one.

use std::sync::Arc;

use sqlx::{Executor, Row};

use super::lease::{Fence, fenced, with_fence};
use super::{DbError, Session, rfc3339};

/// One that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bypass {
    pub topic: String,
    /// RFC 3339 in UTC.
    pub since: String,
    pub by: String,
    pub why: Option<String>,
}

/// The statements on the bypasses of one outbox, named as in its lease.
#[derive(Debug, Clone)]
pub struct Bypasses {
    outbox: String,
    list: Arc<str>,
    begin: Arc<str>,
    stop: Arc<str>,
    end: Arc<str>,
}

impl Bypasses {
    pub fn new(relay_schema: &str, outbox: &str) -> Bypasses {
        let s = format!("\"{relay_schema}\"");
        let since = rfc3339("since");
        let fence = with_fence(relay_schema);
        Bypasses {
            outbox: outbox.to_owned(),
            list: format!(
                "select topic, {since} as since, by, why \
                 from {s}.outboxd_bypasses where outbox = $1 and ended_at is null order by topic"
            )
            .into(),
            begin: format!(
                "select {s}.outbox_dead_park($1, $2, $3, coalesce($4, session_user::text))"
            )
            .into(),
            stop: format!("select {s}.outbox_dead_park_stop($1, $2)").into(),
            end: format!(
                "{fence}, ended as (\
                     update {s}.outboxd_bypasses set ended_at = clock_timestamp() \
                     where outbox = $1 and topic = any ($5) and ended_at is null \
                       and exists (select from fence)) \
                 select exists (select from fence)"
            )
            .into(),
        }
    }

    /// Those in force.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn list(&self, session: &mut Session) -> Result<Vec<Bypass>, DbError> {
        let query = session.query(&self.list).bind(self.outbox.clone());
        let rows = session.connection().fetch_all(query).await;
        let bypass = |row: &sqlx::postgres::PgRow| {
            Ok(Bypass {
                topic: row.try_get("topic")?,
                since: row.try_get("since")?,
                by: row.try_get("by")?,
                why: row.try_get("why")?,
            })
        };
        rows.and_then(|rows| rows.iter().map(bypass).collect())
            .map_err(self.action("listing the bypassed breakers of"))
    }

    /// Bypasses the topic's breaker; false if it was before, which then stays as it is. Without `who` it is
    /// the session's user.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn begin(
        &self,
        session: &mut Session,
        topic: &str,
        why: Option<&str>,
        who: Option<&str>,
    ) -> Result<bool, DbError> {
        let query = session
            .query(&self.begin)
            .bind(self.outbox.clone())
            .bind(topic.to_owned())
            .bind(why.map(str::to_owned))
            .bind(who.map(str::to_owned));
        let row = session.fetch_one(query).await;
        row.and_then(|row| row.try_get(0))
            .map_err(self.action("bypassing a breaker of"))
    }

    /// Takes it back; false if it was not in force.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn stop(&self, session: &mut Session, topic: &str) -> Result<bool, DbError> {
        let query = session
            .query(&self.stop)
            .bind(self.outbox.clone())
            .bind(topic.to_owned());
        let row = session.fetch_one(query).await;
        row.and_then(|row| row.try_get(0))
            .map_err(self.action("arming a breaker of"))
    }

    /// Notes that these topics have taken a row; false if the lane is not ours any more, then nothing is.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn end(
        &self,
        session: &mut Session,
        fence: &Fence,
        topics: &[String],
    ) -> Result<bool, DbError> {
        let query = fenced(session, &self.end, fence).bind(topics.to_vec());
        let row = session.fetch_one(query).await;
        row.and_then(|row| row.try_get(0))
            .map_err(self.action("arming breakers of"))
    }

    fn action(&self, verb: &str) -> impl FnOnce(sqlx::Error) -> DbError {
        DbError::query(format!("{verb} {}", self.outbox))
    }
}
