//! Where the blocks of a page are run, one after the other, as a reader would.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use outboxd::local::Sandbox;
use rustix::process::Signal;
use sqlx::PgConnection;

use super::page::{Block, root};
use crate::support::command::errors;
use crate::support::fixture::{PATIENCE, connect, execute};
use crate::support::services::{self, TestDatabase};

const TABLES: &str = include_str!("stage.sql");

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Between two events of the application, while somebody watches.
const WRITE_EVERY: Duration = Duration::from_millis(200);

/// What a reader has at the top of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// The tables of an application, and nothing of outboxd's.
    Bare,
    /// Besides, its addresses in the environment.
    Addressed,
    /// Besides, its own tables in both databases, and a relay that runs.
    Installed,
}

/// What a command does once it has printed what it is to print.
#[derive(Clone, Copy)]
enum Then {
    Ends,
    GoesOn,
}

/// A folder to work in, two databases, a Kafka, and at most one relay.
pub struct Stage {
    sandbox: Sandbox,
    /// Names in the pages, and what stands for them here.
    names: [(&'static str, String); 3],
    shop: PgConnection,
    billing: PgConnection,
    _databases: [TestDatabase; 2],
}

impl Stage {
    pub async fn open(begin: Begin) -> Stage {
        let postgres = services::postgres().await;
        let shop = postgres.create_database("shop").await;
        let billing = postgres.create_database("billing").await;
        let names = [
            ("postgres://relay:secret@localhost/shop", shop.url.clone()),
            (
                "postgres://owner:secret@localhost/billing",
                billing.url.clone(),
            ),
            (
                "localhost:9092",
                services::kafka().await.bootstrap().to_owned(),
            ),
        ];
        let sandbox = Sandbox::create("page", None, Signal::KILL).expect("a folder for the page");
        let mut stage = Stage {
            sandbox,
            names,
            shop: connect(&shop.url).await,
            billing: connect(&billing.url).await,
            _databases: [shop, billing],
        };
        let admin = outboxd::local::free_port().expect("a free port");
        let listen = format!("export OUTBOXD_ADMIN__LISTEN=127.0.0.1:{admin}\n");
        stage.write_file(ENVIRONMENT, &listen);
        execute(&mut stage.shop, TABLES).await;
        execute(&mut stage.billing, TABLES).await;
        if begin != Begin::Bare {
            stage.succeeds(
                "export OUTBOXD_POSTGRES__URL=postgres://relay:secret@localhost/shop\n\
                 export OUTBOXD_KAFKA__BOOTSTRAP_SERVERS=localhost:9092\n\
                 export OUTBOXD_KAFKA__CREATE_TOPICS__ENABLED=true",
            );
        }
        if begin == Begin::Installed {
            stage.succeeds(
                "outboxd migrate\n\
                 outboxd migrate --inbox --postgres-url postgres://owner:secret@localhost/billing",
            );
            stage.start("outboxd run").await;
        }
        stage
    }

    /// Runs the block, or has it checked as far as can be.
    pub async fn run(&mut self, block: &Block) {
        if let Some(reason) = block.note("unrun") {
            block.expect_notes(&["unrun"]);
            assert!(
                !reason.is_empty(),
                "{}: unrun for which reason?",
                block.place
            );
            return self.parses(block);
        }
        match &*block.language {
            "sh" => self.shell(block).await,
            "sql" => self.sql(block).await,
            "toml" => self.toml(block),
            "rust" => is_an_excerpt(block),
            "json" => {
                block.expect_notes(&[]);
                let parsed: Result<serde_json::Value, _> = serde_json::from_str(&block.text);
                parsed.unwrap_or_else(|error| panic!("{}: {error}", block.place));
            }
            other => panic!(
                "{}: nobody runs {other:?}, and no unrun says why (see tests/documents/mod.rs)",
                block.place
            ),
        }
    }

    async fn shell(&mut self, block: &Block) {
        block.expect_notes(&["background", "shows", "until", "exit"]);
        if block.note("background").is_some() {
            return self.start(&block.text).await;
        }
        if let Some(text) = block.note("shows") {
            return self.shows(block, text, Then::Ends).await;
        }
        if let Some(text) = block.note("until") {
            return self.shows(block, text, Then::GoesOn).await;
        }
        let expected = block
            .note("exit")
            .map_or(0, |status| status.parse().expect("a status"));
        let output = self.bash(&block.text).output().expect("running bash");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            errors(&output)
        );
        assert_eq!(
            output.status.code(),
            Some(expected),
            "{}:\n{said}",
            block.place
        );
    }

    /// Starts a relay, and waits until it is ready.
    async fn start(&mut self, relay: &str) {
        let command = self.bash(&format!("exec {relay}"));
        self.sandbox
            .run(command, "relay.log")
            .expect("starting bash");
        let deadline = Instant::now() + PATIENCE;
        while !self
            .bash("outboxd probe --ready")
            .output()
            .expect("running bash")
            .status
            .success()
        {
            assert!(
                Instant::now() < deadline,
                "the relay is not ready:\n{}",
                self.file("relay.log")
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Runs a command, again and again if it ends, until it has printed this. The application writes meanwhile.
    async fn shows(&mut self, block: &Block, text: &str, then: Then) {
        let deadline = Instant::now() + PATIENCE;
        let mut next_write = Instant::now();
        loop {
            let watched = Sandbox::create("watched", None, Signal::KILL);
            let mut watched = watched.expect("a folder for the output");
            let command = self.bash(&format!("exec {}", block.text));
            watched.run(command, "shown").expect("running bash");
            loop {
                let ended = watched.exit_status();
                let shown = std::fs::read_to_string(watched.directory().join("shown"));
                let shown = shown.unwrap_or_default();
                let is_over = match then {
                    Then::Ends => ended.is_some_and(|status| status.success()),
                    Then::GoesOn => true,
                };
                if is_over && shown.contains(text) {
                    return;
                }
                assert!(
                    Instant::now() < deadline,
                    "{}: no {text:?} in\n{shown}",
                    block.place
                );
                if Instant::now() > next_write {
                    execute(&mut self.shop, EVENT).await;
                    next_write = Instant::now() + WRITE_EVERY;
                }
                tokio::time::sleep(POLL).await;
                if ended.is_some() {
                    break;
                }
            }
        }
    }

    async fn sql(&mut self, block: &Block) {
        block.expect_notes(&["database"]);
        let connection = match block.note("database") {
            None => &mut self.shop,
            Some("billing") => &mut self.billing,
            Some(other) => panic!("{}: there is no database {other}", block.place),
        };
        execute(connection, &block.text).await;
    }

    /// `check` accepts it. It lies in the folder from then on.
    fn toml(&mut self, block: &Block) {
        block.expect_notes(&["file"]);
        let file = block.note("file").unwrap_or("outboxd.toml");
        self.write_file(file, &self.translated(&block.text));
        self.succeeds(&format!(
            "OUTBOXD_POSTGRES__URL=postgres://relay:secret@localhost/shop \
             outboxd check --kafka localhost:9092 --config {file}"
        ));
    }

    /// What is not run is at least a script.
    fn parses(&self, block: &Block) {
        assert_eq!(
            block.language, "sh",
            "{}: only sh can be unrun",
            block.place
        );
        let output = Command::new("bash")
            .args(["-n", "-c", &block.text])
            .output();
        let output = output.expect("running bash");
        assert!(
            output.status.success(),
            "{}: {}",
            block.place,
            errors(&output)
        );
    }

    fn succeeds(&self, script: &str) {
        let output = self.bash(script).output().expect("running bash");
        assert!(output.status.success(), "{script}:\n{}", errors(&output));
    }

    /// A script in the folder, with the variables that earlier ones have exported, and no others.
    fn bash(&self, script: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_outboxd"));
        let programs = program.parent().expect("its folder").display();
        let script = format!(
            "set -euo pipefail\n. ./{ENVIRONMENT}\ntrap 'export -p > {ENVIRONMENT}' EXIT\n{}",
            self.translated(script)
        );
        let mut command = self.sandbox.command(Path::new("bash"));
        command
            .env_clear()
            .env("PATH", format!("{programs}:/usr/local/bin:/usr/bin:/bin"))
            .args(["-c", &script]);
        command
    }

    fn translated(&self, text: &str) -> String {
        let names = self.names.iter();
        names.fold(text.to_owned(), |text, (name, here)| {
            text.replace(name, here)
        })
    }

    fn write_file(&self, name: &str, text: &str) {
        self.sandbox.write(name, text).expect("writing a file");
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.sandbox.directory().join(name)).unwrap_or_default()
    }
}

/// The variables that a page's scripts have exported.
const ENVIRONMENT: &str = "environment";

/// What the application writes while somebody watches.
const EVENT: &str = "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
                     values ('order', 'ord_2', 'order.placed', '{}')";

/// Rust is never run here: it is what stands in a file that cargo compiles, in code or in its documentation. A line
/// `// …` leaves something out.
fn is_an_excerpt(block: &Block) {
    block.expect_notes(&["from"]);
    let from = block
        .note("from")
        .unwrap_or_else(|| panic!("{}: from which file?", block.place));
    let code = std::fs::read_to_string(root().join(from)).expect("the file");
    let code = plain_lines(&code);
    let mut rest = &code[..];
    for part in plain_lines(&block.text).split(|line| line == "// …") {
        let at = rest.windows(part.len()).position(|window| window == part);
        let at = at.unwrap_or_else(|| {
            panic!(
                "{}: this is not in {from}:\n{}",
                block.place,
                part.join("\n")
            )
        });
        rest = &rest[at + part.len()..];
    }
}

/// Without indentation and the marks of documentation.
fn plain_lines(code: &str) -> Vec<String> {
    let lines = code.lines().map(str::trim);
    lines
        .map(|line| {
            line.trim_start_matches("//!")
                .trim_start_matches("///")
                .trim()
                .to_owned()
        })
        .collect()
}
