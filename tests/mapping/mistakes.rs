//! Every kind of mistake in a mapping is found at start, each with its own message.

use std::process::Output;

use crate::support::command::{outboxd, succeeds};
use crate::support::fixture::execute;
use crate::support::services;

/// A table that fits, for mistakes to be made in it.
const COLUMNS: &str = "seq bigint generated always as identity primary key, id uuid not null, \
     key text, type text, payload jsonb, sent_at timestamptz, status text not null default 'NEW'";

const MAPPING: [(&str, &str); 6] = [
    ("columns.id", "seq"),
    ("columns.event_id", "id"),
    ("columns.aggregate_id", "key"),
    ("columns.event_type", "type"),
    ("columns.payload", "payload"),
    ("sent.column", "sent_at"),
];

/// A mapping by status, instead of `sent_at`.
const BY_STATUS: [(&str, &str); 3] = [
    ("sent.column", "status"),
    ("sent.unsent", "NEW"),
    ("sent.sent", "DONE"),
];

struct Mistake {
    /// What makes the table; `{columns}` stands for those above, `{t}` for the table.
    ddl: &'static str,
    /// Options that differ from [`MAPPING`].
    options: &'static [(&'static str, &'static str)],
    /// After the table.
    message: &'static str,
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        ddl: "select",
        options: &[],
        message: ": does not exist",
    },
    Mistake {
        ddl: "create table {t}_rows ({columns}); create view {t} as select * from {t}_rows",
        options: &[],
        message: ": is a view, must be a table",
    },
    Mistake {
        ddl: "create table {t} ({columns})",
        options: &[("columns.event_type", "typ"), ("columns.topic", "Key")],
        message: ": column \"typ\" (columns.event_type) does not exist; \
                  column \"Key\" (columns.topic) does not exist",
    },
    Mistake {
        ddl: "create table {t} ({columns}, due interval)",
        options: &[("columns.payload", "due")],
        message: ": column \"due\" (columns.payload) must be json, jsonb, text, varchar or bytea, is interval",
    },
    Mistake {
        ddl: "create table {t} ({columns}, at date)",
        options: &[("columns.created_at", "at")],
        message: ": column \"at\" (columns.created_at) must be timestamptz or timestamp, is date",
    },
    Mistake {
        ddl: "create table {t} ({columns})",
        options: &[("sent.column", "status")],
        message: ": column \"status\" (sent.column, without values) must be timestamptz, timestamp or boolean, \
                  is text",
    },
    Mistake {
        ddl: "create table {t} ({columns})",
        options: &[("sent.unsent", "NEW"), ("sent.sent", "DONE")],
        message: ": column \"sent_at\" (sent.column, with values) must be text, varchar, char or an enumeration, \
                  is timestamp with time zone",
    },
    Mistake {
        ddl: "create table {t} ({columns}); alter table {t} alter id drop not null",
        options: &[],
        message: ": column \"id\" (columns.event_id) must be not null",
    },
    Mistake {
        ddl: "create table {t} ({columns}, serial bigserial); alter table {t} alter serial drop not null; \
              create index on {t} (serial)",
        options: &[("columns.id", "serial")],
        message: ": column \"serial\" (columns.id) must be not null",
    },
    Mistake {
        ddl: "create table {t} ({columns}); alter table {t} alter seq drop identity",
        options: &[],
        message: ": column \"seq\" must draw its values from a sequence (an identity, serial, or a default of \
                  nextval), has none: ids made by clients do not say which rows are still to come",
    },
    Mistake {
        ddl: "create table {t} ({columns}); create sequence {t}_ids; \
              alter table {t} alter seq drop identity, alter seq set default nextval('{t}_ids') * 10",
        options: &[],
        message: ": column \"seq\" must draw its values from a sequence (an identity, serial, or a default of \
                  nextval), has none: ids made by clients do not say which rows are still to come",
    },
    Mistake {
        ddl: "create table {t} ({columns}); alter table {t} alter seq set cache 50 set increment 50 set cycle",
        options: &[],
        message: ": the sequence of column \"seq\" must have INCREMENT 1, CACHE 1 and NO CYCLE, has 50, 50 and \
                  CYCLE: ids must be drawn in the order of their locks",
    },
    Mistake {
        ddl: "create table {t} ({columns}); alter table {t} drop constraint {t}_pkey; create index on {t} (key, seq)",
        options: &[],
        message: ": no index gives the unsent rows in the order of column \"seq\" (columns.id): create index on \
                  public.{t} (\"seq\") where \"sent_at\" is null",
    },
    Mistake {
        ddl: "create table {t} ({columns}); alter table {t} drop constraint {t}_pkey; \
              create index on {t} (seq) where status = 'NEW'",
        options: &[],
        message: ": no index gives the unsent rows in the order of column \"seq\" (columns.id): create index on \
                  public.{t} (\"seq\") where \"sent_at\" is null",
    },
    Mistake {
        ddl: "create table {t} ({columns}); alter table {t} drop constraint {t}_pkey; create index on {t} (status); \
              create index on {t} (seq) where status = 'NEW'",
        options: &[
            BY_STATUS[0],
            BY_STATUS[1],
            BY_STATUS[2],
            ("sent.at", "sent_at"),
            ("retention", "1d"),
        ],
        message: ": no index gives the sent rows, which retention walks, in the order of column \"seq\" (columns.id): \
                  create index on public.{t} (\"seq\")",
    },
    Mistake {
        ddl: "create table {t} ({columns})",
        options: &[
            BY_STATUS[0],
            BY_STATUS[1],
            BY_STATUS[2],
            ("retention", "1d"),
        ],
        message: ": column \"status\" (sent.column) is text and does not say when a row was sent: name a timestamp \
                  as sent.at, or set retention to \"forever\"",
    },
    Mistake {
        ddl: "create table {t} ({columns}, done boolean generated always as (sent_at is not null) stored)",
        options: &[("sent.column", "done")],
        message: ": column \"done\" (sent) must not be a generated column",
    },
    Mistake {
        ddl: "create table {t} ({columns}); create function {t}_touch() returns trigger language plpgsql \
              as 'begin return null; end'; \
              create trigger touch before update on {t} for each row execute function {t}_touch(); \
              create trigger other before update of key on {t} for each row execute function {t}_touch(); \
              create trigger after after update on {t} for each row execute function {t}_touch(); \
              create trigger gone before delete on {t} for each row execute function {t}_touch(); \
              create trigger off before update on {t} for each row execute function {t}_touch(); \
              alter table {t} disable trigger off",
        options: &[],
        message: ": trigger \"touch\" runs before each UPDATE and can refuse or change it: drop it, or name it in \
                  trusted_triggers if it does neither",
    },
    Mistake {
        ddl: "create table {t} ({columns}); create function {t}_touch() returns trigger language plpgsql \
              as 'begin return null; end'; \
              create trigger touch before update on {t} for each row execute function {t}_touch(); \
              create trigger gone before delete on {t} for each row execute function {t}_touch()",
        options: &[("on_sent", "delete")],
        message: ": trigger \"gone\" runs before each DELETE and can refuse or change it: drop it, or name it in \
                  trusted_triggers if it does neither",
    },
    Mistake {
        ddl: "create table {t} ({columns}); create rule keep as on update to {t} do instead nothing",
        options: &[],
        message: ": rule \"keep\" rewrites each UPDATE: drop it",
    },
    Mistake {
        ddl: "create table {t} ({columns}, born timestamptz not null default now())",
        options: &[("sent.column", "born")],
        message: ": column \"born\" (sent.column) must allow null, which it is until the row is sent",
    },
    Mistake {
        ddl: "create table {t} ({columns}); alter table {t} alter sent_at set default now()",
        options: &[],
        message: ": column \"sent_at\" (sent.column) has the default now(), with which rows are born as sent and \
                  are never published: drop it, or set that of an unsent row",
    },
    Mistake {
        ddl: "create table {t} ({columns}, done boolean not null default true)",
        options: &[("sent.column", "done")],
        message: ": column \"done\" (sent.column) has the default true, with which rows are born as sent and \
                  are never published: drop it, or set that of an unsent row",
    },
    Mistake {
        ddl: "create table {t} ({columns}); alter table {t} alter status set default 'DONE'",
        options: &BY_STATUS,
        message: ": column \"status\" (sent.column) has the default 'DONE'::text, with which rows are born as sent and \
                  are never published: drop it, or set that of an unsent row",
    },
    Mistake {
        ddl: "create domain {t}_time timestamptz default clock_timestamp(); create table {t} ({columns}, at {t}_time)",
        options: &[("sent.column", "at")],
        message: ": column \"at\" (sent.column) has the default clock_timestamp(), with which rows are born as sent and \
                  are never published: drop it, or set that of an unsent row",
    },
    Mistake {
        ddl: "create table {t} ({columns}); alter table {t} drop constraint {t}_pkey; create index on {t} (seq); \
              create publication {t}_all for table {t}; \
              create publication {t}_inserts for table {t} with (publish = 'insert')",
        options: &[],
        message: ": publication \"{t}_all\" publishes each UPDATE, which Postgres refuses without a replica identity: \
                  give the table a primary key or a replica identity, or take it out of the publication",
    },
    Mistake {
        ddl: "create type {t}_status as enum ('NEW', 'SENT'); create table {t} ({columns}, state {t}_status)",
        options: &[
            ("sent.column", "state"),
            ("sent.unsent", "NEW"),
            ("sent.sent", "DONE"),
        ],
        message: ": column \"state\" (sent.column) has no label \"DONE\" (sent.sent), has NEW, SENT",
    },
    Mistake {
        ddl: "create table {t} ({columns}, constraint known check (status in ('NEW', 'SENT')))",
        options: &BY_STATUS,
        message: ": constraint \"known\" refuses what marks a row: column \"status\" (sent.column) set to 'DONE'",
    },
    Mistake {
        ddl: "create table {t} ({columns}, state varchar(3) not null default 'NEW')",
        options: &[
            ("sent.column", "state"),
            ("sent.unsent", "NEW"),
            ("sent.sent", "DONE"),
        ],
        message: ": column \"state\" (sent.column) is character varying(3), too short for \"DONE\"",
    },
];

/// What `outboxd run` does with the mapping.
fn run(url: &str, table: &str, options: &[(&str, &str)]) -> Output {
    let fixed = [("table", table), ("envelope", "raw"), ("topic", "topic")];
    let options = fixed.iter().chain(&MAPPING).chain(options);
    let settings: Vec<String> = options
        .map(|(option, value)| format!("--set=outbox.o.{option}={value}"))
        .collect();
    let mut arguments = vec!["run", "--postgres-url", url, "--kafka", "localhost:1"];
    // A mapping that passes ends as well.
    arguments.extend(["--until-empty", "--timeout", "30s"]);
    arguments.extend(["--set", "admin.listen=off", "--set", "log.format=human"]);
    arguments.extend(settings.iter().map(String::as_str));
    outboxd(&arguments)
}

/// The last line that it printed, and its exit status.
fn end(output: &Output) -> (String, Option<i32>) {
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_default();
    (last.to_owned(), output.status.code())
}

#[tokio::test]
async fn every_mistake_of_a_mapping_is_found_at_start_with_its_own_message() {
    let database = services::postgres().await.create_database("mistakes").await;
    succeeds(&outboxd(&["migrate", "--postgres-url", &database.url]));
    let mut connection = database.connect().await;
    for (index, mistake) in MISTAKES.iter().enumerate() {
        let table = format!("t{index}");
        let ddl = mistake.ddl.replace("{columns}", COLUMNS);
        execute(&mut connection, &ddl.replace("{t}", &table)).await;
        let found = end(&run(&database.url, &table, mistake.options));
        let message = mistake.message.replace("{t}", &table);
        let expected = format!("outboxd: outbox \"o\": table public.{table}{message}");
        assert_eq!(found, (expected, Some(78)), "{ddl}");
    }
}
