//! Whether the schema is what this program was made for.

use sqlx::Row;

use super::steps::{INBOX, INBOX_NAME, Migration, OUTBOX, RELAY, component_name};
use crate::config::OutboxConfig;
use crate::db::{DbError, Session};

/// Compares the relay's schema with what this relay was made for.
///
/// # Errors
/// [`DbError::Schema`] when it is missing or older, or newer and not compatible; else what Postgres
/// says.
pub async fn verify(
    session: &mut Session,
    relay_schema: &str,
    outbox: &OutboxConfig,
) -> Result<(), DbError> {
    let own = (outbox.mapping.is_none()).then(|| (component_name(&outbox.table), OUTBOX));
    let relay = ("relay".to_owned(), RELAY);
    let components: Vec<_> = std::iter::once(relay).chain(own).collect();
    verify_components(session, relay_schema, &components, "run outboxd migrate").await
}

/// Compares the inbox's schema with what this program was made for.
///
/// # Errors
/// As [`verify`].
pub async fn verify_inbox(session: &mut Session, schema: &str) -> Result<(), DbError> {
    let components = [(INBOX_NAME.to_owned(), INBOX)];
    verify_components(session, schema, &components, "run outboxd migrate --inbox").await
}

async fn verify_components(
    session: &mut Session,
    schema: &str,
    components: &[(String, &[Migration])],
    remedy: &str,
) -> Result<(), DbError> {
    let action = || DbError::query("comparing the schema's version");
    let query = session
        .query(&"select to_regclass($1) is not null".into())
        .bind(format!("\"{schema}\".outboxd_migrations"));
    let exists: bool = session
        .fetch_one(query)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(action())?;
    if !exists {
        return Err(DbError::Schema(format!(
            "schema \"{schema}\" has no table outboxd_migrations: {remedy}"
        )));
    }
    for (name, steps) in components {
        let sql = format!(
            "select coalesce(max(version), 0), coalesce(max(compatible_with), 0) \
             from \"{schema}\".outboxd_migrations where component = $1"
        );
        let query = session.query(&sql.into()).bind(name.clone());
        let row = session.fetch_one(query).await.map_err(action())?;
        let (version, compatible_with): (i32, i32) = (
            row.try_get(0).map_err(action())?,
            row.try_get(1).map_err(action())?,
        );
        compare(name, version, compatible_with, steps.len() as i32, remedy)
            .map_err(DbError::Schema)?;
    }
    Ok(())
}

/// `made_for`: the version this relay was made for.
fn compare(
    component: &str,
    version: i32,
    compatible_with: i32,
    made_for: i32,
    remedy: &str,
) -> Result<(), String> {
    if version < made_for {
        return Err(format!(
            "the schema of {component} must be at version {made_for}, is {version}: {remedy}"
        ));
    }
    if compatible_with > made_for {
        return Err(format!(
            "the schema of {component} is at version {version}, which needs a relay made for version \
             {compatible_with} or later, this one was made for {made_for}: upgrade outboxd"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_compared_by_version_and_by_what_it_says_of_older_relays() {
        assert_eq!(compare("relay", 2, 2, 2, "run outboxd migrate"), Ok(()));
        assert_eq!(
            compare("relay", 3, 2, 2, "run outboxd migrate"),
            Ok(()),
            "newer but marked compatible"
        );
        let older = compare("relay", 1, 1, 2, "run outboxd migrate").unwrap_err();
        assert!(older.contains("outboxd migrate"), "{older}");
        let newer = compare("relay", 3, 3, 2, "run outboxd migrate").unwrap_err();
        assert!(newer.contains("upgrade outboxd"), "{newer}");
    }
}
