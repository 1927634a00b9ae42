//! Faults of the server, of what is before it, and of the relay's role.

use outboxd::local::{LocalPostgres, LocalPostgresOptions, PostgresRelease, StopMode, free_port};

use super::stage::Stage;
use crate::support::fixture::{connect, execute};
use crate::support::pgbouncer::PgBouncer;
use crate::support::services::{self, postgres_options};

async fn server(settings: &[(&str, &str)]) -> LocalPostgres {
    let options: LocalPostgresOptions = postgres_options(PostgresRelease::NEWEST);
    let set = |options: LocalPostgresOptions, (name, value): &(&str, &str)| {
        options.setting(*name, *value)
    };
    services::private_postgres(settings.iter().fold(options, set)).await
}

/// On a server of its own with these settings.
async fn stage_on(name: &str, settings: &[(&str, &str)]) -> (Stage, LocalPostgres) {
    let server = server(settings).await;
    (Stage::on(name, &server.url("postgres")).await, server)
}

#[tokio::test]
async fn a_server_that_does_not_answer() {
    let mut stage = Stage::new("away").await;
    let port = free_port().expect("a free port");
    stage.set(
        "postgres.url",
        &format!("postgres://relay:hunter2@127.0.0.1:{port}/shop"),
    );
    let lines = stage.finds(&["error postgres-unreachable"]);
    assert!(
        !lines[0].contains("hunter2") && lines[0].contains("refused"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_server_in_the_network_that_nobody_verifies() {
    let mut stage = Stage::new("unverified").await;
    for (parameters, expected) in [
        (
            "?sslmode=require",
            &["error postgres-unreachable", "warning postgres-unverified"][..],
        ),
        ("?sslmode=verify-full", &["error postgres-unreachable"]),
    ] {
        let url = format!("postgres://relay@db.invalid/shop{parameters}");
        stage.set("postgres.url", &url);
        stage.finds(expected);
    }
}

#[tokio::test]
async fn an_admin_port_that_anybody_can_ask() {
    let mut stage = Stage::new("admin_open").await;
    stage.set("admin.listen", "0.0.0.0:9464");
    let lines = stage.finds(&["warning admin-open"]);
    assert!(lines[0].contains("OUTBOXD_ADMIN__TOKEN_FILE"), "{lines:?}");
    stage.set("admin.token", "a-token-that-nobody-guesses");
    stage.finds(&[]);
}

#[tokio::test]
async fn a_standby_instead_of_the_primary() {
    let (stage, mut server) = stage_on("standby", &[]).await;
    let mut owner = connect(&server.url("postgres")).await;
    let signal = "do $$ begin execute format('copy (select 1) to %L', \
                  current_setting('data_directory') || '/standby.signal'); end $$";
    execute(&mut owner, signal).await;
    server.restart(StopMode::Fast).await.expect("a restart");
    stage.finds(&["error postgres-replica"]);
}

#[tokio::test]
async fn a_pooler_that_refuses_what_it_does_not_know() {
    let (mut stage, server) = stage_on("pooler", &[]).await;
    let bouncer = PgBouncer::start(server.port()).await;
    stage.set("postgres.url", &bouncer.url("postgres"));
    stage.finds(&["error pooler"]);
}

#[tokio::test]
async fn a_pooler_that_lets_everything_pass() {
    let (mut stage, server) = stage_on("silent_pooler", &[]).await;
    let lenient = "ignore_startup_parameters = extra_float_digits";
    let bouncer = PgBouncer::start_with(server.port(), lenient).await;
    stage.set("postgres.url", &bouncer.url("postgres"));
    stage.finds(&["error pooler"]);
}

#[tokio::test]
async fn a_way_around_the_pooler_that_is_none() {
    let (mut stage, server) = stage_on("direct_url", &[]).await;
    let lenient = "ignore_startup_parameters = extra_float_digits";
    let bouncer = PgBouncer::start_with(server.port(), lenient).await;
    stage.set("postgres.pooler", "transaction");
    stage.set("postgres.direct_url", &bouncer.url("postgres"));
    stage.finds(&["error direct-url"]);
}

#[tokio::test]
async fn a_pooler_that_was_declared_is_none() {
    let (mut stage, server) = stage_on("declared_pooler", &[]).await;
    let bouncer = PgBouncer::start(server.port()).await;
    stage.set("postgres.pooler", "transaction");
    stage.set("postgres.url", &bouncer.url("postgres"));
    // It logs in as the superuser.
    stage.finds(&["warning superuser", "warning table-owner"]);
}

#[tokio::test]
async fn a_server_that_does_not_flush() {
    let (stage, _server) = stage_on("fsync", &[("fsync", "off")]).await;
    stage.finds(&["error durability"]);
}

#[tokio::test]
async fn a_server_that_does_not_vacuum() {
    let (stage, _server) = stage_on("no_vacuum", &[("autovacuum", "off")]).await;
    stage.finds(&["warning autovacuum"]);
}

#[tokio::test]
async fn a_server_that_confirms_commits_too_early() {
    let (stage, _server) = stage_on("early", &[("synchronous_commit", "off")]).await;
    let lines = stage.finds(&["warning synchronous-commit"]);
    assert!(lines[0].contains("off on the server"), "{lines:?}");
}

#[tokio::test]
async fn a_replication_slot_that_nobody_reads() {
    let (mut stage, _server) = stage_on("slot", &[]).await;
    stage
        .sql("select pg_create_physical_replication_slot('gone', true)")
        .await;
    let lines = stage.finds(&["warning replication-slot"]);
    assert!(lines[0].contains("\"gone\""), "{lines:?}");
}

#[tokio::test]
async fn a_database_that_confirms_commits_too_early() {
    let mut stage = Stage::new("early_database").await;
    let alter = "do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$";
    stage.sql(alter).await;
    let lines = stage.finds(&["warning synchronous-commit"]);
    assert!(
        lines[0].contains("in database \"early_database_"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn an_application_that_confirms_commits_too_early() {
    let mut stage = Stage::new("early_app").await;
    stage
        .sql(
            "create role {role}_app login; grant insert (aggregate_type) on outbox_events to {role}_app; \
             alter role {role}_app set synchronous_commit = off; \
             create role {role}_other login; alter role {role}_other set synchronous_commit = off",
        )
        .await;
    let lines = stage.finds(&["warning synchronous-commit"]);
    assert!(
        lines[0].contains(&format!("role \"{}_app\"", stage.role)),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_role_that_is_superuser() {
    let mut stage = Stage::new("superuser").await;
    stage.sql("alter role {role} superuser").await;
    // It has the rights of every owner.
    stage.finds(&["warning superuser", "warning table-owner"]);
}

#[tokio::test]
async fn a_role_that_may_make_roles() {
    let mut stage = Stage::new("createrole").await;
    stage.sql("alter role {role} createrole replication").await;
    let lines = stage.finds(&["warning attributes"]);
    assert!(
        lines[0].contains("has CREATEROLE, REPLICATION"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_role_that_may_read_the_application_s_tables() {
    let mut stage = Stage::new("other_tables").await;
    stage
        .sql(
            "create table customers (name text); grant select (name) on customers to {role}; \
             create table orders (id int); grant update on orders to {role}; \
             create table secrets (id int)",
        )
        .await;
    let lines = stage.finds(&["warning other-tables"]);
    assert!(
        lines[0].contains("not the relay's: public.customers, public.orders:"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_role_that_can_only_read() {
    let mut stage = Stage::new("read_only").await;
    stage
        .sql("alter role {role} set default_transaction_read_only = on")
        .await;
    stage.finds(&["error read-only"]);
}

#[tokio::test]
async fn a_role_with_too_few_connections() {
    let mut stage = Stage::new("connections").await;
    stage.sql("alter role {role} connection limit 3").await;
    stage.finds(&["error connection-limit"]);
}

#[tokio::test]
async fn a_role_that_lacks_a_privilege_on_the_leases() {
    let mut stage = Stage::new("lease_rights").await;
    stage
        .sql("revoke update, insert on outboxd_leases from {role}")
        .await;
    let lines = stage.finds(&["error privileges"]);
    assert!(
        lines[0].contains("INSERT, UPDATE on table outboxd_leases"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_prepared_transaction_that_nobody_ends() {
    let mut stage = Stage::new("prepared").await;
    let gid = stage.topic.clone();
    stage.sql("begin; insert into outbox_events (aggregate_type, aggregate_id, event_type) values ('a', 'b', 'c')").await;
    stage.sql(&format!("prepare transaction '{gid}'")).await;
    stage.finds(&[]);
    stage.argument("--long-transaction=0s");
    let lines = stage.finds(&["warning prepared-transaction"]);
    assert!(
        lines[0].contains(&format!("rollback prepared '{gid}'")),
        "{lines:?}"
    );
    stage.sql(&format!("rollback prepared '{gid}'")).await;
}

#[tokio::test]
async fn a_transaction_that_nobody_ends() {
    let mut stage = Stage::new("long").await;
    stage.sql("grant pg_read_all_stats to {role}").await;
    stage.sql("begin; select 1").await;
    stage.finds(&[]);
    stage.argument("--long-transaction=0s");
    let lines = stage.finds(&["warning long-transaction"]);
    assert!(lines[0].contains("idle in transaction"), "{lines:?}");
}
