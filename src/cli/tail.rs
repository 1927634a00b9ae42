//! `outboxd tail`

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Context;
use clap::Args;

use super::{ConfigArgs, Exit, arguments};
use crate::config::{Config, OutboxConfig};
use crate::kafka::KafkaClient;
use crate::tail::{Facts, Filter, Follower, HeaderNames, Next, Wanted, text};

/// `outboxd tail`
#[derive(Debug, Args)]
pub struct TailArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Follow the topics of this outbox, as the configuration names it [default: of all]
    #[arg(long, value_name = "NAME", conflicts_with = "topics")]
    outbox: Option<String>,
    /// Follow this topic instead of those that the outboxes' templates can become: needed for topics that rows name
    /// themselves; may be repeated
    #[arg(long = "topic", value_name = "TOPIC", value_parser = arguments::topic)]
    topics: Vec<String>,
    /// Only events of this type; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    event_types: Vec<String>,
    /// Only events of this Kafka key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only events of this correlation id
    #[arg(long, value_name = "ID", value_parser = arguments::correlation_id)]
    correlation_id: Option<String>,
    /// Show payloads, too
    #[arg(long)]
    payload: bool,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = arguments::number::<u64>(1..=i64::MAX))]
    count: Option<u64>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Shows events as they are published, until it is interrupted.
///
/// # Errors
/// When the configuration is wrong, or Kafka does not answer at the start.
pub fn run(args: &TailArgs) -> anyhow::Result<Exit> {
    let config = args.config.load()?;
    super::runtime()?.block_on(follow(args, &config))
}

async fn follow(args: &TailArgs, config: &Config) -> anyhow::Result<Exit> {
    let outboxes = args.outboxes(config)?;
    let wanted = match args.topics.is_empty() {
        true => Wanted::of(outboxes.iter().copied()),
        false => Wanted::Named(args.topics.clone()),
    };
    let headers = HeaderNames::of(outboxes.into_iter());
    let filter = args.filter();
    let context = || format!("reading from Kafka at {}", config.kafka.bootstrap_servers);
    let client = KafkaClient::new(&config.kafka);
    let mut follower = Follower::at_the_end(&client, wanted)
        .await
        .with_context(context)?;
    tell!("outboxd: following {}", listed(follower.topics()));
    let mut left = args.count;
    while left != Some(0) {
        let record = match follower.next().await.with_context(context)? {
            Next::Record(record) => record,
            Next::Topics(new) => {
                let new = listed(new.iter().map(String::as_str).collect());
                tell!("outboxd: following {new} from its beginning, too");
                continue;
            }
            Next::Down => {
                tell!("outboxd: no broker answers, waiting for one");
                continue;
            }
        };
        let facts = Facts::of(&record, &headers);
        if !filter.takes(&record, &facts) {
            continue;
        }
        let line = match args.json {
            true => text::json(&record, &facts, args.payload).to_string(),
            false => text::line(&record, &facts, args.payload),
        };
        let mut out = std::io::stdout().lock();
        // A closed pipe (`| head`) is no failure.
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            break;
        }
        left = left.map(|left| left - 1);
    }
    Ok(Exit::Success)
}

impl TailArgs {
    fn outboxes<'c>(&self, config: &'c Config) -> anyhow::Result<Vec<&'c OutboxConfig>> {
        match &self.outbox {
            None => Ok(config.outboxes.values().collect()),
            Some(name) => Ok(vec![super::outbox(config, Some(name))?]),
        }
    }

    fn filter(&self) -> Filter {
        Filter {
            event_types: self.event_types.clone(),
            key: self.key.clone(),
            correlation_id: self.correlation_id.clone(),
        }
    }
}

fn listed(topics: BTreeSet<&str>) -> String {
    match topics.is_empty() {
        true => "no topic yet".to_owned(),
        false => topics.into_iter().collect::<Vec<_>>().join(", "),
    }
}
