//! `outboxd dead park`

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::{Opened, acted_on, is_confirmed};
use crate::cli::reason::ReasonArgs;
use crate::cli::{Exit, OutboxArgs, arguments};
use crate::config::AdminConfig;
use crate::db::bypasses::Bypasses;
use crate::status::ask::{ask, reachable};
use crate::status::report::{Report, TopicHold, Who};

/// Whose, and what.
#[derive(Debug, Args)]
pub struct ParkArgs {
    #[command(flatten)]
    whose: OutboxArgs,
    /// The topic
    #[arg(long, value_name = "TOPIC", value_parser = arguments::topic)]
    topic: String,
    /// Take it back: the topic's rows wait again when row after row is refused
    #[arg(long, conflicts_with_all = ["why", "who"])]
    stop: bool,
    /// Do not ask first
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    reason: ReasonArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Notes the decision, or that it is taken back.
///
/// # Errors
/// When a relay says that the topic's breaker is not open, or the decision is not confirmed.
pub async fn run(args: &ParkArgs) -> anyhow::Result<Exit> {
    let mut opened = Opened::of(&args.whose).await?;
    let topic = &args.topic;
    let schema = opened.config.postgres.schema.as_str();
    let bypasses = Bypasses::new(schema, &opened.outbox.table.to_string());
    if !args.stop && !is_bypassed(&mut opened, &bypasses, topic).await? {
        ensure_open(&opened, topic).await?;
        let question = format!(
            "park the refused rows of topic \"{topic}\" of outbox \"{}\" until Kafka takes one",
            opened.outbox.name
        );
        if !args.yes && !is_confirmed(&question, "")? {
            return Ok(Exit::Failure);
        }
    }
    let session = &mut opened.session;
    session.begin().await?;
    let is_new = match args.stop {
        true => bypasses.take_back(session, topic).await?,
        false => bypasses.note(session, topic, &args.reason.reason()).await?,
    };
    let is_owned = opened.is_owned().await?;
    opened.session.commit().await?;
    if !is_new {
        tell!("outboxd: that is so already");
    }
    let mut out = std::io::stdout().lock();
    // A closed pipe (`| head`) is no failure, here and below.
    if args.json {
        let done = json!({
            "outbox": opened.outbox.name,
            "topic": topic,
            "parks": !args.stop,
            "changed": is_new,
            "owned": is_owned,
        });
        let _ = writeln!(out, "{done:#}");
        return Ok(Exit::Success);
    }
    let what = match args.stop {
        true => "wait again when row after row is refused",
        false => "are parked until Kafka takes one",
    };
    let when = acted_on(is_owned);
    let _ = writeln!(out, "refused rows of topic \"{topic}\" {what}; {when}");
    Ok(Exit::Success)
}

/// Whether it was decided before.
async fn is_bypassed(
    opened: &mut Opened,
    bypasses: &Bypasses,
    topic: &str,
) -> anyhow::Result<bool> {
    opened.session.begin().await?;
    let bypassed = bypasses.list(&mut opened.session).await?;
    opened.session.commit().await?;
    Ok(bypassed.iter().any(|bypass| bypass.topic == topic))
}

/// Refuses a topic of which a relay says that its breaker is not open: perhaps it is misspelt. If none says
/// anything, a topic that takes rows ends the matter soon enough.
async fn ensure_open(opened: &Opened, topic: &str) -> anyhow::Result<()> {
    let AdminConfig { listen, token } = &opened.config.admin;
    let report = match listen {
        Some(listen) => ask(&reachable(*listen).to_string(), token.as_ref())
            .await
            .ok(),
        None => None,
    };
    let table = opened.outbox.table.to_string();
    match report.and_then(|report| open_breakers(report, &table)) {
        Some(open) => anyhow::ensure!(
            open.iter().any(|open| open == topic),
            "--topic: must be one whose breaker is open ({}), is {topic}",
            match open.is_empty() {
                true => "none is".to_owned(),
                false => open.join(", "),
            }
        ),
        None => tell!(
            "outboxd: no relay says here whether the breaker is open; if it is not, the next row that Kafka takes ends \
             this"
        ),
    }
    Ok(())
}

/// The topics whose breakers are open, if the relay owns the outbox and lists them all.
fn open_breakers(report: Report, table: &str) -> Option<Vec<String>> {
    let mut outboxes = report.outboxes.into_iter();
    let outbox = outboxes.find(|outbox| outbox.table == table)?;
    let held = outbox.held;
    let is_all = held.topic_count? <= held.topics.len() as u64;
    (outbox.owner.who == Who::ThisRelay && is_all).then(|| {
        let open = held.topics.into_iter();
        open.filter(|topic| topic.hold == TopicHold::BreakerOpen)
            .map(|topic| topic.topic)
            .collect()
    })
}
