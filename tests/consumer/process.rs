//! A consumer as a process of its own: this very test program, started again.

use std::time::{Duration, Instant};

use fastrand::Rng;
use outboxd::inbox::consumer::{Consumer, Event, HandlerResult, Tx};
use outboxd::local::Sandbox;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;

use super::stage::{Stage, Step, note};

/// Names the settings in the environment of such a process.
const SETTINGS: &str = "OUTBOXD_TEST_CONSUMER";

/// What it logs when it can be stopped.
const READY: &str = "listening to signals";

const LOG: &str = "consumer.log";

/// How long a process may take to end by itself: the consumer's own deadline is 20 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// What the process is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    pub url: String,
    pub bootstrap: String,
    pub topics: Vec<String>,
    /// Of the consumer, which is its identity.
    pub name: String,
    /// Kafka's group: another one of the same consumer believes that all partitions are its own.
    pub group: String,
    pub handler: Handler,
}

/// What its handler does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Handler {
    /// Notes the effect.
    Note,
    /// Notes the effect and never ends for n = 0, with a word outside its transaction.
    HangAtZero,
    /// Adds to a balance, and fails now and then.
    Balance { failure_percent: u8 },
}

/// The process, which ends with this value.
pub struct Process {
    sandbox: Sandbox,
    settings: Settings,
    /// How often the log said [`READY`] before the last start.
    ready_before: usize,
}

impl Process {
    pub fn new(settings: Settings) -> Process {
        Process {
            sandbox: Sandbox::create("consumer", None, Signal::KILL).expect("a directory"),
            settings,
            ready_before: 0,
        }
    }

    /// The consumer of the stage, in a process.
    pub fn of(stage: &Stage, handler: Handler) -> Process {
        Process::new(Settings {
            url: stage.url.clone(),
            bootstrap: stage.bootstrap.to_owned(),
            topics: vec![stage.topic.clone()],
            name: stage.name.clone(),
            group: stage.name.clone(),
            handler,
        })
    }

    pub fn set_handler(&mut self, handler: Handler) {
        self.settings.handler = handler;
    }

    pub fn set_group(&mut self, group: String) {
        self.settings.group = group;
    }

    pub fn start(&mut self) {
        let program = std::env::current_exe().expect("this program");
        let mut command = self.sandbox.command(&program);
        let settings = serde_json::to_string(&self.settings).expect("settings");
        command
            .args(["--exact", "consumer::process::the_consumer", "--ignored"])
            .args(["--nocapture", "--test-threads=1"])
            .env(SETTINGS, settings);
        self.ready_before = self.log().matches(READY).count();
        self.sandbox.run(command, LOG).expect("starting a consumer");
    }

    pub fn is_running(&mut self) -> bool {
        self.sandbox.pid().is_some()
    }

    pub async fn kill(&mut self) {
        let killed = self.sandbox.end(Signal::KILL, PATIENCE).await;
        killed.expect("killing a consumer");
    }

    /// SIGTERM, and a clean end.
    pub async fn stop(&mut self) {
        // Before it listens to signals there is no clean end.
        let deadline = Instant::now() + PATIENCE;
        while self.log().matches(READY).count() <= self.ready_before {
            assert!(
                Instant::now() < deadline && self.is_running(),
                "it is never ready"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let stopped = self.sandbox.end(Signal::TERM, PATIENCE).await;
        stopped.expect("stopping a consumer");
        let status = self.sandbox.exit_status();
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }

    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        let pid = self.sandbox.pid().expect("the consumer runs");
        let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
        kill_process(pid, signal).expect("sending a consumer a signal");
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.sandbox.directory().join(LOG)).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the last lines of the log of a consumer:");
            for line in &lines[lines.len().saturating_sub(30)..] {
                eprintln!("{line}");
            }
        }
    }
}

/// Not a test of its own: what [`Process::start`] runs.
#[test]
#[ignore = "a process that other tests start"]
fn the_consumer() {
    let Ok(settings) = std::env::var(SETTINGS) else {
        return;
    };
    let settings: Settings = serde_json::from_str(&settings).expect("settings");
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(consume(settings));
}

async fn consume(settings: Settings) {
    let mut stopping = outboxd::shutdown::on_signal().expect("signals");
    tracing::info!("{READY}");
    let pool = PgPoolOptions::new()
        .max_connections(5)
        .connect(&settings.url)
        .await
        .expect("connecting");
    let marks = pool.clone();
    let consumer = Consumer::new(settings.name, pool)
        .kafka([
            ("bootstrap.servers", &*settings.bootstrap),
            ("group.id", &settings.group),
            ("session.timeout.ms", "1000"),
            ("heartbeat.interval.ms", "300"),
            ("fetch.wait.max.ms", "20"),
        ])
        .topics(settings.topics)
        .backoff(Duration::from_millis(20), Duration::from_millis(200))
        .attempts(1_000.try_into().expect("not zero"));
    let consumer = match settings.handler {
        Handler::Note => consumer.on("step", super::stage::noting),
        Handler::HangAtZero => consumer.on("step", move |mut tx: Tx, event: Event<Step>| {
            let marks = marks.clone();
            async move {
                note(&mut tx, &event.data).await?;
                if event.data.n == 0 {
                    sqlx::query("insert into marks default values")
                        .execute(&marks)
                        .await?;
                    std::future::pending::<()>().await;
                }
                HandlerResult::Ok(())
            }
        }),
        Handler::Balance { failure_percent } => consumer
            .on("step", move |tx: Tx, event: Event<Step>| {
                add_to_balance(tx, event, failure_percent)
            }),
    };
    let stop = async {
        // The sender lives as long as the process.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let ended = consumer.run_until(stop).await.expect("the consumer");
    assert_eq!(ended.unfinished_batches, 0);
}

/// The account's row is locked before the effect draws its number, so that numbers are in the order of
/// the effects.
async fn add_to_balance(mut tx: Tx, event: Event<Step>, failure_percent: u8) -> HandlerResult {
    let step = &event.data;
    sqlx::query("update accounts set balance = balance + $1 where key = $2")
        .bind(step.n)
        .bind(&step.key)
        .execute(&mut *tx)
        .await?;
    note(&mut tx, step).await?;
    if Rng::new().u8(0..100) < failure_percent {
        return Err("as bad luck will have it".into());
    }
    Ok(())
}
