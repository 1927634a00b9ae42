//! `outboxd trace`

use std::io::Write;

use clap::Args;

use super::{ConfigArgs, Exit, WrongArgument, arguments};
use crate::config::PostgresUrl;
use crate::trace::{self, Wanted};

/// `outboxd trace`
#[derive(Debug, Args)]
pub struct TraceArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The correlation id; of what an event without one has caused it is that event's id
    #[arg(value_parser = arguments::correlation_id)]
    correlation_id: String,
    /// Look into this database, too: what its consumers have processed, and its outboxes; may be repeated
    #[arg(long = "database", value_name = "URL")]
    databases: Vec<String>,
    /// Look through so many rows of an outbox at most, the newest, where no index helps (`outboxd migrate
    /// --trace-index` makes one)
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = arguments::number::<i64>(1..=i64::MAX))]
    scan: i64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl TraceArgs {
    /// A URL that cannot be read is not repeated: it may hold a password.
    fn databases(&self) -> Result<Vec<PostgresUrl>, WrongArgument> {
        let read = |url: &String| {
            PostgresUrl::parse(url).map_err(|rule| WrongArgument {
                argument: "--database",
                rule,
            })
        };
        self.databases.iter().map(read).collect()
    }
}

/// Shows the journey of a correlation id; fails if nothing of it is found.
///
/// # Errors
/// When the configuration or a schema is wrong, or a database does not answer.
pub fn run(args: &TraceArgs) -> anyhow::Result<Exit> {
    let config = args.config.load_without_kafka()?;
    let wanted = Wanted {
        correlation_id: args.correlation_id.clone(),
        databases: args.databases()?,
        most_scanned: args.scan,
    };
    let trace = super::runtime()?.block_on(trace::look(&config, &wanted))?;
    let shown = match args.json {
        true => format!("{:#}\n", trace::json::report(&trace)),
        false => trace::text::page(&trace),
    };
    // A closed pipe (`| head`) is no failure.
    let _ = std::io::stdout().write_all(shown.as_bytes());
    Ok(match trace.tree.events {
        0 => Exit::Failure,
        _ => Exit::Success,
    })
}
