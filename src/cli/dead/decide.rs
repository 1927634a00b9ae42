//! `outboxd dead retry` and `outboxd dead discard`

use std::io::Write;

use clap::{ArgGroup, Args};
use serde_json::json;

use super::{FilterArgs, Opened, acted_on, is_confirmed, not_parked, text};
use crate::cli::reason::ReasonArgs;
use crate::cli::{Exit, OutboxArgs, arguments};
use crate::db::dead_letters::Filter;
use crate::db::parked::Decision;
use crate::db::wishes::Reason;

/// What the two have in common.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true))]
pub struct DecideArgs {
    #[command(flatten)]
    whose: OutboxArgs,
    /// The rows' ids, as `list` prints them
    #[arg(group = "which", conflicts_with = "filters", value_parser = arguments::id)]
    ids: Vec<i64>,
    /// All parked rows, or all that the filters choose
    #[arg(long, group = "which")]
    all: bool,
    #[command(flatten)]
    filters: FilterArgs,
    /// Say how many rows and which, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask first
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    reason: ReasonArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Rows that are listed at a time.
const PAGE: i64 = 1_000;

/// Rows a second that a relay acts on, about.
const ACTED_ON: usize = 1_000;

/// Notes the decision.
///
/// # Errors
/// When a row is not parked, or the decision is not confirmed.
pub async fn run(args: &DecideArgs, decision: Decision) -> anyhow::Result<Exit> {
    let mut opened = Opened::of(&args.whose).await?;
    let filter = args.filters.filter((!args.all).then(|| args.ids.clone()));
    let ids = opened.ids(&filter).await?;
    // All must be there before anything is done.
    if let Some(missing) = args.ids.iter().find(|id| ids.binary_search(id).is_err()) {
        return Err(not_parked(*missing, &opened.outbox));
    }
    if args.dry_run {
        return dry_run(args, &mut opened, &filter, decision, &ids).await;
    }
    if !ids.is_empty() && !args.yes {
        let (name, rows) = (decision.name(), rows(ids.len()));
        let question = format!("{name} {rows} of outbox \"{}\"", opened.outbox.name);
        let instead = format!("; --dry-run says what it would do to {rows}");
        if !is_confirmed(&question, &instead)? {
            return Ok(Exit::Failure);
        }
    }
    let reason = args.reason.reason();
    let (decided, is_owned) = opened.decide(&ids, decision, &reason).await?;
    let mut out = std::io::stdout().lock();
    // A closed pipe (`| head`) is no failure, here and below.
    if args.json {
        let done = json!({
            "outbox": opened.outbox.name,
            "decision": decision.name(),
            "rows": ids,
            "decided": decided,
            "owned": is_owned,
            "dryRun": false,
        });
        let _ = writeln!(out, "{done:#}");
        return Ok(Exit::Success);
    }
    if ids.is_empty() {
        let _ = writeln!(out, "no parked rows");
        return Ok(Exit::Success);
    }
    let when = match is_owned {
        true if ids.len() > ACTED_ON => format!("the relay acts on about {ACTED_ON} rows a second"),
        is_owned => acted_on(is_owned).to_owned(),
    };
    let _ = writeln!(
        out,
        "{}: {}; {when}",
        decision.name(),
        rows(decided as usize)
    );
    if decided < ids.len() as i64 {
        let gone = ids.len() - decided as usize;
        let _ = writeln!(out, "{} not parked any more", rows(gone));
    }
    Ok(Exit::Success)
}

async fn dry_run(
    args: &DecideArgs,
    opened: &mut Opened,
    filter: &Filter,
    decision: Decision,
    ids: &[i64],
) -> anyhow::Result<Exit> {
    if args.json {
        let would = json!({
            "outbox": opened.outbox.name,
            "decision": decision.name(),
            "rows": ids,
            "dryRun": true,
        });
        let _ = writeln!(std::io::stdout(), "{would:#}");
        return Ok(Exit::Success);
    }
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "would {} {}", decision.name(), rows(ids.len()));
    let mut after = i64::MIN;
    loop {
        let page = opened.page(filter, after, PAGE).await?;
        for note in &page {
            // Nobody reads on.
            if writeln!(out, "{}", text::line(note)).is_err() {
                return Ok(Exit::Success);
            }
        }
        match page.last() {
            Some(last) if page.len() as i64 == PAGE => after = last.event.id,
            _ => return Ok(Exit::Success),
        }
    }
}

impl Opened {
    async fn ids(&mut self, filter: &Filter) -> anyhow::Result<Vec<i64>> {
        self.session.begin().await?;
        let ids = self.letters.ids(&mut self.session, filter).await?;
        self.session.commit().await?;
        Ok(ids)
    }

    /// Returns how many rows are still parked, and whether a relay owns the outbox.
    async fn decide(
        &mut self,
        ids: &[i64],
        decision: Decision,
        reason: &Reason,
    ) -> anyhow::Result<(i64, bool)> {
        let session = &mut self.session;
        session.begin().await?;
        let decided = self.letters.decide(session, ids, decision, reason).await?;
        let is_owned = self.is_owned().await?;
        self.session.commit().await?;
        Ok((decided, is_owned))
    }
}

fn rows(count: usize) -> String {
    match count {
        1 => "1 parked row".to_owned(),
        count => format!("{count} parked rows"),
    }
}
