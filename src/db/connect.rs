//! Connections: which server, with which settings, alone or behind a pooler.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnection, PgListener, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Postgres, Row};

use super::servers::{Server, Servers};
use super::{DbError, POOLER_HINT};
use crate::config::{Pooler, PostgresConfig};

/// What a connection is for; it decides the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Scans the unsent rows.
    Reader,
    /// Marks; its commits need not wait for the disk, since a lost mark only repeats an event.
    Marker,
    Lease,
    Janitor,
    /// Parks rows; what it writes must outlast a crash.
    Parker,
    /// Counts for the metrics.
    Gauge,
    /// Does what somebody asked for on the command line.
    Command,
    /// Looks whether everything is as it must be, in transactions that can write nothing.
    Check,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Reader => "reader",
            Role::Marker => "marker",
            Role::Lease => "lease",
            Role::Janitor => "janitor",
            Role::Parker => "parker",
            Role::Gauge => "gauge",
            Role::Command => "command",
            Role::Check => "check",
        }
    }

    /// The planner's choice is taken from it where only one plan is ever right: statistics of a queue's
    /// table are always out of date, and one sequential scan of a large outbox, or a sort of its backlog,
    /// would stall the lane.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Role::Check => &[
                ("transaction_read_only", "on"),
                ("enable_seqscan", "off"),
                ("enable_bitmapscan", "off"),
                ("enable_sort", "off"),
            ],
            Role::Reader | Role::Gauge | Role::Command => &[
                ("enable_seqscan", "off"),
                ("enable_bitmapscan", "off"),
                ("enable_sort", "off"),
            ],
            Role::Marker => &[
                ("synchronous_commit", "off"),
                ("enable_seqscan", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
            ],
            Role::Janitor => &[("synchronous_commit", "off"), ("enable_seqscan", "off")],
            Role::Parker => &[
                ("enable_seqscan", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
            ],
            Role::Lease => &[],
        }
    }
}

/// The configured server, to connect to again and again.
#[derive(Debug, Clone)]
pub struct Database {
    servers: Servers,
    /// Past the pooler; none: `servers`.
    direct_servers: Option<Servers>,
    pooled: bool,
    connect_timeout: Duration,
    statement_timeout: Duration,
    lock_timeout: Duration,
}

impl Database {
    /// # Errors
    /// When a URL has a parameter that sqlx does not understand.
    pub fn new(config: &PostgresConfig) -> Result<Database, DbError> {
        let pooled = config.pooler == Pooler::Transaction;
        let servers = Servers::new(&config.url, config.url_file.as_ref(), pooled)?;
        let direct_servers = match &config.direct_url {
            Some(url) => {
                let file = config.direct_url_file.as_ref();
                Some(Servers::new(url, file, false)?)
            }
            None => None,
        };
        Ok(Database {
            servers,
            direct_servers,
            pooled,
            connect_timeout: config.connect_timeout,
            statement_timeout: config.statement_timeout,
            lock_timeout: config.lock_timeout,
        })
    }

    /// Servers beyond this machine whose certificate is not verified, with the option that names them, the host and
    /// the sslmode.
    ///
    /// # Errors
    /// When the file that holds the option cannot be used.
    pub fn unverified(&self) -> Result<Vec<(&'static str, String, &'static str)>, DbError> {
        let mut found = Vec::new();
        let direct = self.direct_servers.as_ref();
        for (option, servers) in [
            ("postgres.url", Some(&self.servers)),
            ("postgres.direct_url", direct),
        ] {
            let servers = servers.map(Servers::unverified).transpose()?;
            let unverified = servers.into_iter().flatten();
            found.extend(unverified.map(|(host, mode)| (option, host, mode)));
        }
        Ok(found)
    }

    /// How long a caller waits for a statement before it gives the connection up: what the server
    /// allows itself, and the time to say so.
    pub fn statement_deadline(&self) -> Duration {
        self.statement_timeout + self.connect_timeout
    }

    /// Connects to the first server of the list that answers and is not in recovery, as `outbox` and
    /// `role` for its `application_name`.
    ///
    /// # Errors
    /// The last server's, if none can be used. Cancel-safe: a connection in the making is closed.
    pub async fn connect(&self, outbox: &str, role: Role) -> Result<Session, DbError> {
        // A check must leave nothing behind, not even behind a pooler that nobody has told of.
        let in_transactions = self.pooled || role == Role::Check;
        let settings: String = [
            ("default_transaction_isolation", "read committed"),
            ("jit", "off"),
        ]
        .iter()
        .chain(role.settings())
        .map(|(name, value)| (*name, (*value).to_owned()))
        .chain([
            (
                "statement_timeout",
                self.statement_timeout.as_millis().to_string(),
            ),
            ("lock_timeout", self.lock_timeout.as_millis().to_string()),
            (
                "idle_in_transaction_session_timeout",
                self.statement_timeout.as_millis().to_string(),
            ),
        ])
        .map(|(name, value)| match in_transactions {
            true => format!("set local {name} = '{value}'; "),
            false => format!("set {name} = '{value}'; "),
        })
        .collect();
        let mut connection = self
            .first_primary(&self.servers, &format!("outboxd {outbox} {}", role.name()))
            .await?;
        if in_transactions {
            let preamble = format!(
                "begin isolation level read committed; {settings}\
                 select extract(epoch from backend_start)::float8, extract(epoch from clock_timestamp())::float8 \
                 from pg_stat_get_activity(pg_backend_pid())"
            );
            return Ok(Session {
                connection,
                preamble: Some(preamble.into()),
            });
        }
        (&mut connection)
            .execute(sqlx::raw_sql(AssertSqlSafe(settings)))
            .await
            .map_err(DbError::query("preparing a postgres session"))?;
        Ok(Session {
            connection,
            preamble: None,
        })
    }

    /// Whether one server process answers two connections that are open at once: then something in between lends
    /// processes out, as PgBouncer does in transaction mode. `false` proves little while that is busy.
    ///
    /// # Errors
    /// As [`Database::connect`].
    pub async fn shares_processes(&self) -> Result<bool, DbError> {
        let mut processes = Vec::new();
        // Both stay open until both have answered.
        let mut connections = Vec::new();
        for _ in 0..2 {
            let mut connection = self.connect_direct("check").await?;
            let query = sqlx::raw_sql("select pg_backend_pid()::text");
            let row = (&mut connection).fetch_one(query).await;
            let process = row.and_then(|row| {
                let process = row.try_get_raw(0)?;
                process
                    .as_str()
                    .map(str::to_owned)
                    .map_err(sqlx::Error::Decode)
            });
            processes.push(process.map_err(DbError::query("asking for the server process"))?);
            connections.push(connection);
        }
        Ok(processes[0] == processes[1])
    }

    /// A plain connection past the pooler, for what needs a session: migrations and LISTEN.
    ///
    /// # Errors
    /// As [`Database::connect`].
    pub async fn connect_direct(&self, purpose: &str) -> Result<PgConnection, DbError> {
        self.first_primary(self.direct(), &format!("outboxd {purpose}"))
            .await
    }

    /// A listener past the pooler: notifications need a session.
    ///
    /// # Errors
    /// As [`Database::connect`].
    pub async fn listener(&self) -> Result<PgListener, DbError> {
        let mut last = DbError::Recovery;
        for server in self.direct().now()? {
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(self.connect_timeout)
                .connect_lazy_with(server.options.clone().application_name("outboxd listener"));
            match PgListener::connect_with(&pool).await {
                Ok(listener) => return Ok(listener),
                Err(source) => last = server.failed(source),
            }
        }
        Err(last)
    }

    fn direct(&self) -> &Servers {
        self.direct_servers.as_ref().unwrap_or(&self.servers)
    }

    async fn first_primary(&self, servers: &Servers, name: &str) -> Result<PgConnection, DbError> {
        let mut last = DbError::Recovery;
        for mut server in servers.now()? {
            // Behind PgBouncer start-up parameters are refused unless it knows them; it knows this one.
            server.options = server.options.application_name(name);
            match tokio::time::timeout(self.connect_timeout, primary(&server)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = error,
                Err(_) => {
                    last = DbError::ConnectTimeout {
                        seconds: self.connect_timeout.as_secs_f64(),
                    };
                }
            }
        }
        Err(last)
    }
}

async fn primary(server: &Server) -> Result<PgConnection, DbError> {
    let connected = server.options.connect().await;
    let mut connection = connected.map_err(|source| server.failed(source))?;
    let row = (&mut connection)
        .fetch_one(sqlx::raw_sql("select pg_is_in_recovery()::text"))
        .await
        .map_err(|source| DbError::Connect {
            hint: POOLER_HINT,
            source,
        })?;
    match row
        .try_get_raw(0)
        .ok()
        .and_then(|value| value.as_str().ok())
    {
        Some("false") => Ok(connection),
        _ => {
            // Best effort: the server notices a dropped socket as well.
            let _ = connection.close().await;
            Err(DbError::Recovery)
        }
    }
}

/// When the server process that answers was started, and what its clock says.
///
/// A crash of Postgres ends all of its processes. So a process that was there at our previous statement
/// and is there now proves that the server did not crash between; that matters behind a pooler, where
/// a new server connection does not show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServerLife {
    /// Seconds since 1970, the server's clock.
    pub backend_start: f64,
    /// Seconds since 1970, the server's clock.
    pub now: f64,
}

/// One connection with its settings made.
///
/// On a direct connection statements run by themselves. Behind a pooler each group of them runs in a
/// short transaction of its own, which carries the settings and keeps the group on one server.
#[derive(Debug)]
pub struct Session {
    connection: PgConnection,
    /// Begins a transaction behind a pooler.
    preamble: Option<Arc<str>>,
}

impl Session {
    /// Does `work` as one group of statements, whatever comes of it.
    ///
    /// # Errors
    /// The work's, or as [`Session::begin`].
    pub async fn group<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        self.begin().await?;
        let done = work(self).await;
        // After an error this rolls back.
        self.commit().await?;
        done
    }

    /// Does `work` within a group, which an error of the work does not end.
    ///
    /// # Errors
    /// The work's; or whatever Postgres says, and then the group is over.
    pub async fn attempt<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        self.in_transaction("savepoint attempt").await?;
        let done = work(self).await;
        if done.is_err() {
            self.in_transaction("rollback to savepoint attempt").await?;
        }
        done
    }

    /// Starts a group of statements. Behind a pooler it says which server process answers.
    ///
    /// # Errors
    /// Whatever Postgres says; the session is then to be dropped.
    pub async fn begin(&mut self) -> Result<Option<ServerLife>, DbError> {
        let Some(preamble) = &self.preamble else {
            return Ok(None);
        };
        let action = "beginning a transaction behind the pooler";
        let row = (&mut self.connection)
            .fetch_one(sqlx::raw_sql(AssertSqlSafe(Arc::clone(preamble))))
            .await
            .map_err(DbError::query(action))?;
        let seconds = |column: usize| -> Result<f64, DbError> {
            row.try_get::<f64, _>(column)
                .map_err(DbError::query(action))
        };
        Ok(Some(ServerLife {
            backend_start: seconds(0)?,
            now: seconds(1)?,
        }))
    }

    /// Ends a group of statements.
    ///
    /// # Errors
    /// As [`Session::begin`].
    pub async fn commit(&mut self) -> Result<(), DbError> {
        self.in_transaction("commit").await
    }

    /// Only behind a pooler there is a transaction.
    async fn in_transaction(&mut self, statement: &'static str) -> Result<(), DbError> {
        if self.preamble.is_none() {
            return Ok(());
        }
        let done = (&mut self.connection).execute(sqlx::raw_sql(statement));
        done.await.map(|_| ()).map_err(DbError::query(format!(
            "{statement}, in a transaction behind the pooler"
        )))
    }

    /// A query in the form that this connection bears: named on a direct one, unnamed behind a pooler.
    pub(super) fn query(&self, sql: &Arc<str>) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(AssertSqlSafe(Arc::clone(sql))).persistent(self.preamble.is_none())
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    pub(super) async fn fetch_one(
        &mut self,
        query: Query<'static, Postgres, PgArguments>,
    ) -> sqlx::Result<PgRow> {
        (&mut self.connection).fetch_one(query).await
    }
}
