//! The snippets for psql.

use std::process::Command;

use sqlx::Row;

use super::{debezium, shop};
use crate::support::fixture::number;

#[tokio::test]
#[ignore = "tests/clients/run runs it"]
async fn an_item_inserted_by_psql_is_charged_by_psql_once() {
    let mut fixture = shop::fixture("psql").await;
    let item = [("order_id", "ord_1"), ("price_cents", "4995")];

    psql(&fixture.url, "insert.sql", &item);

    let event = "select event_id::text, created_at::text from outbox_events \
                 where payload->>'totalCents' = '4995' and correlation_id is not null";
    let event = sqlx::query(event).fetch_one(&mut fixture.database).await;
    let event = event.expect("the event");
    let (id, created_at): (&str, &str) = (event.get(0), event.get(1));
    let [order, price] = item;
    let variables = [("event_id", id), ("created_at", created_at), order, price];
    for answer in ["new", "duplicate"] {
        let printed = psql(&fixture.url, "consume.sql", &variables);
        assert_eq!(printed, format!("{answer} {id}"));
    }
    let invoiced = "select sum(total_cents)::bigint from invoices";
    assert_eq!(number(&mut fixture.database, invoiced).await, 4995);
}

#[tokio::test]
#[ignore = "tests/clients/run runs it"]
async fn an_item_inserted_by_psql_into_debeziums_table_is_published() {
    let mut fixture = debezium::fixture("psql_debezium").await;
    let item = [("order_id", "ord_1"), ("price_cents", "4995")];

    psql(&fixture.url, "debezium.sql", &item);

    let id = sqlx::query_scalar("select id::text from outbox");
    let id: String = id.fetch_one(&mut fixture.database).await.expect("the row");
    fixture.relay.start();
    let record = fixture.next().await;
    assert_eq!(record.header("id"), Some(&*id));
    assert_eq!(record.key.as_deref(), Some("ord_1"));
    assert_eq!(record.body()["totalCents"], 4995);
}

fn psql(url: &str, script: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new("psql");
    command.args(["--no-psqlrc", "--quiet", url, "--file"]);
    command.arg(format!(
        "{}/examples/psql/{script}",
        env!("CARGO_MANIFEST_DIR")
    ));
    for (name, value) in variables {
        command.arg("--set").arg(format!("{name}={value}"));
    }
    let output = command.output().expect("running psql");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
