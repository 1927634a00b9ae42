//! `outboxd inbox`

use std::io::Write;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{ConfigArgs, Exit, arguments, examples};
use crate::config::{Config, InboxConfig};
use crate::db::migrate::verify_inbox;
use crate::db::{Database, Role};
use crate::inbox::{ConsumerName, Count, Inbox, InboxStatus, Prune, consumers};
use crate::kafka::{KafkaClient, TopicRetention, Topics};

/// `outboxd inbox`
#[derive(Debug, Args)]
pub struct InboxArgs {
    #[command(subcommand)]
    command: InboxCommand,
}

#[derive(Debug, Subcommand)]
enum InboxCommand {
    /// Show what each consumer of a database remembers
    #[command(after_help = examples::INBOX_STATUS)]
    Status(StatusArgs),
    /// Forget processed ids that are older than the retention
    #[command(after_help = examples::INBOX_PRUNE)]
    Prune(PruneArgs),
    /// Show a consumer's dead letters, send them back, or give them up
    #[command(after_help = examples::DLQ)]
    Dlq(super::dlq::DlqArgs),
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Show this consumer only; may be repeated
    #[arg(long = "consumer", value_name = "NAME", value_parser = arguments::consumer)]
    consumers: Vec<ConsumerName>,
    /// Compare the retention with this topic's own, besides those of inbox.topics; may be repeated
    #[arg(long = "topic", value_name = "TOPIC", value_parser = arguments::topic)]
    topics: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct PruneArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Prune this consumer only; may be repeated
    #[arg(long = "consumer", value_name = "NAME", value_parser = arguments::consumer)]
    consumers: Vec<ConsumerName>,
    /// How long ids are remembered, from when they were processed [default: inbox.retention]
    #[arg(long, value_name = "DURATION")]
    retention: Option<String>,
    /// How long to wait for transactions that are older than the pruning
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = arguments::duration)]
    wait: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When the configuration or the schema is wrong, or Postgres or Kafka refuses something.
pub fn run(args: InboxArgs) -> anyhow::Result<Exit> {
    super::runtime()?.block_on(async {
        match args.command {
            InboxCommand::Status(args) => status(args).await,
            InboxCommand::Prune(args) => prune(args).await,
            InboxCommand::Dlq(args) => super::dlq::run(&args).await,
        }
    })
}

async fn status(args: StatusArgs) -> anyhow::Result<Exit> {
    let config = args.config.load_without_kafka()?;
    let mut connection = connect(&config).await?;
    let mut out = std::io::stdout();
    let mut consumers = Vec::new();
    for inbox in inboxes(&mut connection, &config, &args.consumers).await? {
        let status = inbox.status(&mut connection).await?;
        // A closed pipe (`| head`) is no failure, here and below.
        match args.json {
            true => consumers.push(described(&status)),
            false => drop(out.write_all(describe(&status).as_bytes())),
        }
    }
    let warnings = outliving(&args, &config).await?;
    match args.json {
        true => drop(writeln!(
            out,
            "{:#}",
            json!({"consumers": consumers, "warnings": warnings})
        )),
        false => {
            for warning in warnings {
                tell!("outboxd: warning: {warning}");
            }
        }
    }
    Ok(Exit::Success)
}

/// Warnings about the topics that are configured or named.
async fn outliving(args: &StatusArgs, config: &Config) -> anyhow::Result<Vec<String>> {
    let topics = config.inbox.topics.iter().chain(&args.topics);
    let topics: Vec<&str> = topics.map(String::as_str).collect();
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    // Now Kafka must be configured, too.
    let config = args.config.load()?;
    let kept = Topics::new(&KafkaClient::new(&config.kafka))?
        .retention(&topics)
        .await
        .context("comparing the topics of --topic and inbox.topics with inbox.retention")?;
    Ok(warnings(&config.inbox, topics.iter().copied().zip(kept)))
}

async fn prune(args: PruneArgs) -> anyhow::Result<Exit> {
    let mut sources = args.config.clone();
    if let Some(retention) = &args.retention {
        sources
            .options
            .push(("inbox.retention".to_owned(), retention.clone()));
    }
    let config = sources.load_without_kafka()?;
    let mut connection = connect(&config).await?;
    let options = Prune {
        lock_timeout: config.postgres.lock_timeout,
        patience: args.wait,
        ..Prune::after(config.inbox.retention)
    };
    let mut exit = Exit::Success;
    let mut done = Vec::new();
    for inbox in inboxes(&mut connection, &config, &args.consumers).await? {
        let pruned = inbox.prune(&mut connection, &options).await?;
        let consumer = inbox.consumer();
        if pruned.waiting_for > 0 {
            exit = Exit::Unsettled;
            tell!(
                "outboxd: consumer \"{consumer}\": nothing was pruned, because {} transactions that began \
                 before did not end within {}; try again later",
                pruned.waiting_for,
                humantime::format_duration(args.wait)
            );
        }
        if args.json {
            done.push(json!({
                "consumer": consumer.as_str(),
                "forgotten": pruned.deleted,
                "waitingFor": pruned.waiting_for,
            }));
        } else if pruned.waiting_for == 0 {
            let forgot = pruned.deleted;
            let _ = writeln!(std::io::stdout(), "{consumer}: forgot {forgot} ids");
        }
    }
    if args.json {
        let _ = writeln!(std::io::stdout(), "{:#}", json!({"consumers": done}));
    }
    Ok(exit)
}

/// A connection to a database whose schema fits.
async fn connect(config: &Config) -> anyhow::Result<PgConnection> {
    let database = Database::new(&config.postgres)?;
    let mut session = database.connect("inbox", Role::Gauge).await?;
    session.begin().await?;
    verify_inbox(&mut session, config.postgres.schema.as_str()).await?;
    session.commit().await?;
    Ok(database.connect_direct("inbox").await?)
}

/// Of the named consumers, or of all there are.
async fn inboxes(
    connection: &mut PgConnection,
    config: &Config,
    named: &[ConsumerName],
) -> anyhow::Result<Vec<Inbox>> {
    let schema = config.postgres.schema.as_str();
    let names = match named {
        [] => consumers(connection, schema).await?,
        named => named.to_vec(),
    };
    let inboxes = names.into_iter().map(|name| Inbox::in_schema(name, schema));
    Ok(inboxes.collect::<Result<_, _>>()?)
}

fn described(status: &InboxStatus) -> Value {
    let count = |count: Count| match count {
        Count::Exactly(count) | Count::About(count) => count,
    };
    let is_exact = |count: Count| matches!(count, Count::Exactly(_));
    let time = |time: Option<SystemTime>| {
        time.and_then(|time| jiff::Timestamp::try_from(time).ok())
            .map(|time| time.to_string())
    };
    json!({
        "consumer": status.consumer.as_str(),
        "remembered": count(status.remembered),
        "rememberedIsExact": is_exact(status.remembered),
        "deadLettered": count(status.dead_lettered),
        "deadLetteredIsExact": is_exact(status.dead_lettered),
        "oldest": time(status.oldest),
        "forgottenBefore": time(status.forgotten_before),
    })
}

fn describe(status: &InboxStatus) -> String {
    let count = |count: Count, about: &str| match count {
        Count::Exactly(count) => count.to_string(),
        Count::About(count) => format!("{about} {count}"),
    };
    let time = |time: Option<SystemTime>| {
        time.and_then(|time| jiff::Timestamp::try_from(time).ok())
            .map_or_else(|| "never".to_owned(), |time| format!("{time:.0}"))
    };
    format!(
        "{}\n  remembered        {}\n  dead-lettered     {}\n  oldest            {}\n  forgotten before  {}\n",
        status.consumer,
        count(status.remembered, "about"),
        count(status.dead_lettered, "at least"),
        status
            .oldest
            .map_or_else(|| "none".to_owned(), |oldest| time(Some(oldest))),
        time(status.forgotten_before),
    )
}

/// What of a topic outlives the memory of it.
fn warnings<'a>(
    inbox: &InboxConfig,
    topics: impl Iterator<Item = (&'a str, TopicRetention)>,
) -> Vec<String> {
    let retention = humantime::format_duration(inbox.retention);
    topics
        .filter(|(_, kept)| *kept > TopicRetention::For(inbox.retention))
        .map(|(topic, kept)| {
            let kept = match kept {
                TopicRetention::For(time) => format!("for {}", humantime::format_duration(time)),
                TopicRetention::Forever => "for ever".to_owned(),
            };
            format!(
                "topic \"{topic}\" keeps its records {kept}, longer than inbox.retention ({retention}): what is \
                 read again from it after that is refused as expired"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_topics_that_outlive_the_retention_are_warned_of() {
        let day = Duration::from_secs(86_400);
        let inbox = InboxConfig {
            retention: 14 * day,
            topics: Vec::new(),
        };
        let topics = [
            ("a", TopicRetention::For(7 * day)),
            ("b", TopicRetention::For(14 * day)),
            ("c", TopicRetention::For(15 * day)),
            ("d", TopicRetention::Forever),
        ];
        let found = warnings(&inbox, topics.into_iter());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with(
            "topic \"c\" keeps its records for 15days, longer than inbox.retention (14days)"
        ));
        assert!(found[1].starts_with("topic \"d\" keeps its records for ever"));
    }
}
