//! What a replay finds, and how to go on with it, as text and as JSON.

use serde_json::{Value, json};

use super::ReplayArgs;
use crate::config::{OnSent, OutboxConfig, Retention};
use crate::kafka::TopicRetention;
use crate::relay::replay::{Replayed, Survey};

/// What whoever asked should know before anything is sent.
pub fn notes(outbox: &OutboxConfig, survey: &Survey, args: &ReplayArgs) -> Vec<String> {
    let mut notes = vec![kept(outbox, survey)];
    if !survey.missing.is_empty() {
        let ids: Vec<String> = survey.missing.iter().map(i64::to_string).collect();
        notes.push(format!(
            "--id: must name rows that were sent and are still there; not one of them: {}",
            ids.join(", ")
        ));
    }
    for (name, topic) in &survey.topics {
        if let Err(reason) = &topic.retention {
            notes.push(format!(
                "warning: how long topic \"{name}\" keeps its records is not known: {reason}"
            ));
        }
    }
    if let Some(refusal) = refusal(survey).filter(|_| args.allow_expired || args.dry_run) {
        notes.push(format!("warning: {refusal}"));
    }
    if let Some(retention) = args.consumer_retention.filter(|_| survey.forgotten > 0) {
        notes.push(format!(
            "warning: {} rows are older than --consumer-retention ({}): a consumer that has forgotten their ids \
             refuses them, or takes them as new",
            survey.forgotten,
            humantime::format_duration(retention)
        ));
    }
    if let Some((id, reason)) = &survey.first_unsendable {
        notes.push(format!(
            "warning: {} rows cannot be messages any more and are left out, the first of them {id}: {reason}",
            survey.unsendable
        ));
    }
    notes
}

/// What is beyond the outbox's retention.
fn kept(outbox: &OutboxConfig, survey: &Survey) -> String {
    let name = &outbox.name;
    let rule = match (outbox.on_sent, outbox.retention) {
        (OnSent::Delete, _) => {
            format!("rows are deleted once they are sent (outbox.{name}.on_sent)")
        }
        (OnSent::Mark, Retention::Forever) => {
            format!("sent rows are kept for ever (outbox.{name}.retention)")
        }
        (OnSent::Mark, Retention::For(time)) => format!(
            "sent rows are kept for {} (outbox.{name}.retention), what is older is gone",
            humantime::format_duration(time)
        ),
    };
    match &survey.oldest {
        None => format!("{rule}; none is there"),
        Some((id, created_at)) => {
            let created_at = created_at.and_then(|at| at.timestamp());
            let at = created_at.map_or(String::new(), |at| format!(", created at {at}"));
            format!("{rule}; the first that is there is row {id}{at}")
        }
    }
}

/// Why rows that their topics would delete at once need to be allowed; nothing if there are none.
pub fn refusal(survey: &Survey) -> Option<String> {
    let expired = survey.topics.iter().filter(|(_, topic)| topic.expired > 0);
    let expired: Vec<String> = expired
        .map(|(name, topic)| {
            let kept = match topic.retention {
                Ok(TopicRetention::For(time)) => humantime::format_duration(time).to_string(),
                Ok(TopicRetention::Forever) | Err(_) => "for ever".to_owned(),
            };
            format!(
                "{} for topic \"{name}\" (retention.ms: {kept})",
                topic.expired
            )
        })
        .collect();
    (!expired.is_empty()).then(|| {
        format!(
            "--allow-expired: must be given for rows older than their topic's retention.ms, which deletes them \
             soon after they arrive: {}",
            expired.join(", ")
        )
    })
}

/// How many rows go where.
pub fn rows(survey: &Survey) -> String {
    let topics = survey.topics.iter();
    let topics: Vec<String> = topics
        .map(|(name, topic)| format!("{} to {name}", topic.rows))
        .collect();
    match topics.is_empty() {
        true => "0 rows".to_owned(),
        false => format!("{} rows: {}", survey.rows, topics.join(", ")),
    }
}

/// All figures; without `sent` nothing was.
pub fn json(outbox: &OutboxConfig, survey: &Survey, sent: Option<&Replayed>) -> Value {
    let topics = survey.topics.iter().map(|(name, topic)| {
        let figures = json!({"rows": topic.rows, "expired": topic.expired});
        (name.to_string(), figures)
    });
    json!({
        "outbox": outbox.name,
        "rows": survey.rows,
        "topics": topics.collect::<serde_json::Map<_, _>>(),
        "missing": survey.missing,
        "unsendable": survey.unsendable,
        "forgotten": survey.forgotten,
        "oldest": survey.oldest.as_ref().map(|(id, _)| id),
        "dryRun": sent.is_none(),
        "replayed": sent.map_or(0, |sent| sent.rows),
        "settled": sent.and_then(|sent| sent.settled),
        "complete": sent.is_some_and(|sent| sent.is_complete),
    })
}

/// The command that goes on after this row.
pub fn go_on(args: &ReplayArgs, outbox: &OutboxConfig, after: Option<i64>) -> String {
    let choice = &args.choice;
    let mut words = vec!["outboxd replay".to_owned()];
    let mut add = |option: &str, value: Option<String>| {
        words.extend(value.map(|value| format!("{option} {}", quoted(&value))));
    };
    add(
        "--config",
        args.file().map(|file| file.display().to_string()),
    );
    add("--outbox", Some(outbox.name.clone()));
    for id in &choice.ids {
        add("--id", Some(id.to_string()));
    }
    for id in &choice.event_ids {
        add("--event-id", Some(id.clone()));
    }
    add("--key", choice.key.clone());
    add("--type", choice.event_type.clone());
    add("--topic", choice.topic.clone());
    add("--correlation-id", choice.correlation_id.clone());
    add("--from", choice.from.map(|from| from.to_string()));
    add("--to", choice.to.map(|to| to.to_string()));
    add("--rate", args.rate.map(|rate| rate.to_string()));
    let retention = args.consumer_retention.map(humantime::format_duration);
    add(
        "--consumer-retention",
        retention.map(|time| time.to_string()),
    );
    add("--after", after.map(|after| after.to_string()));
    for (option, is_given) in [
        ("--all", choice.all),
        ("--allow-expired", args.allow_expired),
    ] {
        words.extend(is_given.then(|| option.to_owned()));
    }
    let same = match args.has_settings() {
        true => " (and the same --postgres-url, --kafka and --set)",
        false => "",
    };
    format!("{}{same}", words.join(" "))
}

/// As a shell takes it for one word.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/@%+=".contains(c);
    match !value.is_empty() && value.chars().all(is_plain) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', "'\\''")),
    }
}
