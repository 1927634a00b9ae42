//! `outboxd inbox dlq`

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{ConfigArgs, Exit, arguments, examples};
use crate::db::Database;
use crate::inbox::ConsumerName;
use crate::inbox::consumer::dlq::{Dlq, Letter, State};
use crate::kafka::KafkaClient;

/// `outboxd inbox dlq`
#[derive(Debug, Args)]
pub struct DlqArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the events that wait for a decision
    #[command(after_help = examples::DLQ_LIST)]
    List(ListArgs),
    /// Show one of them, with its message
    #[command(after_help = examples::DLQ_SHOW)]
    Show(ShowArgs),
    /// Send events back to their topic, to take effect as if they were new
    #[command(after_help = examples::DLQ_REDRIVE)]
    Redrive(DecideArgs),
    /// Give events up: they will never take effect
    #[command(after_help = examples::DLQ_DISCARD)]
    Discard(DecideArgs),
}

/// Which dead letters; the same for every command.
#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    config: ConfigArgs,
    /// The consumer's name
    #[arg(long, value_name = "NAME", value_parser = arguments::consumer)]
    consumer: ConsumerName,
    /// Its dead-letter topic [default: NAME-dead-letters]
    #[arg(long, value_name = "TOPIC", value_parser = arguments::topic)]
    topic: Option<String>,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    which: Which,
    /// The event's id, as `list` prints it
    event_id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DecideArgs {
    #[command(flatten)]
    which: Which,
    /// The events' ids, as `list` prints them
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    event_ids: Vec<String>,
    /// All that wait
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows or decides dead letters.
///
/// # Errors
/// When the configuration is wrong, a service does not answer, or an event is no dead letter.
pub async fn run(args: &DlqArgs) -> anyhow::Result<Exit> {
    match &args.command {
        Command::List(args) => list(args).await?,
        Command::Show(args) => show(args).await?,
        Command::Redrive(args) => decide(args, Decision::Redrive).await?,
        Command::Discard(args) => decide(args, Decision::Discard).await?,
    }
    Ok(Exit::Success)
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let (dlq, mut connection) = args.which.open().await?;
    let letters = dlq.list(&mut connection).await?;
    let mut out = std::io::stdout().lock();
    // A closed pipe (`| head`) is no failure, here and below.
    if args.json {
        let letters: Vec<Value> = letters.iter().map(summary).collect();
        let _ = writeln!(out, "{:#}", Value::from(letters));
        return Ok(());
    }
    if letters.is_empty() {
        let _ = writeln!(out, "no dead letters");
    }
    for letter in &letters {
        let attempts = match letter.attempts {
            1 => "1 attempt".to_owned(),
            attempts => format!("{attempts} attempts"),
        };
        let state = state(letter);
        let (id, origin) = (&letter.event_id, origin(letter));
        let _ = writeln!(
            out,
            "{id}  {state}  {origin}  {attempts}: {}",
            letter.reason
        );
    }
    Ok(())
}

async fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let (dlq, mut connection) = args.which.open().await?;
    let letters = dlq.list(&mut connection).await?;
    let letter = find(&letters, &args.event_id)?;
    let mut shown = summary(letter);
    shown["key"] = text(letter.record.key.as_deref());
    let headers = letter.record.headers.iter();
    shown["headers"] = headers
        .map(|(name, value)| json!([name, text(Some(value))]))
        .collect();
    let value = letter.record.value.as_deref();
    let mut out = std::io::stdout().lock();
    if args.json {
        let (name, value) = match value.map(str::from_utf8) {
            Some(Err(_)) => (
                "valueBase64",
                value.map(|bytes| STANDARD.encode(bytes)).into(),
            ),
            _ => ("value", text(value)),
        };
        shown[name] = value;
        let _ = writeln!(out, "{shown:#}");
        return Ok(());
    }
    let _ = writeln!(out, "{shown:#}\n");
    let _ = out.write_all(value.unwrap_or(b"(no value)"));
    let _ = writeln!(out);
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Decision {
    Redrive,
    Discard,
}

async fn decide(args: &DecideArgs, decision: Decision) -> anyhow::Result<()> {
    let (dlq, mut connection) = args.which.open().await?;
    let letters = dlq.list(&mut connection).await?;
    let chosen: Vec<&Letter> = match args.all {
        true => letters.iter().collect(),
        // All must be there before anything is done.
        false => args
            .event_ids
            .iter()
            .map(|id| find(&letters, id))
            .collect::<anyhow::Result<_>>()?,
    };
    let mut out = std::io::stdout().lock();
    let mut decided = Vec::new();
    let mut ended = Ok(());
    for letter in chosen {
        ended = match decision {
            Decision::Redrive => dlq.redrive(&mut connection, letter).await,
            Decision::Discard => dlq.discard(&mut connection, letter).await,
        };
        if ended.is_err() {
            break;
        }
        decided.push(letter.event_id.as_str());
        if !args.json {
            let _ = writeln!(out, "{} {}", decision.done(), letter.event_id);
        }
    }
    // What was decided before something failed stays so, and is said, too.
    if args.json {
        let done = json!({
            "consumer": args.which.consumer.as_str(),
            "decision": decision.name(),
            "events": decided,
        });
        let _ = writeln!(out, "{done:#}");
    }
    Ok(ended?)
}

impl Decision {
    /// As its command is called.
    fn name(self) -> &'static str {
        match self {
            Decision::Redrive => "redrive",
            Decision::Discard => "discard",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Decision::Redrive => "redriven",
            Decision::Discard => "discarded",
        }
    }
}

impl Which {
    async fn open(&self) -> anyhow::Result<(Dlq, PgConnection)> {
        let config = self.config.load()?;
        let kafka = KafkaClient::new(&config.kafka);
        let schema = config.postgres.schema.as_str();
        let dlq = Dlq::new(
            self.consumer.clone(),
            self.topic.as_deref(),
            Some(schema),
            kafka.base(&[]),
        )?
        .with_login(kafka.login());
        let connection = Database::new(&config.postgres)?
            .connect_direct("dlq")
            .await?;
        Ok((dlq, connection))
    }
}

fn find<'l>(letters: &'l [Letter], id: &str) -> anyhow::Result<&'l Letter> {
    let found = letters.iter().find(|letter| letter.event_id == id);
    found.ok_or_else(|| anyhow::anyhow!("event {id} is no dead letter of this consumer"))
}

fn summary(letter: &Letter) -> Value {
    json!({
        "eventId": letter.event_id,
        "state": state(letter),
        "reason": letter.reason,
        "attempts": letter.attempts,
        "origin": origin(letter),
    })
}

fn state(letter: &Letter) -> &'static str {
    match letter.state {
        State::Redriven => "redriven, not yet effective",
        State::DeadLettered => "dead-lettered",
        State::Processed | State::Discarded => letter.state.as_str(),
    }
}

/// Where the message was first; without that, where the letter is.
fn origin(letter: &Letter) -> String {
    let origin = letter.origin.clone();
    origin.unwrap_or_else(|| letter.record.place()).to_string()
}

fn text(bytes: Option<&[u8]>) -> Value {
    bytes.map_or(Value::Null, |bytes| String::from_utf8_lossy(bytes).into())
}
