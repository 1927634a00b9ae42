//! What somebody wants of an outbox or a topic until it is taken back: pauses and bypassed breakers have one shape.

use std::marker::PhantomData;
use std::sync::Arc;

use sqlx::postgres::{PgRow, Postgres};
use sqlx::{Decode, Encode, Executor, Row, Type};

use super::{DbError, Session, rfc3339};

/// One that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish<T> {
    pub topic: T,
    /// RFC 3339 in UTC.
    pub since: String,
    pub by: String,
    pub why: Option<String>,
}

/// Who wants or decides something, and why.
#[derive(Debug, Clone, Default)]
pub struct Reason {
    /// Nothing: the session's user.
    pub who: Option<String>,
    pub why: Option<String>,
}

/// One kind of them.
pub(super) struct Kind {
    /// What one is called, and several are, for errors.
    pub one: &'static str,
    pub several: &'static str,
    /// The table of those in force, with its condition.
    pub in_force: &'static str,
    /// The function that notes one.
    pub note: &'static str,
    /// The function that takes it back.
    pub take_back: &'static str,
}

/// The statements on the wishes of one kind for one outbox, named as in its lease. `T` is what they are about: a
/// topic, or perhaps none.
#[derive(Debug, Clone)]
pub struct Wishes<T> {
    outbox: String,
    one: &'static str,
    several: &'static str,
    list: Arc<str>,
    note: Arc<str>,
    take_back: Arc<str>,
    topic: PhantomData<T>,
}

impl<T> Wishes<T>
where
    T: Clone + Send + Type<Postgres> + 'static,
    T: for<'q> Encode<'q, Postgres> + for<'r> Decode<'r, Postgres>,
{
    pub(super) fn of(kind: &Kind, relay_schema: &str, outbox: &str) -> Wishes<T> {
        let s = format!("\"{relay_schema}\"");
        let since = rfc3339("since");
        let Kind { in_force, note, .. } = kind;
        Wishes {
            outbox: outbox.to_owned(),
            one: kind.one,
            several: kind.several,
            list: format!(
                "select topic, {since} as since, by, why \
                 from {s}.{in_force} and outbox = $1 order by topic nulls first"
            )
            .into(),
            note: format!("select {s}.{note}($1, $2, $3, coalesce($4, session_user::text))").into(),
            take_back: format!("select {s}.{}($1, $2)", kind.take_back).into(),
            topic: PhantomData,
        }
    }

    /// Those in force, in the order of their topics; one without a topic first.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn list(&self, session: &mut Session) -> Result<Vec<Wish<T>>, DbError> {
        let query = session.query(&self.list).bind(self.outbox.clone());
        let rows = session.connection().fetch_all(query).await;
        let wish = |row: &PgRow| {
            Ok(Wish {
                topic: row.try_get("topic")?,
                since: row.try_get("since")?,
                by: row.try_get("by")?,
                why: row.try_get("why")?,
            })
        };
        rows.and_then(|rows| rows.iter().map(wish).collect())
            .map_err(self.action("listing", self.several))
    }

    /// Notes one; false if it was in force before, which then stays as it is.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn note(
        &self,
        session: &mut Session,
        topic: &T,
        reason: &Reason,
    ) -> Result<bool, DbError> {
        let query = session
            .query(&self.note)
            .bind(self.outbox.clone())
            .bind(topic.clone())
            .bind(reason.why.clone())
            .bind(reason.who.clone());
        let row = session.fetch_one(query).await;
        row.and_then(|row| row.try_get(0))
            .map_err(self.action("noting", self.one))
    }

    /// Takes one back; false if none was in force.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn take_back(&self, session: &mut Session, topic: &T) -> Result<bool, DbError> {
        let query = session
            .query(&self.take_back)
            .bind(self.outbox.clone())
            .bind(topic.clone());
        let row = session.fetch_one(query).await;
        row.and_then(|row| row.try_get(0))
            .map_err(self.action("taking back", self.one))
    }

    fn action(&self, verb: &str, what: &str) -> impl FnOnce(sqlx::Error) -> DbError {
        DbError::query(format!("{verb} {what} of {}", self.outbox))
    }
}
