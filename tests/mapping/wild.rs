//! The shapes found in the wild, all in one relay: every kind of id with every kind of payload, and through
//! them every way to mark, plain and quoted names, plain and partitioned tables.

use std::fmt::Write;
use std::time::Duration;

use outboxd::local::free_port;
use sqlx::PgConnection;

use crate::support::fixture::{execute, number, read_all};
use crate::support::relay::Relay;
use crate::support::services::{self, KafkaServer, PostgresServer};

/// Rows that are to be published, of each table.
const ROWS: usize = 5;

/// How long a relay may take to publish them and exit.
const PATIENCE: Duration = Duration::from_secs(120);

/// The event's id: the column's type, and the value of a row as SQL and as it is published. Without type,
/// the monotonic column is the id.
struct IdKind {
    sql_type: Option<&'static str>,
    value: fn(usize) -> String,
}

const IDS: [IdKind; 4] = [
    IdKind {
        sql_type: Some("uuid"),
        value: |row| format!("0192aaaa-0000-7000-8000-{row:012x}"),
    },
    IdKind {
        sql_type: Some("text"),
        value: |row| format!("evt_żółć_{row}"),
    },
    IdKind {
        sql_type: Some("bigint"),
        value: |row| (9_000_000_000_000 - row as i64).to_string(),
    },
    IdKind {
        sql_type: None,
        value: |row| (row + 1).to_string(),
    },
];

/// The payload: the column's type, the option, a value as SQL, and its bytes on the topic.
const PAYLOADS: [(&str, &str, &str, &[u8]); 5] = [
    (
        "json",
        "auto",
        "'{ \"b\":1.50 ,\"b\":[] }'",
        b"{ \"b\":1.50 ,\"b\":[] }",
    ),
    (
        "jsonb",
        "auto",
        "'{ \"b\":1.50 ,\"a\":[] }'",
        b"{\"a\": [], \"b\": 1.50}",
    ),
    (
        "text",
        "text",
        "'say \"żółć\" \\n'",
        "say \"żółć\" \\n".as_bytes(),
    ),
    (
        "varchar(100)",
        "json",
        "' {\"a\" : 1e400}'",
        b" {\"a\" : 1e400}",
    ),
    ("bytea", "auto", "'\\x00ff0a'", b"\x00\xff\x0a"),
];

/// A way to mark: its columns, its options, a row that it leaves alone, what holds for a marked row.
struct Marking {
    columns: &'static str,
    options: &'static [(&'static str, &'static str)],
    /// A value of the first column that is neither unsent nor sent.
    other: Option<&'static str>,
    is_marked: &'static str,
}

const NOW_UTC: &str =
    "abs(extract(epoch from \"Sent\" at time zone 'UTC' - clock_timestamp())) < 600";

const MARKINGS: [Marking; 8] = [
    Marking {
        columns: "\"Sent\" timestamptz",
        options: &[("sent.column", "Sent")],
        other: None,
        is_marked: "abs(extract(epoch from \"Sent\" - clock_timestamp())) < 600",
    },
    Marking {
        columns: "\"Sent\" timestamp",
        options: &[("sent.column", "Sent")],
        other: None,
        is_marked: NOW_UTC,
    },
    Marking {
        columns: "processed boolean not null default false",
        options: &[("sent.column", "processed")],
        other: None,
        is_marked: "processed",
    },
    Marking {
        columns: "processed boolean",
        options: &[("sent.column", "processed")],
        other: None,
        is_marked: "processed",
    },
    Marking {
        columns: "status text not null default 'it''s \\new', \"Sent\" timestamp",
        options: &[
            ("sent.column", "status"),
            ("sent.unsent", "it's \\new"),
            ("sent.sent", "SENT"),
            ("sent.at", "Sent"),
        ],
        other: Some("'CANCELLED'"),
        is_marked: NOW_UTC,
    },
    Marking {
        columns: "status event_status not null default 'PENDING'",
        options: &[
            ("sent.column", "status"),
            ("sent.unsent", "PENDING"),
            ("sent.sent", "SENT"),
        ],
        other: Some("'FAILED'"),
        is_marked: "status = 'SENT'",
    },
    Marking {
        columns: "note text",
        options: &[("on_sent", "delete")],
        other: None,
        is_marked: "false",
    },
    Marking {
        columns: "status varchar(10) not null default 'PENDING'",
        options: &[
            ("sent.column", "status"),
            ("sent.unsent", "PENDING"),
            ("sent.sent", "SENT"),
            ("on_sent", "delete"),
        ],
        other: Some("'FAILED'"),
        is_marked: "false",
    },
];

/// One table of the wild.
struct Case {
    outbox: String,
    table: String,
    topic: String,
    id: &'static IdKind,
    payload: &'static (&'static str, &'static str, &'static str, &'static [u8]),
    marking: &'static Marking,
    partitioned: bool,
    zoned: bool,
    seq_type: &'static str,
}

fn cases(round: usize, kafka: &KafkaServer) -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, id) in IDS.iter().enumerate() {
        for (p, payload) in PAYLOADS.iter().enumerate() {
            let n = cases.len();
            let quoted = (n + round) % 2 == 1;
            cases.push(Case {
                outbox: format!("t{n}"),
                table: match quoted {
                    true => format!("\"Sales & Co\".\"Out\"\"Box{n}\""),
                    false => format!("sales.outbox_{n}"),
                },
                topic: kafka.unique_topic("wild"),
                id,
                payload,
                marking: &MARKINGS[(3 * i + p + 4 * round) % MARKINGS.len()],
                partitioned: (i + p + round).is_multiple_of(3),
                zoned: (n / 2 + round).is_multiple_of(2),
                seq_type: match (i + 2 * p + round) % 3 {
                    0 => "bigserial",
                    1 => "serial",
                    _ => "bigint generated by default as identity",
                },
            });
        }
    }
    cases
}

impl Case {
    fn ddl(&self) -> String {
        let (table, columns) = (&self.table, self.marking.columns);
        let id = match self.id.sql_type {
            Some(sql_type) => format!("\"Id\" {sql_type} not null,"),
            None => String::new(),
        };
        let zone = if self.zoned {
            "timestamptz"
        } else {
            "timestamp"
        };
        let mut ddl = format!(
            "create table {table} (\"Seq\" {} not null, {id} \"Type\" varchar(20), key text, \
             \"Payload\" {}, \"At\" {zone}, {columns})",
            // Partitioned by the column, which a serial may be as well.
            self.seq_type,
            self.payload.0
        );
        if self.partitioned {
            ddl.push_str(" partition by range (\"Seq\")");
        }
        ddl.push(';');
        if self.partitioned {
            let name = table.replace("Box", "Part").replace("outbox", "part");
            let second = name.replace("Part", "Second").replace("part", "second");
            let _ = write!(
                ddl,
                "create table {name} partition of {table} for values from (minvalue) to (3);\
                 create table {second} partition of {table} for values from (3) to (maxvalue);"
            );
        }
        let _ = write!(ddl, "create index on {table} (\"Seq\");");
        ddl
    }

    fn options(&self) -> Vec<(String, String)> {
        let id = if self.id.sql_type.is_some() {
            "Id"
        } else {
            "Seq"
        };
        let fixed = [
            ("table", self.table.as_str()),
            ("topic", &self.topic),
            ("envelope", "raw"),
            ("columns.id", "Seq"),
            ("columns.event_id", id),
            ("columns.event_type", "Type"),
            ("columns.aggregate_id", "key"),
            ("columns.payload", "Payload"),
            ("columns.created_at", "At"),
            ("timestamp", "created_at"),
            ("payload_encoding", self.payload.1),
            ("headers.id", "{event_id}"),
            ("headers.type", "{event_type}"),
        ];
        let all = fixed.iter().chain(self.marking.options);
        all.map(|(option, value)| {
            (
                format!("outbox.{}.{option}", self.outbox),
                (*value).to_owned(),
            )
        })
        .collect()
    }

    fn insert(&self, row: usize, other: Option<&str>) -> String {
        let mut columns = "\"Type\", key, \"Payload\", \"At\"".to_owned();
        // The last row has no payload and no key.
        let (key, payload) = match row {
            4 => ("null".to_owned(), "null"),
            _ => (format!("'key-{row}'"), self.payload.2),
        };
        let zone = if self.zoned { "Z" } else { "" };
        let mut values = format!("'thing', {key}, {payload}, '2026-01-02 03:04:05.678{zone}'");
        if self.id.sql_type.is_some() {
            columns.push_str(", \"Id\"");
            let _ = write!(values, ", '{}'", (self.id.value)(row));
        }
        if let Some(other) = other {
            columns.push_str(", status");
            let _ = write!(values, ", {other}");
        }
        format!("insert into {} ({columns}) values ({values});", self.table)
    }

    /// Compares the topic and the table with what the rows ask for.
    async fn check(&self, bootstrap: &str, database: &mut PgConnection) {
        let context = format!("{} {}", self.ddl(), self.topic);
        let mut records = read_all(bootstrap, &self.topic);
        // Only rows of a key have an order.
        records.sort_by_key(|record| {
            let row = (0..ROWS).position(|row| record.header("id") == Some(&(self.id.value)(row)));
            row.expect("the id of a row")
        });
        assert_eq!(records.len(), ROWS, "{context}");
        for (row, record) in records.iter().enumerate() {
            let (key, value) = match row {
                4 => (None, None),
                _ => (Some(format!("key-{row}")), Some(self.payload.3.to_vec())),
            };
            assert_eq!(record.key, key, "{context}");
            assert_eq!(record.value, value, "{context}");
            let headers = [("id", (self.id.value)(row)), ("type", "thing".to_owned())];
            let headers = headers.map(|(name, value)| (name.to_owned(), value));
            assert_eq!(record.headers, headers, "{context}");
            // 2026-01-02T03:04:05.678Z
            assert_eq!(record.timestamp_ms, Some(1_767_323_045_678), "{context}");
        }
        let deletes = self.marking.options.contains(&("on_sent", "delete"));
        let expected = [
            (
                "true",
                if deletes { 0 } else { ROWS } + usize::from(self.marking.other.is_some()),
            ),
            (self.marking.is_marked, if deletes { 0 } else { ROWS }),
        ];
        for (condition, count) in expected {
            let sql = format!("select count(*) from {} where {condition}", self.table);
            assert_eq!(
                number(database, &sql).await,
                count as i64,
                "{sql}\n{context}"
            );
        }
    }
}

/// One relay over all tables of a round.
async fn relays_all(name: &'static str, server: &PostgresServer, round: usize) {
    let database = server.create_database(name).await;
    let kafka = services::kafka().await;
    let mut connection = database.connect().await;
    let preparation = "create schema sales; create schema \"Sales & Co\"; \
         create type event_status as enum ('PENDING', 'SENT', 'FAILED')";
    execute(&mut connection, preparation).await;
    let cases = cases(round, kafka);
    let admin_port = free_port().expect("a free port");
    let mut settings = vec![
        ("postgres.url".to_owned(), database.url.clone()),
        (
            "kafka.bootstrap_servers".to_owned(),
            kafka.bootstrap().to_owned(),
        ),
        ("admin.listen".to_owned(), format!("127.0.0.1:{admin_port}")),
    ];
    for case in &cases {
        execute(&mut connection, &case.ddl()).await;
        for row in 0..ROWS {
            // A row of another state among them.
            if let (2, Some(other)) = (row, case.marking.other) {
                let id = (case.id.sql_type.is_some()).then_some(99);
                if let Some(id) = id {
                    execute(&mut connection, &case.insert(id, Some(other))).await;
                }
            }
            execute(&mut connection, &case.insert(row, None)).await;
        }
        if let (None, Some(other)) = (case.id.sql_type, case.marking.other) {
            // Its id is its place, so it comes after those that are counted.
            execute(&mut connection, &case.insert(ROWS, Some(other))).await;
        }
        kafka.create_topic(&case.topic, 1, &[]).await;
        settings.extend(case.options());
    }
    let mut relay = Relay::new(name, settings);
    relay.migrate().await;
    relay.start_with(&["--until-empty"]);
    assert_eq!(
        relay.wait(PATIENCE).await,
        Some(0),
        "the relay's exit status"
    );
    for case in &cases {
        case.check(kafka.bootstrap(), &mut connection).await;
    }
}

#[tokio::test]
async fn every_shape_of_the_wild_is_relayed_and_marked_on_the_newest_postgres() {
    relays_all("wild_newest", services::postgres().await, 0).await;
}

#[tokio::test]
async fn every_shape_of_the_wild_is_relayed_and_marked_on_postgres_13() {
    relays_all("wild_13", services::postgres_13().await, 1).await;
}
