//! `outboxd run`

use std::time::Duration;

use clap::Args;

use super::{ConfigArgs, Exit, arguments};
use crate::app::{App, Until};
use crate::{shutdown, telemetry};

/// `outboxd run`
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Publish what is committed now, then exit; rows that wait for a decision (parked, behind a parked one, paused)
    /// are not waited for, but counted, and the exit status is 75
    #[arg(long)]
    until_empty: bool,
    /// With --until-empty: give up after this time, listing what is left
    #[arg(long, value_name = "DURATION", requires = "until_empty", value_parser = arguments::duration)]
    timeout: Option<Duration>,
}

/// Relays until stopped.
///
/// # Errors
/// When the configuration is wrong or the relay cannot run at all.
pub fn run(args: &RunArgs) -> anyhow::Result<Exit> {
    let config = args.config.load()?;
    telemetry::init(&config.log);
    let until = match args.until_empty {
        true => Until::Empty {
            timeout: args.timeout,
        },
        false => Until::Stopped,
    };
    let outcome = super::runtime()?.block_on(async {
        let stop = shutdown::on_signal()?;
        anyhow::Ok(App::build(config)?.run(stop, until).await?)
    })?;
    for (outbox, rows) in &outcome.undecided {
        tell!(
            "outboxd: outbox \"{outbox}\": rows remain that wait for a decision: {rows} (see outboxd dead list and \
             outboxd pause --list)"
        );
    }
    for (outbox, rows) in &outcome.remaining {
        tell!("outboxd: outbox \"{outbox}\": rows remain unpublished, the first of them:");
        for row in rows {
            let (aggregate_type, event_type) = (&row.aggregate_type, &row.event_type);
            tell!(
                "  {} {} {} {}",
                row.id,
                row.event_id,
                aggregate_type.as_deref().unwrap_or_default(),
                event_type.as_deref().unwrap_or_default()
            );
        }
    }
    let is_empty = outcome.undecided.is_empty() && outcome.remaining.is_empty();
    match outcome.ended.is_settled() && is_empty {
        true => Ok(Exit::Success),
        false => Ok(Exit::Unsettled),
    }
}
