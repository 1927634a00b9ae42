//! The transaction of a claim, lent to a handler.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::{PgConnection, Postgres, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The transaction in which an event was claimed, lent to its handler: statements run on `&mut *tx`.
///
/// It is owned, not borrowed, so that a handler is a plain `async fn` whose future can change threads. It
/// offers neither commit nor rollback, and a handler must not send them as SQL; whoever lent it ends it,
/// once the handler has returned and the lease is over. A handler that keeps it longer fails: [`InboxError::Kept`](super::InboxError::Kept).
#[derive(Debug)]
pub struct Tx(OwnedMutexGuard<Transaction<'static, Postgres>>);

/// What is left with the lender.
#[derive(Debug)]
pub(super) struct Lent(Arc<Mutex<Transaction<'static, Postgres>>>);

impl Tx {
    pub(super) async fn lend(transaction: Transaction<'static, Postgres>) -> (Tx, Lent) {
        let home = Arc::new(Mutex::new(transaction));
        // Nobody else knows of it yet: this does not wait.
        let guard = Arc::clone(&home).lock_owned().await;
        (Tx(guard), Lent(home))
    }
}

impl Lent {
    /// The transaction, or nothing while it is still lent. Then it rolls back as soon as it is not.
    pub(super) fn take_back(self) -> Option<Transaction<'static, Postgres>> {
        Arc::try_unwrap(self.0).ok().map(Mutex::into_inner)
    }
}

impl Deref for Tx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}
