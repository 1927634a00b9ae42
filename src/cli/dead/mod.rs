//! `outboxd dead`

mod decide;
mod park;
mod text;

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Exit, OutboxArgs, arguments, examples};
use crate::config::{Config, OutboxConfig};
use crate::db::Session;
use crate::db::dead_letters::{DeadLetters, Filter, Note};
use crate::db::lease::{LANE, Leases, Standing};
use crate::db::outbox::inspect::Inspector;
use crate::db::parked::Decision;

use decide::DecideArgs;
use park::ParkArgs;

/// `outboxd dead`
#[derive(Debug, Args)]
pub struct DeadArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the parked rows
    #[command(after_help = examples::DEAD_LIST)]
    List(ListArgs),
    /// Show one of them: why it is parked, and the row as it stands in its table
    #[command(after_help = examples::DEAD_SHOW)]
    Show(ShowArgs),
    /// Have rows sent again, under their old ids
    #[command(after_help = examples::DEAD_RETRY)]
    Retry(DecideArgs),
    /// Give rows up: they never go out, and are forgotten with the outbox's retention
    #[command(after_help = examples::DEAD_DISCARD)]
    Discard(DecideArgs),
    /// Have the refused rows of a topic parked until Kafka takes one, though row after row is refused and the topic
    /// seems to blame
    #[command(after_help = examples::DEAD_PARK)]
    Park(ParkArgs),
}

/// Which of them.
#[derive(Debug, Args)]
#[group(id = "filters", multiple = true)]
struct FilterArgs {
    /// Only those for this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only those of this event type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only those of this Kafka key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only those of this class: the row's own fault, relays that died at it, or nobody knows
    #[arg(long, value_name = "CLASS", value_parser = ["row", "crash", "unreadable", "unknown"])]
    class: Option<String>,
    /// Only those whose reason contains this text, in capitals or not
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only those parked for longer than this
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration)]
    older_than: Option<Duration>,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    whose: OutboxArgs,
    #[command(flatten)]
    filters: FilterArgs,
    /// List so many rows at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = arguments::number::<i64>(1..=1_000_000))]
    limit: i64,
    /// List the rows after this id: the next page
    #[arg(long, value_name = "ID", default_value_t = i64::MIN, hide_default_value = true, value_parser = arguments::id)]
    after: i64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    whose: OutboxArgs,
    /// The row's id, as `list` prints it
    #[arg(value_parser = arguments::id)]
    id: i64,
    /// Show long values as a whole
    #[arg(long)]
    payload: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Characters of a value that are shown.
const SHOWN: i32 = 1_000;

/// Shows parked rows, or decides about them.
///
/// # Errors
/// When the configuration or the schema is wrong, Postgres does not answer, or a row is not parked.
pub fn run(args: &DeadArgs) -> anyhow::Result<Exit> {
    super::runtime()?.block_on(async {
        match &args.command {
            Command::List(args) => list(args).await,
            Command::Show(args) => show(args).await,
            Command::Retry(args) => decide::run(args, Decision::Retry).await,
            Command::Discard(args) => decide::run(args, Decision::Discard).await,
            Command::Park(args) => park::run(args).await,
        }
    })
}

/// One outbox's notes, and a connection to look at them.
struct Opened {
    config: Config,
    outbox: OutboxConfig,
    letters: DeadLetters,
    session: Session,
}

impl FilterArgs {
    fn filter(&self, ids: Option<Vec<i64>>) -> Filter {
        Filter {
            ids,
            topic: self.topic.clone(),
            event_type: self.event_type.clone(),
            key: self.key.clone(),
            class: self.class.clone(),
            reason: self.reason.clone(),
            older_than: self.older_than,
        }
    }
}

impl Opened {
    async fn of(whose: &OutboxArgs) -> anyhow::Result<Opened> {
        let (config, outbox, session) = whose.open("dead").await?;
        let schema = config.postgres.schema.as_str();
        Ok(Opened {
            letters: DeadLetters::new(schema, &outbox.table.to_string()),
            config,
            outbox,
            session,
        })
    }

    async fn page(&mut self, filter: &Filter, after: i64, most: i64) -> anyhow::Result<Vec<Note>> {
        self.session.begin().await?;
        let page = self.letters.page(&mut self.session, filter, after, most);
        let page = page.await?;
        self.session.commit().await?;
        Ok(page)
    }

    async fn count(&mut self, filter: &Filter, after: i64) -> anyhow::Result<i64> {
        self.session.begin().await?;
        let count = self.letters.count(&mut self.session, filter, after).await?;
        self.session.commit().await?;
        Ok(count)
    }

    /// Whether a relay owns the outbox, which then acts on what is decided.
    async fn is_owned(&mut self) -> anyhow::Result<bool> {
        let leases = Leases::new(self.config.postgres.schema.as_str());
        let table = self.outbox.table.to_string();
        let standing = leases.look(&mut self.session, &table, LANE).await?;
        Ok(matches!(standing, Standing::Held { .. }))
    }
}

/// When it is acted on what was decided.
fn acted_on(is_owned: bool) -> &'static str {
    match is_owned {
        true => "the relay acts on it within about a second",
        false => "no relay owns the outbox now, the next one acts on it",
    }
}

/// Asks whoever sits at the terminal. Where there is none, `instead` says what else one can do.
fn is_confirmed(question: &str, instead: &str) -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    anyhow::ensure!(
        stdin.is_terminal(),
        "--yes: must be given where nobody can be asked (stdin is no terminal), is not given{instead}"
    );
    eprint!("{question}? [y/N] ");
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    let is_confirmed = matches!(answer.trim(), "y" | "Y" | "yes");
    if !is_confirmed {
        tell!("outboxd: nothing was decided");
    }
    Ok(is_confirmed)
}

async fn list(args: &ListArgs) -> anyhow::Result<Exit> {
    let mut opened = Opened::of(&args.whose).await?;
    let filter = args.filters.filter(None);
    let notes = opened.page(&filter, args.after, args.limit).await?;
    let more = match notes.last() {
        Some(last) if notes.len() as i64 == args.limit => {
            opened.count(&filter, last.event.id).await?
        }
        _ => 0,
    };
    let mut out = std::io::stdout().lock();
    // A closed pipe (`| head`) is no failure, here and below.
    if args.json {
        let rows: Vec<Value> = notes.iter().map(text::json).collect();
        let listed = json!({"outbox": opened.outbox.name, "rows": rows, "more": more});
        let _ = writeln!(out, "{listed:#}");
        return Ok(Exit::Success);
    }
    if notes.is_empty() {
        let _ = writeln!(out, "no parked rows");
    }
    for note in &notes {
        let _ = writeln!(out, "{}", text::line(note));
    }
    if let Some(last) = notes.last().filter(|_| more > 0) {
        let _ = writeln!(out, "and {more} more: --after {}", last.event.id);
    }
    Ok(Exit::Success)
}

async fn show(args: &ShowArgs) -> anyhow::Result<Exit> {
    let mut opened = Opened::of(&args.whose).await?;
    let filter = Filter {
        ids: Some(vec![args.id]),
        ..Filter::default()
    };
    let note = opened.page(&filter, i64::MIN, 1).await?.pop();
    let note = note.ok_or_else(|| not_parked(args.id, &opened.outbox))?;
    let most = match args.payload {
        true => i32::MAX,
        false => SHOWN,
    };
    let outbox = &opened.outbox;
    let asked = opened.session.group(async |session| {
        let inspector = Inspector::open(session, outbox).await?;
        inspector.row(session, note.event, most).await
    });
    let row = match asked.await {
        Ok(Some(cells)) => text::Row::Stands(cells),
        Ok(None) => text::Row::Gone,
        Err(error) => text::Row::Unreadable(error.said_of_a_row().ok_or(error)?),
    };
    let mut out = std::io::stdout().lock();
    let shown = match args.json {
        true => format!("{:#}\n", text::json_with_row(&note, &row)),
        false => text::page(&note, &row),
    };
    let _ = out.write_all(shown.as_bytes());
    Ok(Exit::Success)
}

fn not_parked(id: i64, outbox: &OutboxConfig) -> anyhow::Error {
    anyhow::anyhow!(
        "id: must be that of a parked row of outbox \"{}\", is {id}",
        outbox.name
    )
}
