//! The pictures of the README: terminals of real runs, as SVG. `.ci/pictures` draws them anew.

mod svg;

use std::f64::consts::TAU;
use std::fmt::Write;
use std::num::NonZeroU16;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use outboxd::local::{PostgresRelease, Sandbox};
use rustix::process::Signal;
use vt100::Parser;

use crate::documents::page::root;
use crate::support::command::{command, succeeds};
use crate::support::fixture::{Fixture, connect, execute};
use crate::support::services;
use crate::trace::{CHECKOUT, journey, service};

/// How long the live views are watched: a bar a second, until the graphs are full.
const WATCHED: Duration = Duration::from_secs(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = ".ci/pictures runs it"]
async fn pictures_are_drawn() {
    draw("demo", &demo().await);

    let postgres = services::private_postgres(services::postgres_options(PostgresRelease::NEWEST));
    let postgres = postgres.await;
    let kafka = services::private_kafka(&[]).await;
    let kafka = kafka.bootstrap();
    let mut services = Vec::new();
    for (database, topic) in [
        ("shop", "order-events"),
        ("payments", "payment-events"),
        ("shipping", "shipment-events"),
    ] {
        services::create_topic(&kafka, topic, 1, &[("max.message.bytes", "20000")]).await;
        execute(
            &mut connect(&postgres.url("postgres")).await,
            &format!("create database {database}"),
        )
        .await;
        let url = postgres.url(database);
        let fixture = Fixture::on_topic(database, &url, &kafka, topic.to_owned());
        let fixture = fixture.await;
        let migrate = fixture
            .relay
            .command(&["migrate", "--trace-index"])
            .output();
        succeeds(&migrate.expect("running outboxd"));
        services.push(service(fixture, database != "shop").await);
    }
    let [shop, payments, shipping] = &mut services[..] else {
        unreachable!("three of them")
    };
    journey([shop, payments, shipping], &[None, Some(CHECKOUT)]).await;
    draw("trace", &trace(shop, &[payments, shipping]));
    draw("status", &status(shop).await);
}

async fn demo() -> Parser {
    let terminal = Terminal::start((108, 26), &command(&["demo", "--rate", "60"]));
    tokio::time::sleep(WATCHED).await;
    terminal.screen()
}

/// A topic that is missing, a row that is too large, and orders that come and go.
async fn status(shop: &mut Fixture) -> Parser {
    let too_large = "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
                     values ('order', 'ord_7', 'order.placed', to_json(repeat(md5(random()::text), 1000)))";
    execute(&mut shop.database, too_large).await;
    let terminal = Terminal::start((132, 9), &shop.relay.command(&["status", "--watch"]));
    let started = Instant::now();
    while started.elapsed() < WATCHED {
        let wave = (started.elapsed().as_secs_f64() / 20.0 * TAU).sin();
        let orders = format!(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
             select 'order', 'ord_' || n, 'order.placed', '{{}}' from generate_series(1, {}) n; \
             insert into outbox_events (aggregate_type, aggregate_id, event_type, topic) \
             values ('return', 'ret_1', 'return.announced', 'return-events')",
            (30.0 + 25.0 * wave) as u32
        );
        execute(&mut shop.database, &orders).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    terminal.screen()
}

fn trace(shop: &Fixture, others: &[&Fixture]) -> Parser {
    let mut shown = "$ outboxd trace checkout-42".to_owned();
    let mut arguments = vec!["trace", CHECKOUT];
    for other in others {
        let database = other.url.rsplit('/').next().unwrap_or_default();
        let _ = write!(shown, " --database postgres://…/{database}");
        arguments.extend(["--database", &other.url]);
    }
    let output = shop.relay.command(&arguments).output();
    shown = shown + "\n" + succeeds(&output.expect("running outboxd")).trim_end();
    let columns = shown
        .lines()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0);
    let rows = shown.lines().count();
    screen(
        (columns as u16, rows as u16),
        shown.replace('\n', "\r\n").as_bytes(),
    )
}

/// A program in a terminal.
struct Terminal {
    sandbox: Sandbox,
    /// Columns and rows.
    size: (u16, u16),
}

impl Terminal {
    fn start(size: (u16, u16), command: &Command) -> Terminal {
        let (columns, rows) = size;
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let quoted = words.map(|word| format!("'{}' ", word.display()));
        let program: String = quoted.collect();
        let sandbox = Sandbox::create("terminal", None, Signal::TERM);
        let mut sandbox = sandbox.expect("a folder for the terminal");
        // Of util-linux, and so everywhere: it gives the program a terminal, and writes down what is drawn on it.
        let mut script = sandbox.command(Path::new("script"));
        script
            .env("TERM", "xterm-256color")
            .args(["--quiet", "--flush", "--command"]);
        script.arg(format!("stty cols {columns} rows {rows}; exec {program}"));
        script.arg(DRAWN);
        sandbox.run(script, "script.log").expect("starting script");
        Terminal { sandbox, size }
    }

    /// What it shows now.
    fn screen(&self) -> Parser {
        let drawn = std::fs::read(self.sandbox.directory().join(DRAWN)).expect("what was drawn");
        // Its first line is script's own.
        let start = drawn
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        screen(self.size, &drawn[start..])
    }
}

const DRAWN: &str = "drawn";

/// A screen of this size, after all that was written to it.
fn screen((columns, rows): (u16, u16), written: &[u8]) -> Parser {
    let size = |length| NonZeroU16::new(length).expect("a length");
    let mut parser = Parser::new(size(rows), size(columns), 0);
    parser.process(written);
    parser
}

fn draw(name: &str, shown: &Parser) {
    let path = root().join(format!("docs/pictures/{name}.svg"));
    std::fs::write(path, svg::of(shown.screen())).expect("writing the picture");
}

/// They are of no machine in particular.
#[test]
fn no_picture_has_a_path() {
    for name in ["demo", "status", "trace"] {
        let path = root().join(format!("docs/pictures/{name}.svg"));
        let picture = std::fs::read_to_string(path).expect("the picture");
        for part in ["/tmp", "/home", "/root", "/usr", "target/debug"] {
            assert!(!picture.contains(part), "{name} has {part}");
        }
    }
}
