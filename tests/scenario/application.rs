//! The application: writers that insert events in their transactions, each key under its lock.
//!
//! Under the key's lock a writer also takes the key's next sequence number and stores it with the event's
//! id (`scenario_events`), so that the true order of a key is known without a look at the outbox's ids.
//! Both are rolled back with the event, so the committed numbers of a key are 1, 2, 3 and so on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::plan::{self, End, Key, SavepointFate, Transaction};

const SCHEMA: &str = "
    create table scenario_keys (
        number int primary key, last_sequence bigint not null default 0) with (fillfactor = 50);
    create table scenario_events (
        event_id uuid primary key, key int not null, sequence bigint not null,
        transaction bigint not null, number int not null);
";

const LOCK_BY_ROW: &str =
    "select last_sequence + 1 from scenario_keys where number = $1 for update";

const INSERT: &str = "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
     values ($1, $2, 'scenario.written', $3::json) returning event_id";

const APPEND: &str =
    "select outbox_append($1, $2, 'scenario.appended', $3::json, correlation_id => $2)";

const NUMBER: &str = "with next as (\
         update scenario_keys set last_sequence = last_sequence + 1 where number = $2 returning last_sequence) \
     insert into scenario_events (event_id, key, sequence, transaction, number) \
     select $1, $2, last_sequence, $3, $4 from next";

/// It breaks a check constraint, after it has drawn an id.
const FAIL: &str = "insert into outbox_events (aggregate_type, aggregate_id, event_type) values ('order', 'x', '')";

/// Prepared transactions that may be open at a time: they count for the whole server, which other tests
/// use as well.
const PREPARED_AT_A_TIME: usize = 8;

/// How long a writer tries to reach a server that is down: it only bounds a hang.
const PATIENCE: Duration = Duration::from_secs(180);

/// Between two attempts to reach it.
const POLL: Duration = Duration::from_millis(50);

/// What a writer knows of an event whose insert it has seen to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Committed,
    RolledBack,
    /// The connection broke before the answer to the commit.
    Unknown,
}

/// The fates of all events by their ids.
pub type Fates = HashMap<Uuid, Fate>;

/// Who writes, and how much.
#[derive(Debug, Clone)]
pub struct Application {
    pub url: String,
    pub seed: u64,
    pub keys: u32,
    pub writers: usize,
    pub transactions: u64,
    /// Whether the server goes down meanwhile, so that lost connections are no failure.
    pub outages: bool,
}

/// The writers at work. They write as many transactions as they are allowed to.
pub struct Writing {
    allowed: Arc<Semaphore>,
    given: u64,
    application: Arc<Application>,
    writers: JoinSet<Fates>,
}

impl Application {
    /// Makes its tables, beside the outbox.
    pub async fn create_tables(&self) {
        let mut connection = PgConnection::connect(&self.url).await.expect("connecting");
        connection.execute(SCHEMA).await.expect("making the tables");
        let keys = "insert into scenario_keys (number) select generate_series(0, $1 - 1)";
        let keys = sqlx::query(keys).bind(self.keys.cast_signed());
        connection.execute(keys).await.expect("making the keys");
    }

    /// Starts the writers, which wait for [`Writing::allow`].
    pub fn start(self) -> Writing {
        let application = Arc::new(self);
        let allowed = Arc::new(Semaphore::new(0));
        let next = Arc::new(AtomicU64::new(0));
        let prepared = Arc::new(Semaphore::new(PREPARED_AT_A_TIME));
        let mut writers = JoinSet::new();
        for _ in 0..application.writers {
            let writer = Writer {
                application: Arc::clone(&application),
                connection: None,
                prepared: Arc::clone(&prepared),
                committers: JoinSet::new(),
                fates: Fates::new(),
            };
            writers.spawn(writer.run(Arc::clone(&allowed), Arc::clone(&next)));
        }
        Writing {
            allowed,
            given: 0,
            application,
            writers,
        }
    }
}

impl Writing {
    /// Allows part `part` of `parts` of all transactions.
    pub fn allow(&mut self, part: u64, parts: u64) {
        let upto = self.application.transactions * part / parts;
        let more = upto.saturating_sub(self.given);
        self.given += more;
        self.allowed
            .add_permits(usize::try_from(more).expect("a number of transactions"));
    }

    /// Allows all that is left and waits until everything is written, and every prepared transaction
    /// ended.
    pub async fn finish(mut self) -> Fates {
        self.allow(1, 1);
        // Each writer ends when it gets a permit and no transaction is left.
        self.allowed.add_permits(self.application.writers);
        let mut fates = Fates::new();
        while let Some(writer) = self.writers.join_next().await {
            fates.extend(writer.expect("a writer failed"));
        }
        fates
    }
}

/// One writer with its connection.
struct Writer {
    application: Arc<Application>,
    connection: Option<PgConnection>,
    prepared: Arc<Semaphore>,
    committers: JoinSet<()>,
    fates: Fates,
}

impl Writer {
    async fn run(mut self, allowed: Arc<Semaphore>, next: Arc<AtomicU64>) -> Fates {
        loop {
            let permit = allowed.acquire().await;
            permit.expect("it is never closed").forget();
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.application.transactions {
                break;
            }
            self.write(number).await;
        }
        while let Some(committer) = self.committers.join_next().await {
            committer.expect("a committer failed");
        }
        self.fates
    }

    /// One transaction. A lost connection is its end; nothing is written twice.
    async fn write(&mut self, number: u64) {
        let (seed, keys) = (self.application.seed, self.application.keys);
        let planned = plan::transaction(seed, keys, number);
        // Before any lock is taken: whoever waits with locks could wait for somebody who needs them.
        let turn = match planned.end {
            End::Prepare { .. } => {
                let turn = Arc::clone(&self.prepared).acquire_owned().await;
                Some(turn.expect("it is never closed"))
            }
            End::Commit | End::Rollback => None,
        };
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.application.url).await,
        };
        let mut written = Vec::new();
        let body = self
            .write_events(&mut connection, &planned, number, &mut written)
            .await;
        let ended = match body {
            Ok(()) => end(&mut connection, planned.end, &self.gid(number)).await,
            Err(error) => Err((error, Fate::RolledBack)),
        };
        let fate = match ended {
            Ok(fate) => {
                self.connection = Some(connection);
                fate
            }
            Err((error, fate)) => {
                assert!(
                    self.application.outages && is_outage(&error),
                    "transaction {number}: {error}"
                );
                fate
            }
        };
        let fate = match (planned.end, turn) {
            (End::Prepare { commit, pause }, Some(turn)) if fate != Fate::RolledBack => {
                // When the answer was lost it may be prepared all the same, and keep its locks.
                self.end_prepared(number, commit, pause, turn);
                match (fate, commit) {
                    (Fate::Unknown, true) => Fate::Unknown,
                    (_, true) => Fate::Committed,
                    (_, false) => Fate::RolledBack,
                }
            }
            _ => fate,
        };
        self.fates.extend(written.into_iter().map(|id| (id, fate)));
    }

    fn gid(&self, number: u64) -> String {
        // Unique on a server that several scenarios share.
        format!("scenario-{:016x}-{number}", self.application.seed)
    }

    async fn write_events(
        &mut self,
        connection: &mut PgConnection,
        planned: &Transaction,
        number: u64,
        written: &mut Vec<Uuid>,
    ) -> sqlx::Result<()> {
        execute(connection, "begin").await?;
        for (event, &key) in planned.events.iter().enumerate() {
            if planned
                .savepoint
                .is_some_and(|savepoint| savepoint.first == event)
            {
                execute(connection, "savepoint part").await?;
            }
            let payload = plan::payload(self.application.seed, number, event);
            let event_id = insert(connection, key, payload).await?;
            written.push(event_id);
            let numbered = sqlx::query(NUMBER)
                .bind(event_id)
                .bind(key.0.cast_signed())
                .bind(number.cast_signed())
                .bind(i32::try_from(event).expect("at most five"));
            connection.execute(numbered).await?;
            if let Some(savepoint) = planned.savepoint.filter(|it| it.end == event + 1) {
                let undone = end_savepoint(connection, savepoint.fate).await?;
                if undone {
                    let undone =
                        written.split_off(written.len() - (savepoint.end - savepoint.first));
                    self.fates
                        .extend(undone.into_iter().map(|id| (id, Fate::RolledBack)));
                }
            }
        }
        if !planned.pause.is_zero() {
            tokio::time::sleep(planned.pause).await;
        }
        Ok(())
    }

    /// Ends a prepared transaction some time later, from another connection, whatever happens meanwhile.
    fn end_prepared(
        &mut self,
        number: u64,
        commit: bool,
        pause: Duration,
        turn: OwnedSemaphorePermit,
    ) {
        let verb = if commit { "commit" } else { "rollback" };
        let gid = self.gid(number);
        let (url, outages) = (self.application.url.clone(), self.application.outages);
        self.committers.spawn(async move {
            let _turn = turn;
            tokio::time::sleep(pause).await;
            let mut connection = connect(&url).await;
            let statement = format!("{verb} prepared '{gid}'");
            loop {
                match execute(&mut connection, &statement).await {
                    Ok(()) => return,
                    Err(error) if outages && is_outage(&error) => {
                        connection = connect(&url).await;
                    }
                    // It never was prepared, or the answer to an earlier attempt was lost.
                    Err(error) if outages && has_code(&error, "42704") => return,
                    Err(error) => panic!("{statement}: {error}"),
                }
            }
        });
    }
}

/// Inserts an event under its key's lock.
async fn insert(connection: &mut PgConnection, key: Key, payload: String) -> sqlx::Result<Uuid> {
    let statement = if key.is_locked_by_append() {
        APPEND
    } else {
        let lock = sqlx::query(LOCK_BY_ROW).bind(key.0.cast_signed());
        (&mut *connection).fetch_one(lock).await?;
        INSERT
    };
    let insert = sqlx::query(statement)
        .bind(key.aggregate_type())
        .bind(key.aggregate_id())
        .bind(payload);
    connection.fetch_one(insert).await?.try_get(0)
}

/// Ends a savepoint; whether what it covered is undone.
async fn end_savepoint(connection: &mut PgConnection, fate: SavepointFate) -> sqlx::Result<bool> {
    if fate == SavepointFate::Released {
        execute(connection, "release savepoint part").await?;
        return Ok(false);
    }
    if fate == SavepointFate::Failed {
        match execute(connection, FAIL).await {
            Err(error) if has_code(&error, "23514") => {}
            Err(error) => return Err(error),
            Ok(()) => panic!("the table took an event without a type"),
        }
    }
    execute(connection, "rollback to savepoint part").await?;
    Ok(true)
}

/// Ends a transaction. With an error comes what it means for the events.
async fn end(
    connection: &mut PgConnection,
    end: End,
    gid: &str,
) -> Result<Fate, (sqlx::Error, Fate)> {
    let (statement, fate, without_answer) = match end {
        End::Commit => ("commit".to_owned(), Fate::Committed, Fate::Unknown),
        End::Rollback => ("rollback".to_owned(), Fate::RolledBack, Fate::RolledBack),
        End::Prepare { .. } => (
            format!("prepare transaction '{gid}'"),
            Fate::Committed,
            Fate::Unknown,
        ),
    };
    match execute(connection, &statement).await {
        Ok(()) => Ok(fate),
        Err(error) => Err((error, without_answer)),
    }
}

async fn execute(connection: &mut PgConnection, statement: &str) -> sqlx::Result<()> {
    let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
    connection.execute(statement).await.map(|_| ())
}

/// Connects, however long the server is down.
async fn connect(url: &str) -> PgConnection {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match PgConnection::connect(url).await {
            Ok(connection) => return connection,
            Err(error) => assert!(
                is_outage(&error) && Instant::now() < deadline,
                "connecting: {error}"
            ),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether the connection is lost, or the server stops or starts.
fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| code.starts_with("57P") || code.starts_with("08")),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        _ => false,
    }
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    let error = error.as_database_error();
    error.is_some_and(|error| error.code().as_deref() == Some(code))
}
