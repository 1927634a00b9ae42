//! What became of an event besides being claimed: set aside as a dead letter, sent back, given up.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{AssertSqlSafe, Executor, PgConnection, Postgres, Row, Transaction};

use super::error::InboxError;
use super::identity::{ConsumerName, EventId};
use super::sql::is_identifier;

/// The column `outcome` of `processed_events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Processed,
    /// On the dead-letter topic, waiting for a person.
    DeadLettered,
    /// Sent back: the next claim answers new.
    Redriven,
    /// Given up by a person.
    Discarded,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Processed => "processed",
            State::DeadLettered => "dead_lettered",
            State::Redriven => "redriven",
            State::Discarded => "discarded",
        }
    }

    fn parse(text: &str) -> Option<State> {
        let states = [
            State::Processed,
            State::DeadLettered,
            State::Redriven,
            State::Discarded,
        ];
        states.into_iter().find(|state| state.as_str() == text)
    }
}

/// The states of one consumer's events.
#[derive(Debug, Clone)]
pub struct Outcomes {
    consumer: ConsumerName,
    dead_letter: Arc<str>,
    states: Arc<str>,
    change: Arc<str>,
}

impl Outcomes {
    /// `schema`: none leaves it to the connection's search path.
    ///
    /// # Errors
    /// When the schema is not of the form `[a-z_][a-z0-9_]*`.
    pub fn new(consumer: ConsumerName, schema: Option<&str>) -> Result<Outcomes, InboxError> {
        let prefix = match schema {
            Some(schema) if !is_identifier(schema) => {
                return Err(InboxError::Schema(schema.to_owned()));
            }
            Some(schema) => format!("\"{schema}\"."),
            None => String::new(),
        };
        Ok(Outcomes {
            consumer,
            dead_letter: format!(
                "insert into {prefix}processed_events as p (consumer, event_id, outcome) \
                 values ($1, $2, 'dead_lettered') \
                 on conflict (consumer, event_id) do update \
                 set outcome = 'dead_lettered', processed_at = clock_timestamp() \
                 where p.outcome = 'redriven'"
            )
            .into(),
            states: format!(
                "select event_id, outcome from {prefix}processed_events \
                 where consumer = $1 and event_id = any ($2)"
            )
            .into(),
            change: format!(
                "update {prefix}processed_events \
                 set outcome = $3, processed_at = clock_timestamp() \
                 where consumer = $1 and event_id = $2 and outcome in ('dead_lettered', 'redriven')"
            )
            .into(),
        })
    }

    /// Records, in the caller's transaction, that the event is a dead letter; false if it took effect or
    /// was recorded already. Waits for whoever claims it at the moment.
    ///
    /// # Errors
    /// Whatever Postgres says; the transaction is then to be rolled back.
    pub async fn dead_letter(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        id: &EventId,
    ) -> Result<bool, InboxError> {
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.dead_letter)))
            .persistent(false)
            .bind(self.consumer.as_str())
            .bind(id.as_str());
        let done = (&mut **tx).execute(query).await;
        let done = done.map_err(InboxError::query("recording a dead letter"))?;
        Ok(done.rows_affected() == 1)
    }

    /// The states of the events that are known.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn states(
        &self,
        connection: &mut PgConnection,
        ids: &[&str],
    ) -> Result<HashMap<String, State>, InboxError> {
        let action = "asking for the states of events";
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.states)))
            .persistent(false)
            .bind(self.consumer.as_str())
            .bind(ids);
        let rows = connection.fetch_all(query).await;
        let rows = rows.map_err(InboxError::query(action))?;
        let mut states = HashMap::with_capacity(rows.len());
        for row in rows {
            let id: String = row.try_get(0).map_err(InboxError::query(action))?;
            let state: &str = row.try_get(1).map_err(InboxError::query(action))?;
            let known = State::parse(state).ok_or_else(|| InboxError::Answer {
                action: action.to_owned(),
                answer: state.to_owned(),
            })?;
            states.insert(id, known);
        }
        Ok(states)
    }

    /// Gives a dead letter another state; false if it is none.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn change(
        &self,
        connection: &mut PgConnection,
        id: &str,
        state: State,
    ) -> Result<bool, InboxError> {
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.change)))
            .persistent(false)
            .bind(self.consumer.as_str())
            .bind(id)
            .bind(state.as_str());
        let done = connection.execute(query).await;
        let done = done.map_err(InboxError::query("changing the state of a dead letter"))?;
        Ok(done.rows_affected() == 1)
    }
}
