//! Postgres as the tasks of a lane share it: connections on demand, one deadline, one voice in the log.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::status::Progress;
use crate::config::PostgresConfig;
use crate::db::lease::Leases;
use crate::db::{Database, DbError, Role, Session, TableName};
use crate::outage::{Outage, Retry, ServiceState, chain};

/// The configured Postgres.
#[derive(Debug)]
pub struct Postgres {
    database: Database,
    schema: String,
    deadline: Duration,
    outage: Arc<Outage>,
    /// Where errors are shown besides the log.
    progress: Option<Arc<Progress>>,
    pub(super) leases: Leases,
}

impl Postgres {
    /// # Errors
    /// When the URL cannot be used.
    pub fn new(config: &PostgresConfig) -> Result<Postgres, DbError> {
        let database = Database::new(config)?;
        Ok(Postgres {
            deadline: database.statement_deadline(),
            database,
            schema: config.schema.to_string(),
            outage: Arc::new(Outage::new("postgres")),
            progress: None,
            leases: Leases::new(config.schema.as_str()),
        })
    }

    /// The same for the tasks of one outbox: their errors show in its progress.
    pub fn of_outbox(&self, progress: Arc<Progress>) -> Postgres {
        Postgres {
            database: self.database.clone(),
            schema: self.schema.clone(),
            deadline: self.deadline,
            outage: Arc::clone(&self.outage),
            progress: Some(progress),
            leases: self.leases.clone(),
        }
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Where the relay's own tables are.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    pub fn is_down(&self) -> bool {
        self.outage.is_down()
    }

    pub fn state(&self) -> ServiceState {
        self.outage.state()
    }

    /// The connection in `slot`, made if there is none.
    ///
    /// # Errors
    /// When no server of the list can be used.
    pub(super) async fn session<'s>(
        &self,
        slot: &'s mut Option<Session>,
        table: &TableName,
        role: Role,
    ) -> Result<&'s mut Session, DbError> {
        if let Some(session) = slot {
            return Ok(session);
        }
        let session = self.database.connect(table.name.as_str(), role).await?;
        self.outage.note_up();
        Ok(slot.insert(session))
    }

    /// Gives `work` as long as a statement may take, and a little for the way. A connection whose work
    /// was cut off must not be used again.
    ///
    /// # Errors
    /// The work's, or that it took too long.
    pub(super) async fn deadline<T>(
        &self,
        action: &str,
        work: impl Future<Output = Result<T, DbError>>,
    ) -> Result<T, DbError> {
        match tokio::time::timeout(self.deadline, work).await {
            Ok(done) => done,
            Err(_) => Err(DbError::Timeout {
                action: action.to_owned(),
                seconds: self.deadline.as_secs_f64(),
            }),
        }
    }

    /// Logs an error where it is handled: an outage once for the whole process, anything else when it is
    /// news.
    pub(crate) fn note(&self, error: &DbError, retry: &mut Retry, message: &'static str) {
        let text = chain(error);
        if let Some(progress) = &self.progress {
            progress.note_error(&text);
        }
        if error.is_outage() {
            self.outage.note_down(&text);
            if error.is_for_somebody() {
                self.outage.note_cause(&text);
            }
        } else if retry.is_news(&text, Instant::now()) {
            tracing::warn!(error = text, "{message}");
        }
    }
}
