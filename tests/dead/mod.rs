//! `outboxd dead`, as somebody uses it who has nothing but the commands.

mod deciding;
mod listing;

use std::process::Output;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::support::command::{outboxd, succeeds};
use crate::support::fixture::{connect, execute, number};
use crate::support::services::{self, TestDatabase};

/// A migrated database that no relay looks after.
struct Parked {
    url: String,
    _kept: TestDatabase,
    database: PgConnection,
}

impl Parked {
    async fn new(name: &str) -> Parked {
        let kept = services::postgres().await.create_database(name).await;
        let url = kept.url.clone();
        succeeds(&outboxd(&["migrate", "--postgres-url", &url]));
        let database = connect(&url).await;
        Parked {
            url,
            _kept: kept,
            database,
        }
    }

    /// Parks a row that is written for it, and returns its id.
    async fn park(&mut self, columns: &str, values: &str) -> i64 {
        let sql = "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
                   values ('order', 'ord_1', 'order.placed', '{\"n\":  1}') returning id";
        let id = number(&mut self.database, sql).await;
        let sql = format!(
            "insert into outboxd_parked (outbox, id, event_id, event_type, topic, key, class, reason, attempts, \
                                         first_failed_at, blocks_key) \
             select 'public.outbox_events', id, event_id, event_type, 'order-events', 'ord_1', 'row', \
                    'too large: \u{1b}[31m30000 bytes', 1, clock_timestamp(), false \
             from outbox_events where id = {id}; \
             update outboxd_parked set ({columns}) = row({values}) where id = {id}"
        );
        execute(&mut self.database, &sql).await;
        id
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let arguments = [&["dead"], arguments, &["--postgres-url", &self.url]].concat();
        outboxd(&arguments)
    }

    /// What it prints.
    fn text(&self, arguments: &[&str]) -> String {
        succeeds(&self.run(arguments))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The ids that `list` gives with these filters.
    fn listed(&self, filters: &[&str]) -> Vec<i64> {
        let listed = self.json(&[&["list"], filters].concat());
        let rows = listed["rows"].as_array().expect("rows").iter();
        rows.map(|row| row["id"].as_i64().expect("an id")).collect()
    }

    /// Decision, who and why, as one text.
    async fn decision(&mut self, id: i64) -> Option<String> {
        let sql = format!(
            "select decision || ' ' || decided_by || ' ' || coalesce(decided_why, '') \
             from outboxd_parked where id = {id}"
        );
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut self.database);
        row.await.expect("a note").get(0)
    }
}
