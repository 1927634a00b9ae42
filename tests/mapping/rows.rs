//! What becomes of single rows of a mapped table: those that cannot be published, those that were sent, and
//! those whose place is drawn again.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outboxd::config::{Config, Sources};
use outboxd::db::lease::Leases;
use outboxd::db::outbox::{BatchLimit, Outbox};
use outboxd::db::{Database, Role};
use outboxd::event::EventRef;
use outboxd::local::PostgresRelease;
use uuid::Uuid;

use super::fixture;
use crate::support::fixture::{Fixture, execute, number, read_all};
use crate::support::pgbouncer::PgBouncer;
use crate::support::services;

/// A table by status.
const DDL: &str = "create table tasks ( \
        id bigserial primary key, kind text, thing text, body text, at timestamptz default clock_timestamp(), \
        status text not null default 'NEW', done_at timestamp); \
     create index on tasks (status)";

const OPTIONS: &[(&str, &str)] = &[
    ("table", "tasks"),
    ("columns.id", "id"),
    ("columns.event_id", "id"),
    ("columns.aggregate_type", "kind"),
    ("columns.aggregate_id", "thing"),
    ("columns.event_type", "kind"),
    ("columns.payload", "body"),
    ("columns.created_at", "at"),
    ("sent.column", "status"),
    ("sent.unsent", "NEW"),
    ("sent.sent", "DONE"),
    ("sent.at", "done_at"),
];

const ALL_SENT: &str = "select count(*) = 0 from tasks where status = 'NEW'";

fn with(options: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    OPTIONS.iter().chain(options).copied().collect()
}

async fn insert(fixture: &mut Fixture, thing: &str, body: Option<&str>) {
    let sql = "insert into tasks (kind, thing, body) values ('task', $1, $2)";
    sqlx::query(sql)
        .bind(thing)
        .bind(body)
        .execute(&mut fixture.database)
        .await
        .expect("inserting a row");
}

/// Waits until so many rows are parked, all for this reason.
async fn parked(fixture: &mut Fixture, count: i64, reason: &str) {
    let all = format!("select count(*) = {count} from outboxd_parked");
    fixture.until(&all).await;
    let alike = format!("select count(*) from outboxd_parked where reason like '{reason}%'");
    assert_eq!(number(&mut fixture.database, &alike).await, count);
}

#[tokio::test]
async fn text_that_is_no_json_is_parked_and_nothing_else_suffers() {
    let options = with(&[("payload_encoding", "json")]);
    let mut fixture = fixture("mapping_not_json", DDL, &options).await;
    let good = [
        " {\"a\" : 1e400}",
        "[\"\\ud800\\u0000\"]",
        "{\"a\":1,\"a\":[]}\n",
    ];
    for body in [good[0], "{\"a\":", good[1], "", good[2]] {
        insert(&mut fixture, "a", Some(body)).await;
    }
    fixture.relay.start();
    for body in good {
        let value = fixture.next().await.value.expect("a value");
        let value = String::from_utf8(value).expect("UTF-8");
        assert!(value.ends_with(&format!(",\"data\":{body}}}")), "{value}");
    }
    let reason = "payload must be JSON, as payload_encoding says";
    parked(&mut fixture, 2, reason).await;
}

#[tokio::test]
async fn a_null_that_the_envelope_needs_parks_its_row() {
    let options = with(&[("envelope", "cloudevents")]);
    let mut fixture = fixture("mapping_null_type", DDL, &options).await;
    execute(
        &mut fixture.database,
        "insert into tasks (kind, thing) values (null, 'a'), ('task', 'b')",
    )
    .await;
    fixture.relay.start();
    assert_eq!(fixture.next().await.key.as_deref(), Some("b"));
    parked(
        &mut fixture,
        1,
        "event_type must not be null, the envelope needs it",
    )
    .await;
}

#[tokio::test]
async fn a_null_that_the_topic_is_made_of_parks_its_row_and_makes_no_other_topic() {
    let options = with(&[
        ("envelope", "raw"),
        ("columns.event_version", "body"),
        ("topic", "{aggregate_type}-{event_version}"),
    ]);
    let mut fixture = fixture("mapping_null_topic", DDL, &options).await;
    let prefix = fixture.topic.clone();
    let partial = format!("{prefix}-");
    for topic in [&partial, &format!("{prefix}-v")] {
        services::create_topic(fixture.bootstrap(), topic, 1, &[]).await;
    }
    execute(
        &mut fixture.database,
        &format!(
            "insert into tasks (kind, thing, body) \
             values (null, 'a', 'v'), ('{prefix}', 'b', null), ('{prefix}', 'c', 'v')"
        ),
    )
    .await;
    fixture.relay.start();
    fixture
        .until("select count(*) = 1 from tasks where status = 'DONE' and thing = 'c'")
        .await;
    parked(&mut fixture, 2, "topic must be 1 to 249 of").await;
    fixture.relay.stop().await;
    assert_eq!(read_all(fixture.bootstrap(), &partial), []);
}

#[tokio::test]
async fn text_is_a_json_string_and_bytes_are_base64_in_structured_formats() {
    let text = "say \"żółć\" \\n \u{1f980}";
    for (encoding, envelope, member) in [
        ("auto", "native", "data"),
        ("text", "cloudevents", "data"),
        ("bytes", "native", "dataBase64"),
        ("bytes", "cloudevents", "data_base64"),
    ] {
        let options = with(&[("payload_encoding", encoding), ("envelope", envelope)]);
        let mut fixture = fixture("mapping_text", DDL, &options).await;
        insert(&mut fixture, "a", Some(text)).await;
        fixture.relay.start();
        let body = fixture.next().await.body();
        let expected = match encoding {
            "bytes" => STANDARD.encode(text),
            _ => text.to_owned(),
        };
        assert_eq!(body[member], expected, "{encoding} {envelope} {body}");
        if envelope == "cloudevents" {
            let content_type = match encoding {
                "bytes" => "application/octet-stream",
                _ => "text/plain",
            };
            assert_eq!(body["datacontenttype"], content_type);
            assert_eq!(body["id"], "1");
        }
    }
}

#[tokio::test]
async fn retention_deletes_what_was_sent_long_ago_and_nothing_else() {
    // Sent long ago; sent so that it is young for long; and those that nobody has sent, or nobody knows when.
    let rows = "insert into tasks (kind, status, done_at) values \
                ('old', 'DONE', '2020-01-01'), ('young', 'DONE', '2126-01-01'), \
                ('undated', 'DONE', null), ('failed', 'FAILED', '2020-01-01'), ('again', 'NEW', '2020-01-01')";
    let options = with(&[("retention", "1s")]);
    let mut fixture = fixture("mapping_retention", DDL, &options).await;
    execute(&mut fixture.database, rows).await;
    fixture.relay.set("outbox.default.topic", "nowhere");
    fixture.relay.start();
    fixture
        .until("select count(*) = 0 from tasks where kind = 'old'")
        .await;
    assert_eq!(
        number(&mut fixture.database, "select count(*) from tasks").await,
        4
    );
    fixture.relay.stop().await;
}

#[tokio::test]
async fn an_id_that_is_drawn_again_is_told_by_its_time() {
    let fixture = fixture("mapping_redrawn", DDL, &with(&[])).await;
    let mut database = fixture.connect().await;
    let overrides = [
        ("postgres.url", fixture.url.as_str()),
        ("kafka.bootstrap_servers", fixture.bootstrap()),
    ];
    let options = with(&[]);
    let options = options
        .iter()
        .map(|(option, value)| (format!("outbox.default.{option}"), (*value).to_owned()));
    let overrides = overrides.map(|(option, value)| (option.to_owned(), value.to_owned()));
    let config = Config::load(Sources {
        file: None,
        environment: std::iter::empty(),
        overrides: overrides.into_iter().chain(options).collect(),
    })
    .expect("a configuration");
    let connections = Database::new(&config.postgres).expect("a database");
    let mut session = connections
        .connect("test", Role::Reader)
        .await
        .expect("a session");
    let outbox = Outbox::open(
        &mut session,
        &config.outboxes["default"],
        "public",
        1_000_000,
    )
    .await
    .expect("a table that fits");
    let acquired = Leases::new("public")
        .acquire(
            &mut session,
            "public.tasks",
            0,
            Uuid::now_v7(),
            Duration::from_secs(60),
            false,
        )
        .await
        .expect("asking for the lease")
        .expect("a free lane");
    execute(
        &mut database,
        "insert into tasks (kind, at) values ('first', '2026-01-01')",
    )
    .await;
    let limit = BatchLimit {
        rows: 10,
        bytes: usize::MAX,
    };
    let read = outbox.forward(&mut session, 0, limit, |event| event.reference);
    let first: Vec<EventRef> = read.await.expect("reading").rows;
    // A crash of Postgres: the row was never committed for good, and its id is another's.
    execute(
        &mut database,
        "delete from tasks; insert into tasks (id, kind, at) values (1, 'second', '2026-01-02')",
    )
    .await;
    let marked = outbox.settle(&mut session, &acquired.fence, &first).await;
    assert_eq!(marked.expect("marking"), 0, "it was never published");
    let read = outbox.forward(&mut session, 0, limit, |event| event.reference);
    let second = read.await.expect("reading").rows;
    assert_eq!((first[0].id, second[0].id), (1, 1));
    let marked = outbox.settle(&mut session, &acquired.fence, &second).await;
    assert_eq!(marked.expect("marking"), 1);
}

#[tokio::test]
async fn a_trusted_trigger_is_no_obstacle() {
    let ddl = format!(
        "{DDL}; alter table tasks add touched boolean; \
         create function touch() returns trigger language plpgsql \
         as 'begin new.touched := true; return new; end'; \
         create trigger touch before update on tasks for each row execute function touch()"
    );
    let options = with(&[("trusted_triggers", "other, touch")]);
    let mut fixture = fixture("mapping_trigger", &ddl, &options).await;
    insert(&mut fixture, "a", None).await;
    fixture.relay.start();
    assert_eq!(fixture.next().await.value, None);
    fixture
        .until("select count(*) = 1 from tasks where status = 'DONE' and touched and done_at is not null")
        .await;
}

#[tokio::test]
async fn what_is_left_of_a_mapped_table_is_listed() {
    let mut fixture = fixture("mapping_left", DDL, &with(&[])).await;
    let nobody = outboxd::local::free_port().expect("a free port");
    fixture
        .relay
        .set("kafka.bootstrap_servers", &format!("127.0.0.1:{nobody}"));
    insert(&mut fixture, "stuck", None).await;
    fixture
        .relay
        .start_with(&["--until-empty", "--timeout", "1s"]);
    assert_eq!(fixture.relay.wait(Duration::from_secs(60)).await, Some(75));
    assert_eq!(fixture.relay.logged("  1 1 task task"), 1);
}

#[tokio::test]
async fn a_mapped_table_is_relayed_through_a_pooler_in_transaction_mode() {
    let options = services::postgres_options(PostgresRelease::NEWEST);
    let server = services::private_postgres(options).await;
    let pooler = PgBouncer::start(server.port()).await;
    let kafka = services::kafka().await.bootstrap();
    let mut fixture = Fixture::bare("mapping_pooler", &server.url("postgres"), kafka).await;
    execute(&mut fixture.database, DDL).await;
    for (option, value) in OPTIONS {
        fixture
            .relay
            .set(&format!("outbox.default.{option}"), value);
    }
    fixture.relay.set("postgres.url", &pooler.url("postgres"));
    fixture.relay.set("postgres.pooler", "transaction");
    fixture
        .relay
        .set("postgres.direct_url", &server.url("postgres"));
    fixture.relay.migrate().await;
    for _ in 0..20 {
        insert(&mut fixture, "a", Some("text")).await;
    }
    fixture.relay.start();
    fixture.take(20).await;
    fixture.until(ALL_SENT).await;
}

#[tokio::test]
async fn an_index_on_the_status_does_not_have_the_backlog_sorted_for_each_batch() {
    let mut fixture = fixture("mapping_status", DDL, &with(&[])).await;
    // To the planner's statistics unsent rows are rare: finding them by their status and sorting them is
    // cheapest, until there is a backlog.
    execute(
        &mut fixture.database,
        "insert into tasks (kind, thing, status) select 'task', 'a', 'DONE' from generate_series(1, 30000); \
         analyze tasks",
    )
    .await;
    let plan = "explain (costs off) select id from tasks where status = 'NEW' and id > 0 order by id limit 1";
    let lines = sqlx::query_scalar::<_, String>(plan).fetch_all(&mut fixture.database);
    let plan = lines.await.expect("a plan").join("\n");
    assert!(plan.contains("Sort"), "{plan}");
    insert(&mut fixture, "a", None).await;
    fixture.relay.start();
    fixture.next().await;
    fixture.until(ALL_SENT).await;
}
