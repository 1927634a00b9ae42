//! `outboxd pause` and `outboxd resume`

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::reason::ReasonArgs;
use super::{Exit, OutboxArgs, arguments};
use crate::db::Session;
use crate::db::pauses::{Pause, Pauses};

/// What the two have in common.
#[derive(Debug, Args)]
struct What {
    #[command(flatten)]
    outbox: OutboxArgs,
    /// Only this topic of it [default: all of the outbox]
    #[arg(long, value_name = "TOPIC", value_parser = arguments::topic)]
    topic: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `outboxd pause`
#[derive(Debug, Args)]
pub struct PauseArgs {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    reason: ReasonArgs,
    /// Say what is paused, and change nothing
    #[arg(long, conflicts_with_all = ["topic", "why", "who"])]
    list: bool,
}

/// `outboxd resume`
#[derive(Debug, Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    what: What,
}

/// Pauses an outbox or a topic, durably, and says what is paused then.
///
/// # Errors
/// When the configuration or the schema is wrong, or Postgres does not answer.
pub fn pause(args: &PauseArgs) -> anyhow::Result<Exit> {
    super::runtime()?.block_on(async {
        let mut opened = args.what.open().await?;
        if !args.list {
            let (pauses, session) = (&opened.pauses, &mut opened.session);
            let (topic, reason) = (&args.what.topic, args.reason.reason());
            session.begin().await?;
            let is_new = pauses.note(session, topic, &reason).await?;
            session.commit().await?;
            if !is_new {
                let what = named(&opened.name, topic.as_deref());
                tell!("outboxd: {what} was paused before");
            }
        }
        opened.show(args.what.json).await
    })
}

/// Lets an outbox or a topic go on, and says what is still paused then.
///
/// # Errors
/// As [`pause`].
pub fn resume(args: &ResumeArgs) -> anyhow::Result<Exit> {
    super::runtime()?.block_on(async {
        let mut opened = args.what.open().await?;
        let (pauses, session) = (&opened.pauses, &mut opened.session);
        let topic = &args.what.topic;
        session.begin().await?;
        let was_paused = pauses.take_back(session, topic).await?;
        session.commit().await?;
        if !was_paused {
            let what = named(&opened.name, topic.as_deref());
            tell!("outboxd: {what} was not paused");
        }
        opened.show(args.what.json).await
    })
}

/// One outbox's pauses, and a connection.
struct Opened {
    name: String,
    pauses: Pauses,
    session: Session,
}

impl What {
    async fn open(&self) -> anyhow::Result<Opened> {
        let (config, outbox, session) = self.outbox.open("pause").await?;
        let schema = config.postgres.schema.as_str();
        Ok(Opened {
            pauses: Pauses::new(schema, &outbox.table.to_string()),
            name: outbox.name,
            session,
        })
    }
}

impl Opened {
    async fn show(&mut self, as_json: bool) -> anyhow::Result<Exit> {
        self.session.begin().await?;
        let pauses = self.pauses.list(&mut self.session).await?;
        self.session.commit().await?;
        let mut out = std::io::stdout().lock();
        // A closed pipe (`| head`) is no failure, here and below.
        if as_json {
            let pauses: Vec<Value> = pauses.iter().map(json).collect();
            let shown = json!({"outbox": self.name, "pauses": pauses});
            let _ = writeln!(out, "{shown:#}");
            return Ok(Exit::Success);
        }
        if pauses.is_empty() {
            let _ = writeln!(out, "nothing of outbox \"{}\" is paused", self.name);
        }
        for pause in &pauses {
            let _ = writeln!(
                out,
                "{} is paused since {} by {}: {}",
                named(&self.name, pause.topic.as_deref()),
                pause.since,
                pause.by,
                pause.why.as_deref().unwrap_or("no reason given")
            );
        }
        Ok(Exit::Success)
    }
}

fn named(outbox: &str, topic: Option<&str>) -> String {
    match topic {
        Some(topic) => format!("topic \"{topic}\" of outbox \"{outbox}\""),
        None => format!("outbox \"{outbox}\""),
    }
}

fn json(pause: &Pause) -> Value {
    json!({"topic": pause.topic, "since": pause.since, "by": pause.by, "why": pause.why})
}
