//! Passwords that change while the relay runs.

use std::os::unix::fs::PermissionsExt;

use outboxd::local::Sandbox;
use rustix::process::Signal;

use super::Secured;
use crate::support::fixture::{Fixture, execute, insert};

const VARIABLE: &str = "OUTBOXD_POSTGRES__URL_FILE";

const LISTENING: &str =
    "(select count(*) from pg_stat_activity where application_name = 'outboxd listener') = 1";

/// A password that nothing may show.
const SECOND: &str = "s3cond-password";

/// Gives the relay's role another password, and ends all of its connections.
async fn rotate(fixture: &mut Fixture, password: &str) {
    for sql in [
        &format!("alter role relay password '{password}'"),
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'relay'",
    ] {
        execute(&mut fixture.database, sql).await;
    }
}

/// Waits until what is inserted now is marked.
async fn flows(fixture: &mut Fixture) {
    insert(&mut fixture.database, "k").await;
    fixture.settled().await;
}

#[tokio::test]
async fn a_password_that_changes_in_its_file_needs_no_restart() {
    let secured = Secured::start().await;
    let mut fixture = secured.fixture("rotation").await;
    let folder = Sandbox::create("secret", None, Signal::KILL).expect("a directory");
    let path = folder
        .directory()
        .join("postgres-url")
        .display()
        .to_string();
    let put = |content: &str| {
        folder
            .write("postgres-url", content)
            .expect("writing the secret")
    };
    let url = |password: &str| secured.verified(&format!("relay:{password}"));
    execute(
        &mut fixture.database,
        "create role relay login password 'first'",
    )
    .await;
    fixture.relay.set("outbox.default.notify", "true");
    fixture.relay.migrate_for("relay").await;

    // From a file, for both ways to Postgres.
    put(&url("first"));
    fixture.relay.unset("postgres.url");
    fixture.relay.set_variable(VARIABLE, &path);
    fixture
        .relay
        .set_variable("OUTBOXD_POSTGRES__DIRECT_URL_FILE", &path);
    fixture.relay.start();
    flows(&mut fixture).await;
    fixture.until(LISTENING).await;

    put(&format!("{}\n", url(SECOND)));
    rotate(&mut fixture, SECOND).await;
    flows(&mut fixture).await;
    fixture.until(LISTENING).await;

    // The password first, then the file.
    rotate(&mut fixture, "third").await;
    fixture
        .relay
        .logs_more("password authentication failed", 0)
        .await;
    put(&url("third"));
    flows(&mut fixture).await;

    // No file, then nonsense, while connections are lost.
    std::fs::remove_file(&path).expect("removing the secret");
    rotate(&mut fixture, "fourth").await;
    let missing =
        format!("connecting to postgres: {VARIABLE}: reading \\\"{path}\\\": No such file");
    fixture.relay.logs_more(&missing, 0).await;
    put(SECOND);
    fixture
        .relay
        .logs_more("must start with postgres://", 0)
        .await;
    put(&url("fourth"));
    flows(&mut fixture).await;
    fixture.until(LISTENING).await;
    fixture.relay.stop().await;
    assert_eq!(fixture.relay.logged(SECOND), 0);

    // libpq's own file of passwords.
    let passwords = folder.directory().join("pgpass");
    let put_password = |password: &str| {
        let line = format!("localhost:*:*:relay:{password}\n");
        std::fs::write(&passwords, line).expect("writing the password");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&passwords, mode).expect("hiding it from others");
    };
    put(&secured.verified("relay"));
    let named = passwords.display().to_string();
    fixture.relay.set_variable("PGPASSFILE", &named);
    put_password("fourth");
    fixture.relay.start();
    flows(&mut fixture).await;
    put_password("fifth");
    rotate(&mut fixture, "fifth").await;
    flows(&mut fixture).await;
    fixture.relay.stop().await;
}
