//! `outboxd bench`

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{ConfigArgs, Exit, arguments, examples};
use crate::bench::{
    Aside, BenchError, DrainOptions, EnvelopeOptions, IdleOptions, LatencyOptions, Load, Names,
    Report, StartOptions, Workspace, drain, envelope, idle, latency, start,
};
use crate::config::EnvelopeFormat;
use crate::shutdown;

/// `outboxd bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    #[command(flatten)]
    Relay(Box<RelayBench>),
    /// How fast rows become messages in each envelope, beside copying them; needs no server
    #[command(after_help = examples::BENCH_ENVELOPE)]
    Envelope(EnvelopeArgs),
}

/// What is measured on a relay between a database and a topic of the benchmark's own.
#[derive(Debug, Subcommand)]
enum RelayBench {
    /// How fast a backlog is published and marked, beside what the machine allows
    #[command(after_help = examples::BENCH_DRAIN)]
    Drain(DrainArgs),
    /// How long it takes from an event's commit to its arrival at a consumer
    #[command(after_help = examples::BENCH_LATENCY)]
    Latency(LatencyArgs),
    /// What waiting for events costs
    #[command(after_help = examples::BENCH_IDLE)]
    Idle(IdleArgs),
    /// How long it takes from the start of a relay to its first event at a consumer
    #[command(after_help = examples::BENCH_START)]
    Start(StartArgs),
}

/// What all benchmarks have in common.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    config: ConfigArgs,
    /// Relay with the options of this outbox; its table and topic are left alone [default: the only one]
    #[arg(long, value_name = "NAME")]
    outbox: Option<String>,
    /// Partitions of the benchmark's topic
    #[arg(long, default_value_t = 3, value_parser = arguments::number::<i32>(1..=1000))]
    partitions: i32,
    /// Mark or delete what was sent [default: as the outbox is configured]
    #[arg(long, value_name = "mark|delete", value_parser = ["mark", "delete"])]
    on_sent: Option<String>,
    /// Publish in this envelope
    #[arg(long, value_name = "FORMAT", default_value = "native",
          value_parser = EnvelopeFormat::ALL.iter().map(|format| format.as_str()).collect::<Vec<_>>())]
    envelope: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Leave the schema and the last topic for a look at them
    #[arg(long)]
    keep: bool,
}

/// What is drawn into the rows.
#[derive(Debug, Args)]
struct Rows {
    /// Bytes of a row's payload; with the default a whole row has about 500
    #[arg(long, value_name = "BYTES", default_value_t = 350, value_parser = arguments::number::<usize>(32..=900_000))]
    payload: usize,
    /// Different keys, drawn at random, some of them often
    #[arg(long, default_value_t = 10_000, value_parser = arguments::number::<usize>(1..=100_000_000))]
    keys: usize,
    /// Draws the same keys and payloads again
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct DrainArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    drawn: Rows,
    /// Rows of the backlog
    #[arg(long, default_value_t = 200_000, value_parser = arguments::number::<usize>(1..=1_000_000_000))]
    rows: usize,
    /// Times to measure the limits and drain a backlog, in turn; the median counts
    #[arg(long, default_value_t = 1, value_parser = arguments::number::<usize>(1..=1000))]
    runs: usize,
    /// Park so many rows before the backlog
    #[arg(long, value_name = "ROWS", value_parser = arguments::number::<usize>(1..=200_000))]
    parked: Option<usize>,
    /// Have so many rows of a blocked key wait before the backlog
    #[arg(long, value_name = "ROWS", conflicts_with = "parked", value_parser = arguments::number::<usize>(1..=100_000_000))]
    blocked: Option<usize>,
}

#[derive(Debug, Args)]
struct LatencyArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    drawn: Rows,
    /// Transactions a second, of all writers together
    #[arg(long, default_value_t = 1000, value_parser = arguments::number::<usize>(1..=1_000_000))]
    rate: usize,
    /// Connections that insert
    #[arg(long, default_value_t = 8, value_parser = arguments::number::<usize>(1..=1000))]
    writers: usize,
    /// How long to insert
    #[arg(long, default_value_t = 20, value_parser = arguments::number::<usize>(1..=86_400))]
    seconds: usize,
    /// Insert single events, each after a pause, instead of a paced load
    #[arg(long, conflicts_with_all = ["rate", "writers", "seconds"])]
    quiet: bool,
    /// With --quiet: how many events
    #[arg(long, default_value_t = 20, requires = "quiet", value_parser = arguments::number::<usize>(1..=100_000))]
    events: usize,
    /// With --quiet: the pause before each
    #[arg(long, default_value = "2s", requires = "quiet", value_parser = arguments::duration)]
    pause: Duration,
}

#[derive(Debug, Args)]
struct IdleArgs {
    #[command(flatten)]
    common: Common,
    /// How long to watch
    #[arg(long, default_value_t = 30, value_parser = arguments::number::<usize>(1..=86_400))]
    seconds: usize,
}

#[derive(Debug, Args)]
struct StartArgs {
    #[command(flatten)]
    common: Common,
    /// Bytes of the row's payload
    #[arg(long, value_name = "BYTES", default_value_t = 350, value_parser = arguments::number::<usize>(32..=900_000))]
    payload: usize,
    /// Draws the same payload again
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Times to start; the median counts
    #[arg(long, default_value_t = 7, value_parser = arguments::number::<usize>(1..=1000))]
    runs: usize,
}

#[derive(Debug, Args)]
struct EnvelopeArgs {
    /// Bytes of a row's payload
    #[arg(long, value_name = "BYTES", default_value_t = 500, value_parser = arguments::number::<usize>(32..=900_000))]
    payload: usize,
    /// Draws the same rows again
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Times to measure every envelope, in turn; the median counts
    #[arg(long, default_value_t = 5, value_parser = arguments::number::<usize>(1..=1000))]
    runs: usize,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Measures, prints what was found, and removes what was made.
///
/// # Errors
/// When something could not be measured, or not be removed.
pub fn run(args: &BenchArgs) -> anyhow::Result<Exit> {
    let bench = match &args.bench {
        Bench::Relay(bench) => &**bench,
        Bench::Envelope(args) => {
            let options = EnvelopeOptions {
                payload: args.payload,
                seed: args.seed,
                runs: args.runs,
            };
            print(&Report::Envelope(envelope(&options)?), args.json)?;
            return Ok(Exit::Success);
        }
    };
    let common = match bench {
        RelayBench::Drain(args) => &args.common,
        RelayBench::Latency(args) => &args.common,
        RelayBench::Idle(args) => &args.common,
        RelayBench::Start(args) => &args.common,
    };
    let workspace = common.workspace()?;
    let (report, cleared) = super::runtime()?.block_on(async {
        let mut stop = shutdown::on_signal()?;
        let bar = progress();
        let measured = tokio::select! {
            biased;
            // 1. Interrupted. Whatever the benchmark had started ends when it is dropped.
            _ = stop.wait_for(|stop| *stop) => Err(BenchError::Interrupted),
            // 2. Done.
            measured = measure(bench, &workspace, &bar) => measured,
        };
        bar.finish_and_clear();
        let cleared = match common.keep {
            true => {
                let (schema, topics) = workspace.made();
                tell!("kept schema {schema} and topic {}", topics.join(", "));
                Ok(())
            }
            false => workspace.clear().await,
        };
        // What went wrong first counts more than what was left.
        anyhow::Ok((measured?, cleared))
    })?;
    print(&report, common.json)?;
    cleared.context("removing what the benchmark made")?;
    let faults = report.faults();
    for fault in &faults {
        tell!("outboxd: {fault}");
    }
    match faults.is_empty() {
        true => Ok(Exit::Success),
        false => Ok(Exit::Failure),
    }
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    // A closed pipe (`| head`) is no failure.
    let _ = match json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(report)?),
        false => write!(out, "{report}"),
    };
    Ok(())
}

async fn measure(
    bench: &RelayBench,
    workspace: &Workspace,
    bar: &ProgressBar,
) -> Result<Report, BenchError> {
    match bench {
        RelayBench::Drain(args) => {
            let options = DrainOptions {
                rows: args.rows,
                payload: args.drawn.payload,
                keys: args.drawn.keys,
                seed: args.drawn.seed,
                runs: args.runs,
                aside: match args.blocked {
                    Some(rows) => Aside::Blocked { rows },
                    None => Aside::Parked {
                        rows: args.parked.unwrap_or(0),
                    },
                },
            };
            drain(workspace, &options, bar).await.map(Report::Drain)
        }
        RelayBench::Latency(args) => {
            let options = LatencyOptions {
                load: match args.quiet {
                    true => Load::Quiet {
                        events: args.events,
                        pause: args.pause,
                    },
                    false => Load::Paced {
                        rate: args.rate,
                        writers: args.writers,
                        duration: Duration::from_secs(args.seconds as u64),
                    },
                },
                payload: args.drawn.payload,
                keys: args.drawn.keys,
                seed: args.drawn.seed,
            };
            latency(workspace, &options, bar).await.map(Report::Latency)
        }
        RelayBench::Idle(args) => {
            let options = IdleOptions {
                duration: Duration::from_secs(args.seconds as u64),
            };
            bar.set_message("watching the relay wait");
            idle(workspace, &options).await.map(Report::Idle)
        }
        RelayBench::Start(args) => {
            let options = StartOptions {
                runs: args.runs,
                payload: args.payload,
                seed: args.seed,
            };
            start(workspace, &options, bar).await.map(Report::Start)
        }
    }
}

impl Common {
    /// The configuration of the chosen outbox, moved to a table of the benchmark's own.
    fn workspace(&self) -> anyhow::Result<Workspace> {
        let configured = self.config.load()?;
        let name = super::outbox(&configured, self.outbox.as_deref())?
            .name
            .clone();
        let names = Names::draw();
        let mut sources = self.config.clone();
        let mut set = |option: &str, value: &str| {
            sources.options.push((option.to_owned(), value.to_owned()));
        };
        set("postgres.schema", &names.schema);
        set("admin.listen", "off");
        // The relay's log is shown only if it ends by itself.
        set("log.level", "warn");
        set("log.format", "human");
        set(&format!("outbox.{name}.table"), &names.table());
        set(&format!("outbox.{name}.envelope"), &self.envelope);
        if let Some(on_sent) = &self.on_sent {
            set(&format!("outbox.{name}.on_sent"), on_sent);
        }
        let config = sources.load()?;
        let outbox = config.outboxes.get(&name).cloned();
        let outbox = outbox.context("reading the configuration again")?;
        Ok(Workspace::new(names, config, outbox, self.partitions)?)
    }
}

/// On a terminal; elsewhere nothing is drawn.
fn progress() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {human_pos}/{human_len}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
