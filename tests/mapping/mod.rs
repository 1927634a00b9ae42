//! Tables that are not outboxd's: relayed and marked as they are, refused where they cannot be.

mod debezium;
mod mistakes;
mod roles;
mod rows;
mod wild;

use crate::support::fixture::{Fixture, execute};
use crate::support::services;

/// A database with this table, the relay's own tables beside it, and a relay that is told of it.
async fn fixture(name: &'static str, ddl: &str, options: &[(&str, &str)]) -> Fixture {
    let database = services::postgres().await.create_database(name).await;
    let kafka = services::kafka().await.bootstrap();
    let mut fixture = Fixture::bare(name, &database.url, kafka).await;
    execute(&mut fixture.database, ddl).await;
    for (option, value) in options {
        fixture
            .relay
            .set(&format!("outbox.default.{option}"), value);
    }
    fixture.relay.migrate().await;
    fixture
}
