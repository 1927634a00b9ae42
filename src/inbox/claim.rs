//! Claims, within the transaction of the effect.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, Executor, PgPool, Postgres, Row, Transaction};

use super::error::{InboxError, ProcessError};
use super::identity::{ConsumerName, Identity};
use super::sql::{IS_SOUND, Statements, is_identifier};
use super::tx::Tx;

/// What a claim came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "only a new event may take effect"]
pub enum Claim {
    /// It is yours: do what it asks for, and commit both together.
    New,
    /// It took effect before, or was dead-lettered. Skip it.
    Duplicate,
    /// It is older than anything still remembered: nobody can tell whether it took effect. Never do it;
    /// hand it to a person.
    Expired,
}

/// What [`Inbox::process`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "an expired event did not take effect"]
pub enum Processed<T> {
    /// The handler ran; its effect is committed together with the claim.
    Done(T),
    /// As [`Claim::Duplicate`]; nothing ran.
    Duplicate,
    /// As [`Claim::Expired`]; nothing ran.
    Expired,
}

/// The claims of one consumer.
#[derive(Debug, Clone)]
pub struct Inbox {
    consumer: ConsumerName,
    pub(super) statements: Statements,
}

impl Inbox {
    /// With `processed_events` on the search path of the connections.
    pub fn new(consumer: ConsumerName) -> Inbox {
        Inbox {
            consumer,
            statements: Statements::new(None),
        }
    }

    /// With `processed_events` in this schema.
    ///
    /// # Errors
    /// When it is not of the form `[a-z_][a-z0-9_]*`.
    pub fn in_schema(consumer: ConsumerName, schema: &str) -> Result<Inbox, InboxError> {
        match is_identifier(schema) {
            false => Err(InboxError::Schema(schema.to_owned())),
            true => Ok(Inbox {
                consumer,
                statements: Statements::new(Some(schema)),
            }),
        }
    }

    pub fn consumer(&self) -> &ConsumerName {
        &self.consumer
    }

    /// Claims one event in the caller's transaction. It takes nothing else than a transaction, so that
    /// nobody claims outside the transaction of the effect by accident: a claim that is committed alone
    /// would lose the event if the process died before its effect.
    ///
    /// Commit with [`commit`], which notices a statement that failed unseen.
    ///
    /// ```no_run
    /// use outboxd::inbox::{self, Claim, Identity, Inbox};
    ///
    /// # async fn consume(inbox: Inbox, pool: sqlx::PgPool, event: Identity) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tx = pool.begin().await?;
    /// if inbox.claim(&mut tx, &event).await? == Claim::New {
    ///     sqlx::query("update accounts set cents = cents + 1").execute(&mut *tx).await?;
    ///     inbox::commit(tx).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Whatever Postgres says; the transaction is then to be rolled back. Cancelled, it is to be rolled
    /// back too.
    pub async fn claim(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        event: &Identity,
    ) -> Result<Claim, InboxError> {
        let action = || format!("claiming an event for consumer \"{}\"", self.consumer);
        let query = sqlx::query(AssertSqlSafe(self.statements.claim.clone()))
            .persistent(false)
            .bind(self.consumer.as_str())
            .bind(event.id.as_str())
            .bind(event.created_micros());
        let row = (&mut **tx)
            .fetch_one(query)
            .await
            .map_err(InboxError::query(action()))?;
        let answer: &str = row.try_get(0).map_err(InboxError::query(action()))?;
        parse(answer).ok_or_else(|| InboxError::Answer {
            action: action(),
            answer: answer.to_owned(),
        })
    }

    /// Claims many events in the caller's transaction, with one statement; the answers are in the order
    /// given. Of an event that is given more than once the first is answered as it is, the others as
    /// duplicates.
    ///
    /// The ids are claimed in sorted order, so that batches do not deadlock with each other. Claim once in
    /// a transaction, then run the handlers in the order of the events.
    ///
    /// ```no_run
    /// use outboxd::inbox::{self, Claim, Identity, Inbox};
    ///
    /// # async fn consume(inbox: Inbox, pool: sqlx::PgPool, events: Vec<Identity>) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tx = pool.begin().await?;
    /// let claims = inbox.claim_batch(&mut tx, &events).await?;
    /// for (event, claim) in events.iter().zip(claims) {
    ///     if claim == Claim::New {
    ///         sqlx::query("update accounts set cents = cents + 1").execute(&mut *tx).await?;
    ///     }
    /// }
    /// inbox::commit(tx).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Inbox::claim`].
    pub async fn claim_batch(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        events: &[Identity],
    ) -> Result<Vec<Claim>, InboxError> {
        let action = || {
            format!(
                "claiming {} events for consumer \"{}\"",
                events.len(),
                self.consumer
            )
        };
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let (ids, times): (Vec<&str>, Vec<Option<i64>>) = events
            .iter()
            .map(|event| (event.id.as_str(), event.created_micros()))
            .unzip();
        let query = sqlx::query(AssertSqlSafe(self.statements.claim_batch.clone()))
            .persistent(false)
            .bind(self.consumer.as_str())
            .bind(ids)
            .bind(times);
        let rows = (&mut **tx)
            .fetch_all(query)
            .await
            .map_err(InboxError::query(action()))?;
        let mut answers = HashMap::with_capacity(rows.len());
        for row in &rows {
            let id: &str = row.try_get(0).map_err(InboxError::query(action()))?;
            let answer: &str = row.try_get(1).map_err(InboxError::query(action()))?;
            answers.insert(id, answer);
        }
        events
            .iter()
            .map(|event| {
                let known = answers.get_mut(event.id.as_str());
                let answer = known.map_or("", |known| std::mem::replace(known, again(known)));
                parse(answer).ok_or_else(|| InboxError::Answer {
                    action: action(),
                    answer: answer.to_owned(),
                })
            })
            .collect()
    }

    /// Begins a transaction, claims the event, runs the handler in it if the event is new, and commits.
    /// A handler that fails frees the event: its claim is rolled back with it.
    ///
    /// ```no_run
    /// use outboxd::inbox::{Identity, Inbox, Processed};
    ///
    /// # async fn consume(inbox: Inbox, pool: sqlx::PgPool, event: Identity) -> Result<(), Box<dyn std::error::Error>> {
    /// let done = inbox
    ///     .process(&pool, &event, async |mut tx| {
    ///         sqlx::query("update accounts set cents = cents + 1").execute(&mut *tx).await?;
    ///         Ok::<_, sqlx::Error>("charged")
    ///     })
    ///     .await?;
    /// assert_eq!(done, Processed::Done("charged"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProcessError::Handler`] with the handler's own error; else [`ProcessError::Inbox`]. Nothing is
    /// committed, unless the connection was lost while the commit was under way: then the next claim of the
    /// event tells. Cancelled, it rolls back.
    pub async fn process<T, E>(
        &self,
        pool: &PgPool,
        event: &Identity,
        handler: impl AsyncFnOnce(Tx) -> Result<T, E>,
    ) -> Result<Processed<T>, ProcessError<E>> {
        let begin = pool.begin().await;
        let mut tx = begin.map_err(InboxError::query("beginning a transaction for an event"))?;
        match self.claim(&mut tx, event).await? {
            // Dropped, the transaction rolls back.
            Claim::Duplicate => Ok(Processed::Duplicate),
            Claim::Expired => Ok(Processed::Expired),
            Claim::New => {
                let (lease, lent) = Tx::lend(tx).await;
                let value = handler(lease).await.map_err(ProcessError::Handler)?;
                commit(lent.take_back().ok_or(InboxError::Kept)?).await?;
                Ok(Processed::Done(value))
            }
        }
    }
}

/// Commits a transaction with claims in it, unless one of its statements failed.
///
/// Postgres answers the commit of an aborted transaction with a rollback and no error. A handler that
/// swallows the error of a statement would so lose effect and claim while everything looks well, and the
/// event with them, once its offset is committed.
///
/// # Errors
/// [`InboxError::Aborted`], or whatever Postgres says.
pub async fn commit(mut tx: Transaction<'_, Postgres>) -> Result<(), InboxError> {
    match (&mut *tx).execute(IS_SOUND).await {
        Ok(_) => {}
        // in_failed_sql_transaction
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("25P02") => {
            return Err(InboxError::Aborted);
        }
        Err(error) => {
            return Err(InboxError::query(
                "checking a transaction before its commit",
            )(error));
        }
    }
    tx.commit()
        .await
        .map_err(InboxError::query("committing a transaction with claims"))
}

fn parse(answer: &str) -> Option<Claim> {
    match answer {
        "new" => Some(Claim::New),
        "duplicate" => Some(Claim::Duplicate),
        "expired" => Some(Claim::Expired),
        _ => None,
    }
}

/// The answer for a second copy within a batch.
fn again<'a>(first: &&'a str) -> &'a str {
    match *first {
        "new" => "duplicate",
        same => same,
    }
}
