//! One database that is looked into.

use jiff::Timestamp;

use super::{Effect, Step, TraceError, Wanted};
use crate::config::{Config, OnSent, PostgresConfig, PostgresUrl, Retention};
use crate::db::migrate::{Installed, installed};
use crate::db::outbox::traced::{Looked, MOST, Traced, TracedRows};
use crate::db::{Database, DbError, Role, Session, migrate};
use crate::inbox::{forgotten, processed};

/// See the module's documentation.
pub struct Place {
    address: String,
    database: Database,
    session: Session,
    installed: Installed,
    schema: String,
    outboxes: Vec<Looking>,
}

/// One outbox.
struct Looking {
    name: String,
    /// As it is named in its lease.
    table: String,
    rows: TracedRows,
    kept: Kept,
}

/// How long it keeps what was sent.
enum Kept {
    For(String),
    Forever,
    NotAtAll,
    /// It is another relay's to say.
    Unknown,
}

impl Place {
    /// The configured database with the configured outboxes.
    pub async fn configured(config: &Config) -> Result<Place, TraceError> {
        let mut place = Place::connect(&config.postgres).await?;
        for outbox in config.outboxes.values() {
            let session = &mut place.session;
            let open = async {
                session.begin().await?;
                migrate::verify(session, &place.schema, outbox).await?;
                let rows = TracedRows::open(session, outbox, &place.schema).await?;
                session.commit().await?;
                Ok(rows)
            };
            let rows = open.await.map_err(at(&place.address))?;
            place.outboxes.push(Looking {
                name: outbox.name.clone(),
                table: outbox.table.to_string(),
                rows,
                kept: match (outbox.on_sent, outbox.retention) {
                    (OnSent::Delete, _) => Kept::NotAtAll,
                    (OnSent::Mark, Retention::Forever) => Kept::Forever,
                    (OnSent::Mark, Retention::For(time)) => {
                        Kept::For(humantime::format_duration(time).to_string())
                    }
                },
            });
        }
        Ok(place)
    }

    /// Another database with the outboxes that are there.
    pub async fn of(config: &Config, url: &PostgresUrl) -> Result<Place, TraceError> {
        let postgres = PostgresConfig {
            url: url.clone(),
            direct_url: None,
            url_file: None,
            direct_url_file: None,
            ..config.postgres.clone()
        };
        let mut place = Place::connect(&postgres).await?;
        for table in &place.installed.outboxes {
            place.outboxes.push(Looking {
                name: table.to_string(),
                table: table.to_string(),
                rows: TracedRows::own(table, &place.schema),
                kept: Kept::Unknown,
            });
        }
        Ok(place)
    }

    async fn connect(config: &PostgresConfig) -> Result<Place, TraceError> {
        let address = config.url.address();
        let schema = config.schema.to_string();
        let open = async {
            let database = Database::new(config)?;
            let mut session = database.connect("trace", Role::Command).await?;
            session.begin().await?;
            let installed = installed(&mut session, &schema).await?;
            session.commit().await?;
            Ok((database, session, installed))
        };
        let (database, session, installed) = open.await.map_err(at(&address))?;
        Ok(Place {
            address,
            database,
            session,
            installed,
            schema,
            outboxes: Vec::new(),
        })
    }

    /// The events of the correlation id that are in its outboxes.
    pub async fn steps(
        &mut self,
        wanted: &Wanted,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Step>, TraceError> {
        let mut steps = Vec::new();
        for outbox in &self.outboxes {
            let session = &mut self.session;
            let find = async {
                session.begin().await?;
                let traced = outbox.rows.find(
                    session,
                    &wanted.correlation_id,
                    &outbox.table,
                    wanted.most_scanned,
                );
                let traced = traced.await?;
                let oldest = outbox.rows.oldest(session).await?;
                session.commit().await?;
                Ok((traced, oldest))
            };
            let (traced, oldest) = find.await.map_err(at(&self.address))?;
            let oldest = oldest.and_then(|oldest| oldest.created_us);
            notes.extend(outbox.notes(&self.installed.database, &traced, oldest));
            steps.extend(traced.rows.into_iter().map(|row| Step {
                database: self.installed.database.clone(),
                outbox: outbox.name.clone(),
                row,
            }));
        }
        Ok(steps)
    }

    /// What its consumers did about these events; `first_us` is when the first of them was created.
    pub async fn effects(
        &mut self,
        ids: &[String],
        first_us: Option<i64>,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Effect>, TraceError> {
        if !self.installed.inbox {
            return Ok(Vec::new());
        }
        let database = &self.installed.database;
        let connection = self.database.connect_direct("trace").await;
        let mut connection = connection.map_err(at(&self.address))?;
        let inbox = |source| TraceError::Inbox {
            database: database.clone(),
            source,
        };
        let found = processed(&mut connection, &self.schema, ids).await;
        let found = found.map_err(inbox)?;
        let forgotten = forgotten(&mut connection, &self.schema).await;
        for (consumer, before_us) in forgotten.map_err(inbox)? {
            if first_us.is_none_or(|first| first < before_us) {
                notes.push(format!(
                    "consumer {consumer} of database {database} may have forgotten what it did about events from \
                     before {}",
                    time(before_us)
                ));
            }
        }
        let effect = |processed| Effect {
            database: database.clone(),
            processed,
        };
        Ok(found.into_iter().map(effect).collect())
    }
}

impl Looking {
    /// What cannot be known of it.
    fn notes(&self, database: &str, traced: &Traced, oldest_us: Option<i64>) -> Vec<String> {
        let which = format!("outbox {} of database {database}", self.name);
        let oldest = match oldest_us {
            Some(oldest) => format!("the oldest row is of {}", time(oldest)),
            None => "it has no rows".to_owned(),
        };
        let mut notes = vec![match &self.kept {
            Kept::For(time) => format!("{which} keeps sent rows for {time}: {oldest}"),
            Kept::Forever => format!("{which} keeps sent rows for ever: {oldest}"),
            Kept::NotAtAll => format!("{which} deletes rows once they are sent: {oldest}"),
            Kept::Unknown => format!("{which}: {oldest}"),
        }];
        match traced.looked {
            Looked::ByIndex => {}
            Looked::Everywhere => notes.push(format!(
                "{which} has no index for traces: all its rows were looked through"
            )),
            Looked::Above(id) => notes.push(format!(
                "{which} has no index for traces (outboxd migrate --trace-index): only its newest rows were looked \
                 through, those with an id above {id}"
            )),
        }
        if traced.is_cut {
            notes.push(format!(
                "{which} has more than {MOST} events of it: the others are left out"
            ));
        }
        notes
    }
}

/// To the second.
fn time(micros: i64) -> String {
    match Timestamp::from_microsecond(micros) {
        Ok(time) => format!("{time:.0}"),
        Err(_) => format!("{micros} microseconds since 1970"),
    }
}

fn at(address: &str) -> impl Fn(DbError) -> TraceError {
    move |source| TraceError::Postgres {
        address: address.to_owned(),
        source,
    }
}
