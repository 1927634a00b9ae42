//! The transaction of effects: begun with what protects it, lent to handlers, ended by the consumer alone.

use std::time::Duration;

use sqlx::{Executor as _, PgPool, Postgres, Row as _, Transaction};

use super::failure::Failure;
use crate::inbox::commit;
use crate::outage::chain;

/// A commit runs the query of a cursor `with hold` to its end, and this one fails: who does not close it
/// first cannot commit. So nothing is committed by a handler that sends `commit`, and one that ends the
/// transaction in any way is found out, because the cursor ends with it.
const BEGIN: &str = "begin; declare outboxd_effects no scroll cursor with hold for \
     select ('the handler must not commit its transaction, which is the consumer''s, in process ' \
             || pg_backend_pid())::integer";

const UNLOCK: &str = "close outboxd_effects";

/// How long a claim waits for somebody else's of the same event, which is as long as their handler takes,
/// or for ever if they are frozen. Then the others of the batch go on without it.
const CLAIM_PATIENCE: &str = "1s";

/// A statement of a handler that ran out of time would else go on in the server, with the claims and a
/// connection of the pool; so it is bounded, unless it is already.
const SETTINGS: &str = "with usual as materialized (select current_setting('lock_timeout') as lock_timeout) \
     select usual.lock_timeout, set_config('lock_timeout', $1, true), \
            case current_setting('statement_timeout') \
            when '0' then set_config('statement_timeout', $2, true) end \
     from usual";

/// A transaction that waits for locks as long as a claim may; and how long it would wait else, for the
/// handlers.
pub(super) async fn begin(
    pool: &PgPool,
    handler_timeout: Duration,
) -> Result<(Transaction<'static, Postgres>, String), Failure> {
    let begin = async {
        let mut tx = pool.begin_with(BEGIN).await?;
        let settings = sqlx::query(SETTINGS)
            .persistent(false)
            .bind(CLAIM_PATIENCE)
            .bind(format!("{}ms", handler_timeout.as_millis()));
        let usual = settings.fetch_one(&mut *tx).await?.try_get(0)?;
        Ok((tx, usual))
    };
    let begun = begin.await;
    begun.map_err(|error: sqlx::Error| Failure::Outage(chain(&error)))
}

/// Until the end of the transaction.
pub(super) async fn set_patience(
    tx: &mut Transaction<'static, Postgres>,
    lock_timeout: &str,
) -> Result<(), Failure> {
    sqlx::query("select set_config('lock_timeout', $1, true)")
        .persistent(false)
        .bind(lock_timeout)
        .execute(&mut **tx)
        .await
        .map(|_| ())
        .map_err(|error| Failure::of_query(&error))
}

/// Commits what [`begin`] began, if it is still there and sound.
pub(super) async fn end(mut tx: Transaction<'static, Postgres>) -> Result<(), Failure> {
    match tx.execute(UNLOCK).await {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(NO_CURSOR) => {
            Err(Failure::Ended)
        }
        // Whatever else is wrong is wrong for the commit, too.
        _ => commit(tx).await.map_err(Failure::of_commit),
    }
}

/// `invalid_cursor_name`
const NO_CURSOR: &str = "34000";
