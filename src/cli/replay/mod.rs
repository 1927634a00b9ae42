//! `outboxd replay`

mod text;

use std::io::{IsTerminal, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use super::{ConfigArgs, Exit, WrongArgument, arguments};
use crate::config::{Config, Field, OutboxConfig};
use crate::db::outbox::sent_rows::Choice;
use crate::relay::replay::{Replay, Survey, Wanted};
use crate::shutdown;

/// `outboxd replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Of this outbox, as the configuration names it [default: the only one]
    #[arg(long, value_name = "NAME")]
    outbox: Option<String>,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Go on after the row with this id, as a replay that was cut off says
    #[arg(long, value_name = "ID", value_parser = arguments::id)]
    after: Option<i64>,
    /// Send at most so many rows a second
    #[arg(long, value_name = "N", value_parser = arguments::number::<u32>(1..=u32::MAX.into()))]
    rate: Option<u32>,
    /// Send events too that are older than their topic's retention.ms: it deletes them soon after they arrive
    #[arg(long)]
    allow_expired: bool,
    /// Warn of events older than this: how long the consumers remember ids
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration)]
    consumer_retention: Option<Duration>,
    /// Say how many rows and what would become of them, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which rows: those that all of these choose.
#[derive(Debug, Args)]
#[group(id = "chosen", required = true, multiple = true)]
struct ChoiceArgs {
    /// The row with this id; may be repeated
    #[arg(long = "id", value_name = "ID", value_parser = arguments::id)]
    ids: Vec<i64>,
    /// The row of the event with this id; may be repeated
    #[arg(long = "event-id", value_name = "ID")]
    event_ids: Vec<String>,
    /// Rows of this Kafka key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Rows of this event type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Rows for this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Rows of this correlation id
    #[arg(long, value_name = "ID", value_parser = arguments::correlation_id)]
    correlation_id: Option<String>,
    /// Rows created at this time or later, such as 2026-01-02T03:04:05Z
    #[arg(long, value_name = "TIME", value_parser = arguments::instant)]
    from: Option<Timestamp>,
    /// Rows created before this time
    #[arg(long, value_name = "TIME", value_parser = arguments::instant)]
    to: Option<Timestamp>,
    /// Every row that was sent and is still there
    #[arg(long)]
    all: bool,
}

/// Where nothing can be drawn, how often a line says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Sends rows again.
///
/// # Errors
/// When the configuration or the schema is wrong, a service does not answer, or a topic cannot take the rows.
pub fn run(args: &ReplayArgs) -> anyhow::Result<Exit> {
    let config = args.config.load()?;
    let outbox = super::outbox(&config, args.outbox.as_deref())?;
    if let (Some(from), Some(to)) = (args.choice.from, args.choice.to) {
        let rule = || WrongArgument {
            argument: "--to",
            rule: format!("must be after --from ({from}), is {to}"),
        };
        anyhow::ensure!(from < to, rule());
    }
    super::runtime()?.block_on(replay(args, &config, outbox))
}

async fn replay(args: &ReplayArgs, config: &Config, outbox: &OutboxConfig) -> anyhow::Result<Exit> {
    let mut stop = shutdown::on_signal()?;
    let context = || format!("outbox \"{}\"", outbox.name);
    let mut replay = Replay::open(config, outbox).await.with_context(context)?;
    if !replay.has_time() && (args.choice.from.is_some() || args.choice.to.is_some()) {
        let (name, field) = (&outbox.name, Field::CreatedAt.name());
        anyhow::bail!(
            "--from and --to: need a column for {field}, outbox.{name}.columns names none"
        );
    }
    let wanted = args.wanted();
    let survey = tokio::select! {
        // Nothing was sent yet. The survey's connection is not used again.
        _ = stop.wait_for(|stop| *stop) => {
            tell!("outboxd: interrupted, nothing was sent");
            return Ok(Exit::Unsettled);
        }
        survey = replay.survey(&wanted, args.consumer_retention) => survey.with_context(context)?,
    };
    for line in text::notes(outbox, &survey, args) {
        tell!("outboxd: {line}");
    }
    let mut out = std::io::stdout();
    if args.dry_run {
        // A closed pipe (`| head`) is no failure, here and below.
        let _ = match args.json {
            true => writeln!(out, "{:#}", text::json(outbox, &survey, None)),
            false => writeln!(out, "would replay {}", text::rows(&survey)),
        };
        return Ok(Exit::Success);
    }
    if let Some(refusal) = text::refusal(&survey).filter(|_| !args.allow_expired) {
        anyhow::bail!(refusal);
    }
    let mut progress = Progress::new(&survey);
    let sent = replay.send(
        &wanted,
        &survey,
        args.rate.and_then(NonZeroU32::new),
        stop,
        |rows| progress.is_at(rows),
    );
    let sent = sent.await.with_context(context)?;
    progress.bar.finish_and_clear();
    let _ = match args.json {
        true => writeln!(out, "{:#}", text::json(outbox, &survey, Some(&sent))),
        false => writeln!(out, "replayed {} of {} rows", sent.rows, survey.rows),
    };
    if let Some(failure) = &sent.failure {
        tell!(
            "outboxd: outbox \"{}\": the replay stopped: {failure}",
            outbox.name
        );
    }
    if sent.is_complete {
        return Ok(match survey.unsendable {
            0 => Exit::Success,
            _ => Exit::Unsettled,
        });
    }
    let after = sent.settled.or(args.after);
    tell!("outboxd: go on with: {}", text::go_on(args, outbox, after));
    Ok(match sent.failure {
        Some(_) => Exit::Failure,
        None => Exit::Unsettled,
    })
}

impl ReplayArgs {
    fn wanted(&self) -> Wanted {
        let choice = &self.choice;
        Wanted {
            choice: Choice {
                ids: (!choice.ids.is_empty()).then(|| choice.ids.clone()),
                event_ids: (!choice.event_ids.is_empty()).then(|| choice.event_ids.clone()),
                key: choice.key.clone(),
                event_type: choice.event_type.clone(),
                correlation_id: choice.correlation_id.clone(),
                from_us: choice.from.map(Timestamp::as_microsecond),
                to_us: choice.to.map(Timestamp::as_microsecond),
            },
            topic: choice.topic.clone(),
            after: self.after,
        }
    }

    /// The file the configuration came from, if a flag named it.
    fn file(&self) -> Option<&PathBuf> {
        self.config.config.as_ref()
    }

    /// Flags that are not repeated in a message, since they may hold secrets.
    fn has_settings(&self) -> bool {
        let ConfigArgs {
            postgres_url,
            kafka,
            options,
            ..
        } = &self.config;
        postgres_url.is_some() || kafka.is_some() || !options.is_empty()
    }
}

/// A bar on a terminal, else a line now and then.
struct Progress {
    bar: ProgressBar,
    rows: u64,
    told_at: Option<Instant>,
}

impl Progress {
    fn new(survey: &Survey) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(survey.rows), ProgressDrawTarget::stderr());
        let template = "{bar:40} {human_pos}/{human_len} rows  {per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Progress {
            bar,
            rows: survey.rows,
            told_at: (!std::io::stderr().is_terminal()).then(Instant::now),
        }
    }

    fn is_at(&mut self, rows: u64) {
        self.bar.set_position(rows);
        if let Some(told_at) = &mut self.told_at
            && told_at.elapsed() >= TELL_EVERY
        {
            *told_at = Instant::now();
            tell!("outboxd: replayed {rows} of {} rows", self.rows);
        }
    }
}
