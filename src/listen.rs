//! LISTEN, opt-in: wakes an idle source as soon as an insert commits. Only a wake-up: the polls go on,
//! so a notification that is lost costs a poll interval and nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::db::DbError;
use crate::outage::Retry;
use crate::relay::Postgres;

/// The task that listens.
pub struct Listener {
    pub postgres: Arc<Postgres>,
    pub channel: String,
    pub wake: Arc<Notify>,
}

impl Listener {
    /// Listens until it is dropped.
    pub async fn run(self) {
        let mut retry = Retry::new(Duration::from_secs(5));
        loop {
            if let Err(error) = self.listen(&mut retry).await {
                self.postgres
                    .note(&error, &mut retry, "listening failed, polling goes on");
            }
            tokio::time::sleep(retry.next_wait()).await;
        }
    }

    async fn listen(&self, retry: &mut Retry) -> Result<(), DbError> {
        let failed = || DbError::query(format!("listening on channel {}", self.channel));
        let mut listener = self.postgres.database().listener().await?;
        listener.listen(&self.channel).await.map_err(failed())?;
        retry.reset();
        // What was inserted before we listened.
        self.wake.notify_one();
        loop {
            // Nothing: the connection was lost and made again, so something may have been missed.
            listener.try_recv().await.map_err(failed())?;
            self.wake.notify_one();
        }
    }
}
