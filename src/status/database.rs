//! What Postgres alone knows of the outboxes, when no relay answers.

use jiff::Timestamp;

use super::convert;
use super::report::{Held, OutboxReport, Parked, Report, SaidBy, Service, Services};
use crate::config::{Config, OutboxConfig};
use crate::db::outbox::backlog::Backlog;
use crate::db::standing::Standings;
use crate::db::{Database, DbError, Role, Session, migrate};

/// Looks at the configured outboxes.
///
/// # Errors
/// When Postgres does not answer, or its schema does not fit.
pub async fn look(config: &Config) -> Result<Report, DbError> {
    let database = Database::new(&config.postgres)?;
    let mut session = database.connect("status", Role::Command).await?;
    let mut outboxes = Vec::new();
    for outbox in config.outboxes.values() {
        let schema = config.postgres.schema.as_str();
        outboxes.push(look_at(&mut session, outbox, schema).await?);
    }
    Ok(Report {
        at: Timestamp::now().to_string(),
        said_by: SaidBy::Postgres,
        relay: None,
        services: Services {
            postgres: Service::UP,
            kafka: Service::UNKNOWN,
        },
        stuck: Vec::new(),
        outboxes,
    }
    .diagnosed())
}

async fn look_at(
    session: &mut Session,
    outbox: &OutboxConfig,
    schema: &str,
) -> Result<OutboxReport, DbError> {
    let table = outbox.table.to_string();
    session.begin().await?;
    migrate::verify(session, schema, outbox).await?;
    let standing = Standings::new(schema, &table).look(session).await?;
    let backlog = Backlog::open(session, outbox, schema).await?;
    let pending = backlog.look(session, &table).await?;
    session.commit().await?;
    let blocked = standing.parked.blocked.iter().cloned();
    Ok(OutboxReport {
        name: outbox.name.clone(),
        table,
        owner: convert::owner(standing.lease.as_ref()),
        health: None,
        published: None,
        per_second: None,
        pending_rows: Some(pending.rows),
        oldest_pending_seconds: pending.oldest.map(|at| convert::age(at.unix_micros())),
        late_rows: None,
        window: None,
        held: Held {
            key_count: standing.parked.blocked_keys.unsigned_abs(),
            keys: blocked.map(Into::into).collect(),
            ..Held::default()
        },
        parked: Parked::from(&standing.parked),
        paused: standing.pauses.into_iter().map(Into::into).collect(),
        bypassed: standing.bypasses.into_iter().map(Into::into).collect(),
        last_error: None,
    })
}
