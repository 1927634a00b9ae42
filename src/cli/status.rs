//! `outboxd status`

use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::watch;

use super::{ConfigArgs, Exit, arguments};
use crate::config::Config;
use crate::outage::chain;
use crate::shutdown;
use crate::status::ask::reachable;
use crate::status::report::Report;
use crate::status::view::{History, View};
use crate::status::{self, LookError, text};
use crate::terminal::{Screen, Theme, Wish, can_be_drawn_on};

/// `outboxd status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Ask the relay whose admin port is here [default: admin.listen]; what it does not know, and everything if it
    /// does not answer, is looked up in Postgres
    #[arg(long, value_name = "HOST:PORT", value_parser = arguments::address)]
    relay: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Go on: a live view on a terminal, else lines
    #[arg(long)]
    watch: bool,
}

/// Between two reports.
const EVERY: Duration = Duration::from_secs(1);

/// A report that took long is made again so many times its duration later: of a large backlog Postgres has to
/// count much.
const IDLE_FACTOR: u32 = 10;

/// How often the screen is drawn: keys are to be answered at once.
const FRAME: Duration = Duration::from_millis(100);

/// Shows how the outboxes stand.
///
/// # Errors
/// When the configuration or the schema is wrong, or neither a relay nor Postgres answers.
pub fn run(args: &StatusArgs) -> anyhow::Result<Exit> {
    let config = args.config.load_without_kafka()?;
    let relay = args.relay.clone().or(config
        .admin
        .listen
        .map(|listen| reachable(listen).to_string()));
    super::runtime()?.block_on(async {
        match args.watch {
            false => show(args, &config, relay.as_deref()).await,
            true if !args.json && can_be_drawn_on() => watch(config, relay).await,
            true => go_on(args, &config, relay.as_deref()).await,
        }
    })
}

async fn show(args: &StatusArgs, config: &Config, relay: Option<&str>) -> anyhow::Result<Exit> {
    let report = status::look(config, relay).await?;
    let shown = match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => text::page(&report),
    };
    // A closed pipe (`| head`) is no failure, here and below.
    let _ = std::io::stdout().write_all(shown.as_bytes());
    Ok(match report.stuck.is_empty() {
        true => Exit::Success,
        false => Exit::Unsettled,
    })
}

/// One line, or one JSON object, after the other, until nobody reads them.
async fn go_on(args: &StatusArgs, config: &Config, relay: Option<&str>) -> anyhow::Result<Exit> {
    loop {
        let started = Instant::now();
        let lines = match status::look(config, relay).await {
            Ok(report) if args.json => vec![serde_json::to_string(&report)?],
            Ok(report) => text::lines(&report),
            Err(error) => {
                tell!("outboxd: {}", chain(&error));
                Vec::new()
            }
        };
        let mut out = std::io::stdout().lock();
        let written = lines.iter().try_for_each(|line| writeln!(out, "{line}"));
        if written.and_then(|()| out.flush()).is_err() {
            return Ok(Exit::Success);
        }
        drop(out);
        tokio::time::sleep(pause(started.elapsed())).await;
    }
}

fn pause(took: Duration) -> Duration {
    EVERY.saturating_sub(took).max(took * IDLE_FACTOR)
}

/// The live view, until whoever watches has seen enough.
async fn watch(config: Config, relay: Option<String>) -> anyhow::Result<Exit> {
    let stop = shutdown::on_signal()?;
    let (tell, told) = watch::channel(None);
    let asking = tokio::spawn(async move {
        loop {
            let started = Instant::now();
            let looked = status::look(&config, relay.as_deref()).await;
            if tell.send(Some(looked)).is_err() {
                return;
            }
            tokio::time::sleep(pause(started.elapsed())).await;
        }
    });
    let watched = draw(told, stop).await;
    asking.abort();
    watched.map(|()| Exit::Success)
}

async fn draw(
    mut told: watch::Receiver<Option<Result<Report, LookError>>>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let theme = Theme::of_environment();
    let mut screen = Screen::open()?;
    let mut history = History::default();
    let (mut report, mut problem) = (None, None);
    let mut frames = tokio::time::interval(FRAME);
    while !*stop.borrow() {
        if told.has_changed()? {
            match &*told.borrow_and_update() {
                Some(Ok(new)) => {
                    history.add(new, Instant::now());
                    (report, problem) = (Some(new.clone()), None);
                }
                Some(Err(error)) => problem = Some(chain(error)),
                None => {}
            }
        }
        let view = View {
            report: report.as_ref(),
            history: &history,
            problem: problem.as_deref(),
            theme,
        };
        if screen.draw(|frame| view.render(frame)) == Wish::Stop {
            break;
        }
        frames.tick().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_listens_everywhere_is_asked_on_this_machine() {
        for (listen, asked) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("10.0.0.1:3", "10.0.0.1:3"),
        ] {
            let listen = listen.parse().expect("an address");
            assert_eq!(reachable(listen).to_string(), asked);
        }
    }
}
