//! `bench start`: from the start of the process to its first event at a consumer.

use std::fmt::{self, Display};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;

use super::BenchError;
use super::consumer::Consumer;
use super::limits;
use super::load::Writer;
use super::relay::RelayProcess;
use super::spread::Spread;
use super::workspace::Workspace;

/// How often to start.
#[derive(Debug, Clone)]
pub struct StartOptions {
    pub runs: usize,
    /// The length of the payload in bytes.
    pub payload: usize,
    pub seed: u64,
}

/// Of `bench start`.
#[derive(Debug, Serialize)]
pub struct StartReport {
    pub payload_bytes: usize,
    pub owned_ms: Spread,
    pub consumed_ms: Spread,
    pub limit_ms: Spread,
    pub runs: Vec<StartRun>,
}

/// One start of a process.
#[derive(Debug, Serialize)]
pub struct StartRun {
    /// Until it has taken the lease.
    pub owned_ms: f64,
    /// Until its first event is at a consumer.
    pub consumed_ms: f64,
    /// The same row to the same consumer without a relay, over new connections.
    pub limit_ms: f64,
    pub clean_stop: bool,
}

/// Starts a relay on a table with one row, `runs` times; before each start the same row is sent without a relay.
///
/// # Errors
/// When something could not be measured.
pub async fn start(
    workspace: &Workspace,
    options: &StartOptions,
    bar: &ProgressBar,
) -> Result<StartReport, BenchError> {
    bar.set_length(options.runs as u64);
    let mut runs = Vec::with_capacity(options.runs);
    for _ in 0..options.runs {
        runs.push(run(workspace, options).await?);
        bar.inc(1);
    }
    let of = |value: fn(&StartRun) -> f64| Spread::of(runs.iter().map(value));
    Ok(StartReport {
        payload_bytes: options.payload,
        owned_ms: of(|run| run.owned_ms),
        consumed_ms: of(|run| run.consumed_ms),
        limit_ms: of(|run| run.limit_ms),
        runs,
    })
}

async fn run(workspace: &Workspace, options: &StartOptions) -> Result<StartRun, BenchError> {
    let mut stage = workspace.stage().await?;
    let mut consumer = Consumer::start(workspace.kafka(), &stage.topic, workspace.partitions())?;
    let connection = workspace.connect().await?;
    let table = stage.table.clone();
    let mut writer = Writer::new(connection, table, (0, 1), options.seed, options.payload);
    writer.write(Instant::now()).await?;

    // The consumer connects with the first message; its time is not the second's.
    let mut limit = Duration::ZERO;
    for _ in 0..2 {
        let by_hand = Instant::now();
        limits::first(workspace, &stage).await?;
        limit = consumer.arrival().await?.at - by_hand;
    }

    let (mut relay, owned) = RelayProcess::start(&mut stage).await?;
    let arrived = relay.unless_it_ends(consumer.arrival()).await?;
    let clean_stop = relay.stop().await?;
    let spawned_at = owned.at - owned.start_up;
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
    Ok(StartRun {
        owned_ms: millis(owned.start_up),
        consumed_ms: millis(arrived.at.saturating_duration_since(spawned_at)),
        limit_ms: millis(limit),
        clean_stop,
    })
}

impl Display for StartReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "one row with {} B of payload, ms from the start of the process\n",
            self.payload_bytes
        )?;
        writeln!(
            f,
            "{:>6} {:>10} {:>10} {:>10}",
            "run", "owned", "consumed", "limit"
        )?;
        let mut line = |name: &dyn Display, owned: f64, consumed: f64, limit: f64| {
            writeln!(f, "{name:>6} {owned:>10.0} {consumed:>10.0} {limit:>10.0}")
        };
        for (index, run) in self.runs.iter().enumerate() {
            line(&(index + 1), run.owned_ms, run.consumed_ms, run.limit_ms)?;
        }
        let (owned, consumed, limit) = (&self.owned_ms, &self.consumed_ms, &self.limit_ms);
        line(&"median", owned.median, consumed.median, limit.median)?;
        line(&"min", owned.min, consumed.min, limit.min)?;
        line(&"max", owned.max, consumed.max, limit.max)?;
        writeln!(
            f,
            "\nowned: it has the lease; consumed: the event is at a consumer; \
             limit: the same row without a relay, over new connections"
        )
    }
}
