//! `bench drain`: how fast a backlog is published and marked, beside the limits of the machine.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::BenchError;
use super::consumer::verify;
use super::limits;
use super::relay::RelayProcess;
use super::report::{DrainReport, DrainRun, Relayed};
use super::spread::Spread;
use super::workspace::{Stage, Workspace};
use crate::db::bench::{Backlog, PAYLOAD_FRAME};

/// What to drain, how often.
#[derive(Debug, Clone)]
pub struct DrainOptions {
    pub rows: usize,
    /// The length of a payload in bytes.
    pub payload: usize,
    pub keys: usize,
    pub seed: u64,
    pub runs: usize,
    pub aside: Aside,
}

/// Rows that stay where they are, before the backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// Each is parked.
    Parked { rows: usize },
    /// All are of one key, which the first blocks.
    Blocked { rows: usize },
}

impl Aside {
    pub const NOTHING: Aside = Aside::Parked { rows: 0 };

    fn rows(self) -> usize {
        match self {
            Aside::Parked { rows } | Aside::Blocked { rows } => rows,
        }
    }
}

/// The key of rows that wait for a decision.
const BLOCKED: &str = "blocked";

/// Rows of one insert.
const FILL_ROWS: i64 = 20_000;

/// Different fillings of payloads, a power of two: enough that a compressed message set does not find
/// each one again.
const PADS: usize = 256;

/// How often the table is asked whether the last rows are marked. The question is answered by an index
/// in some 50 µs, so this is a hundredth of a core.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// How often the whole table is looked at for progress, and how long there may be none.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// Drains `runs` backlogs; before each, the limits are measured on the same rows.
///
/// # Errors
/// When something could not be measured. Losses and the like are in the report.
pub async fn drain(
    workspace: &Workspace,
    options: &DrainOptions,
    bar: &ProgressBar,
) -> Result<DrainReport, BenchError> {
    let mut runs = Vec::new();
    for run in 1..=options.runs {
        let say = |what: &str| bar.set_message(format!("run {run} of {}: {what}", options.runs));
        say("filling the table for the limits");
        let mut stage = filled(workspace, options, Aside::NOTHING, bar).await?;
        say("reading, producing and marking alone");
        let limits = limits::measure(workspace, &mut stage).await?;
        drop(stage);
        say("filling the table for the relay");
        let mut stage = filled(workspace, options, options.aside, bar).await?;
        say("relaying");
        let relayed = relay(workspace, &mut stage, options, say).await?;
        runs.push(DrainRun {
            ratio: relayed.rows_per_second / limits.chain,
            relay: relayed,
            limits,
        });
    }
    let of = |value: fn(&DrainRun) -> f64| Spread::of(runs.iter().map(value));
    Ok(DrainReport {
        rows: options.rows,
        aside: match options.aside {
            Aside::NOTHING => None,
            Aside::Parked { rows } => Some(format!("{rows} parked rows")),
            Aside::Blocked { rows } => Some(format!("{rows} rows of a blocked key")),
        },
        payload_bytes: options.payload,
        keys: options.keys,
        partitions: workspace.partitions(),
        seed: options.seed,
        on_sent: workspace.outbox().on_sent.as_str(),
        envelope: workspace.outbox().envelope.as_str(),
        rows_per_second: of(|run| run.relay.rows_per_second),
        chain_rows_per_second: of(|run| run.limits.chain),
        ratio: of(|run| run.ratio),
        runs,
    })
}

async fn filled(
    workspace: &Workspace,
    options: &DrainOptions,
    aside: Aside,
    bar: &ProgressBar,
) -> Result<Stage, BenchError> {
    let mut stage = workspace.stage().await?;
    let mut random = fastrand::Rng::with_seed(options.seed);
    let length = options.payload.saturating_sub(PAYLOAD_FRAME);
    let mut backlog = Backlog {
        keys: options.keys as i64,
        // Any 64 bits will do.
        seed: options.seed as i64,
        pads: (0..PADS)
            .map(|_| {
                std::iter::repeat_with(|| random.alphanumeric())
                    .take(length)
                    .collect()
            })
            .collect(),
        key: match aside {
            Aside::Blocked { .. } => Some(BLOCKED.to_owned()),
            Aside::Parked { .. } => None,
        },
    };
    fill(&mut stage, aside.rows(), &backlog, bar).await?;
    if let Some((_, last)) = stage.unsent_range().await? {
        let (rows, blocks) = match aside {
            Aside::Parked { rows } => (rows, false),
            Aside::Blocked { .. } => (1, true),
        };
        let Stage {
            table,
            topic,
            connection,
            ..
        } = &mut stage;
        table.park(connection, topic, rows as i64, blocks).await?;
        stage.aside_upto = last;
    }
    backlog.key = None;
    fill(&mut stage, options.rows, &backlog, bar).await?;
    stage.table.settle_down(&mut stage.connection).await?;
    Ok(stage)
}

async fn fill(
    stage: &mut Stage,
    rows: usize,
    backlog: &Backlog,
    bar: &ProgressBar,
) -> Result<(), BenchError> {
    bar.set_length(rows as u64);
    let rows = rows as i64;
    for first in (1..=rows).step_by(FILL_ROWS as usize) {
        let last = rows.min(first + FILL_ROWS - 1);
        let part = (first, last);
        stage
            .table
            .fill(&mut stage.connection, part, backlog)
            .await?;
        bar.set_position(last as u64);
    }
    Ok(())
}

async fn relay(
    workspace: &Workspace,
    stage: &mut Stage,
    options: &DrainOptions,
    say: impl Fn(&str),
) -> Result<Relayed, BenchError> {
    let rows = limits::rows(workspace, stage).await?;
    let first = stage.unsent_range().await?.map_or(0, |(first, _)| first);
    let (mut relay, owned) = RelayProcess::start(stage).await?;
    let before = relay.usage()?;
    let first_at = relay.unless_it_ends(marked(stage, first)).await?;
    let done_at = relay.unless_it_ends(settled(stage)).await?;
    let after = relay.usage()?;
    let settled = relay.stop().await?;

    say("checking what arrived");
    let verdict = verify(
        workspace.kafka(),
        &stage.topic,
        workspace.partitions(),
        rows,
    )
    .await?;
    let since_lease = |at: Instant| at.saturating_duration_since(owned.at).as_secs_f64();
    let (first_seconds, seconds) = (since_lease(first_at), since_lease(done_at));
    Ok(Relayed {
        rows_per_second: options.rows as f64 / seconds,
        seconds,
        start_seconds: owned.start_up.as_secs_f64(),
        first_seconds,
        flowing_rows_per_second: options.rows as f64 / (seconds - first_seconds),
        cpu_percent: 100.0 * (after.cpu_seconds - before.cpu_seconds) / seconds,
        cpu_seconds: after.cpu_seconds,
        peak_memory_bytes: after.peak_memory_bytes,
        clean_stop: settled,
        verdict,
    })
}

/// Waits until this row is not unsent any more, and says when that was.
async fn marked(stage: &mut Stage, row: i64) -> Result<Instant, BenchError> {
    let started_at = Instant::now();
    while stage.any_unsent(row, row).await? {
        if started_at.elapsed() > PATIENCE {
            return Err(stalled(row));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(Instant::now())
}

fn stalled(row: i64) -> BenchError {
    BenchError::Stalled {
        awaited: format!("the relay to send row {row}"),
        seconds: PATIENCE.as_secs(),
    }
}

/// Waits until no row of the backlog is unsent, and says when that was.
async fn settled(stage: &mut Stage) -> Result<Instant, BenchError> {
    let window = i64::from(stage.outbox.window_rows.get());
    let mut remaining = stage.unsent_range().await?;
    let mut moved_at = Instant::now();
    let mut looked_at = Instant::now();
    while let Some((first, last)) = remaining {
        // Marks come nearly in the order of ids, so what is asked often is whether the last row is
        // marked, then whether all of the last window are.
        let first_of_window = (last - window).max(stage.aside_upto.saturating_add(1));
        let open =
            stage.any_unsent(last, last).await? || stage.any_unsent(first_of_window, last).await?;
        let seen_at = Instant::now();
        if !open {
            remaining = stage.unsent_range().await?;
            if remaining.is_none() {
                return Ok(seen_at);
            }
        } else if looked_at.elapsed() > LOOK_EVERY {
            let before = remaining;
            remaining = stage.unsent_range().await?;
            looked_at = Instant::now();
            if remaining != before {
                moved_at = looked_at;
            } else if moved_at.elapsed() > PATIENCE {
                return Err(stalled(first));
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(Instant::now())
}
