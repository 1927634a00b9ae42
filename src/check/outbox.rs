//! One outbox table: its schema, its rights, its index, its vacuum, and what waits in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Finding, Notebook};
use crate::config::{Config, OutboxConfig, is_topic_name};
use crate::db::catalogue::{self, Aspect, Mistake};
use crate::db::facts::{Lacking, TableFacts};
use crate::db::outbox::{BatchLimit, Outbox};
use crate::db::{DbError, Session, migrate};
use crate::kafka::KafkaClient;
use crate::outage::chain;
use crate::relay::router::{Origin, Router};
use crate::relay::window::Outgoing;

/// How many unsent rows are looked at: enough to see which topics they go to.
const SAMPLE: BatchLimit = BatchLimit {
    rows: 1_000,
    bytes: 8 << 20,
};

/// From this part of a table on, dead rows of a queue are more than its living ones.
const MAX_SCALE_FACTOR: f64 = 0.05;

/// The first unsent rows of an outbox, by topic. A row whose topic has no usable name is under "".
pub struct Waiting {
    pub outbox: String,
    pub rows: BTreeMap<Arc<str>, Vec<Outgoing>>,
}

/// Asks about one outbox. `lacking`: of the relay's own tables, which was said already.
pub async fn probe(
    session: &mut Session,
    config: &Config,
    outbox: &OutboxConfig,
    lacking: &[Lacking],
) -> (Vec<Finding>, Option<Waiting>) {
    let mut book = Notebook::of(format!("outbox {:?}", outbox.name));
    let waiting = ask(session, config, outbox, lacking, &mut book).await;
    let waiting = waiting.unwrap_or_else(|error| {
        book.error("postgres-refused", chain(&error), "see the server's log");
        None
    });
    (book.findings, waiting)
}

async fn ask(
    session: &mut Session,
    config: &Config,
    outbox: &OutboxConfig,
    lacking: &[Lacking],
    book: &mut Notebook,
) -> Result<Option<Waiting>, DbError> {
    let schema = config.postgres.schema.as_str();
    if lacking.is_empty() {
        let verified = session
            .group(async |session| migrate::verify(session, schema, outbox).await)
            .await;
        match verified {
            Err(DbError::Schema(problem)) => {
                book.error("schema", problem, "outboxd run does not start");
            }
            verified => verified?,
        }
    }
    let (mistakes, facts) = session
        .group(async |session| {
            let mistakes = catalogue::mistakes(session, outbox).await?;
            Ok((mistakes, TableFacts::ask(session, outbox).await?))
        })
        .await?;
    for mistake in &mistakes {
        judge_mistake(mistake, outbox, book);
    }
    if let Some(facts) = facts {
        judge_table(&facts, outbox, book);
    }
    if book.has_errors() {
        return Ok(None);
    }
    let waiting = session
        .group(async |session| sample(session, config, outbox).await)
        .await;
    let waiting = match waiting {
        Err(error) => {
            let said = error.said_of_a_row().ok_or(error)?;
            book.warning(
                "unreadable-rows",
                format!("Postgres cannot read one of the first unsent rows: {said}"),
                "mend it; a relay parks it as class unreadable, see outboxd dead",
            );
            return Ok(None);
        }
        Ok(waiting) => waiting,
    };
    judge_names(&waiting, book);
    Ok(Some(waiting))
}

/// Rows whose topics can have no such name: nobody is asked about those.
fn judge_names(waiting: &Waiting, book: &mut Notebook) {
    let topics = waiting.rows.iter();
    let mut rows = topics
        .filter(|(topic, _)| !is_topic_name(topic))
        .flat_map(|(_, rows)| rows);
    if let Some(first) = rows.next() {
        let reason = first.unsendable.as_deref().unwrap_or("unusable topic name");
        book.warning(
            "refused-rows",
            format!(
                "{} unsent rows have a topic that cannot be, the first of them {}: {reason}",
                1 + rows.count(),
                first.event.id
            ),
            "correct topic, or see outboxd dead once they are parked",
        );
    }
}

async fn sample(
    session: &mut Session,
    config: &Config,
    outbox: &OutboxConfig,
) -> Result<Waiting, DbError> {
    let schema = config.postgres.schema.as_str();
    let max_message_bytes = KafkaClient::new(&config.kafka).rules().max_message_bytes;
    let table = Outbox::open(session, outbox, schema, max_message_bytes).await?;
    let mut router = Router::new(outbox);
    let rows = table
        .forward(session, i64::MIN, SAMPLE, |event| router.route(event))
        .await?
        .rows;
    let batch = router.batch(rows, Origin::Poll);
    // They are numbered in this order.
    let names: Vec<Arc<str>> = batch.new_topics.into_iter().map(|(_, name)| name).collect();
    let mut rows: BTreeMap<Arc<str>, Vec<Outgoing>> = BTreeMap::new();
    for row in batch.rows {
        if let Some(name) = names.get(row.topic.0 as usize) {
            rows.entry(Arc::clone(name)).or_default().push(row);
        }
    }
    Ok(Waiting {
        outbox: outbox.name.clone(),
        rows,
    })
}

fn judge_mistake(mistake: &Mistake, outbox: &OutboxConfig, book: &mut Notebook) {
    let is_own = outbox.mapping.is_none();
    let table = &outbox.table;
    let (code, remedy) = match mistake.about {
        Aspect::Table if is_own => ("table", "run outboxd migrate"),
        Aspect::Table => ("table", "correct table, or create it"),
        Aspect::Columns if is_own => (
            "columns",
            "undo the change: outboxd's own table is as migrate makes it",
        ),
        Aspect::Columns => ("columns", "correct the mapping or the table"),
        Aspect::Ids => ("ids", "alter the sequence, and leave the ids to it"),
        Aspect::Privileges => (
            "privileges",
            "run outboxd migrate --relay-role as the owner, or grant it",
        ),
        Aspect::Policies => ("row-level-security", "let the relay see every row"),
        Aspect::Triggers => ("triggers", "drop it"),
        Aspect::Publications => ("publication", "give the table a replica identity"),
        Aspect::Constraints => ("constraints", "correct the mapping or the constraint"),
        Aspect::Indexes => ("index", "create it"),
    };
    let remedy = mistake.remedy.as_deref().unwrap_or(remedy);
    book.error(code, format!("table {table}: {}", mistake.problem), remedy);
}

fn judge_table(facts: &TableFacts, outbox: &OutboxConfig, book: &mut Notebook) {
    let is_own = outbox.mapping.is_none();
    let table = &outbox.table;
    if facts.is_unlogged {
        book.error(
            "unlogged",
            format!("table {table} is unlogged: a crash of the server empties it"),
            format!("alter table {table} set logged"),
        );
    }
    if facts.takes_ids {
        let problem = format!(
            "the ids of table {table} are not GENERATED ALWAYS: a client can give one of its own, which may never be seen"
        );
        let id = outbox
            .mapping
            .as_ref()
            .map_or("id", |mapping| mapping.columns.id.as_str());
        let remedy = format!(
            "alter table {table} alter column {id:?} set generated always (of a serial: add generated always as identity)"
        );
        match is_own {
            true => book.warning("generated-always", problem, remedy),
            false => book.note("generated-always", problem, remedy),
        }
    }
    if facts.is_owned {
        book.warning(
            "table-owner",
            format!("the relay's role owns table {table}"),
            "give the relay a role of its own (outboxd migrate --relay-role)",
        );
    } else if !facts.needless.is_empty() {
        let needless = facts.needless.join(", ");
        book.warning(
            "needless-privileges",
            format!("the relay's role has {needless} on table {table}, and needs none of it"),
            "revoke it",
        );
    }
    if !facts.has_unsent_index {
        book.warning(
            "unsent-index",
            format!("table {table} has no index of its unsent rows: after a restart every retained row is walked"),
            match is_own {
                true => format!(
                    "create index concurrently {}_unsent on {table} (id) where sent_at is null",
                    table.name.as_str()
                ),
                false => "create a partial index on the id, for rows that are not sent".to_owned(),
            },
        );
    }
    judge_vacuum(facts, outbox, book);
    judge_triggers(facts, outbox, book);
}

fn judge_vacuum(facts: &TableFacts, outbox: &OutboxConfig, book: &mut Notebook) {
    let table = &outbox.table;
    let vacuum = &facts.autovacuum;
    if !vacuum.is_on {
        book.warning(
            "autovacuum",
            format!("autovacuum is off on table {table}: every mark leaves a dead row, and polls walk over them"),
            format!("alter table {table} reset (autovacuum_enabled)"),
        );
        return;
    }
    let mut settings = Vec::new();
    if vacuum.scale_factor > MAX_SCALE_FACTOR {
        settings.push("autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000");
    }
    if vacuum.truncates {
        settings.push("vacuum_truncate = off");
    }
    if settings.is_empty() {
        return;
    }
    let problem = format!(
        "table {table} is vacuumed like any other (scale factor {}, truncation {}): a queue's is mostly dead by then, and \
         truncation locks writers out",
        vacuum.scale_factor,
        if vacuum.truncates { "on" } else { "off" }
    );
    let remedy = format!("alter table {table} set ({})", settings.join(", "));
    match outbox.mapping {
        None => book.warning("vacuum-settings", problem, remedy),
        Some(_) => book.note("vacuum-settings", problem, remedy),
    }
}

/// Those that run before a mark are mistakes. Of a table of others the rest is its owner's business.
fn judge_triggers(facts: &TableFacts, outbox: &OutboxConfig, book: &mut Notebook) {
    if outbox.mapping.is_some() {
        return;
    }
    let table = &outbox.table;
    let notify = format!("{}_notify", table.name.as_str());
    let found = facts.triggers.iter().any(|trigger| trigger.name == notify);
    match (outbox.notify, found) {
        (true, false) => book.warning(
            "notify-trigger",
            format!(
                "notify is on, and table {table} has no trigger {notify:?}: nobody wakes the relay"
            ),
            "run outboxd migrate",
        ),
        (false, true) => book.warning(
            "notify-trigger",
            format!(
                "notify is off, and trigger {notify:?} still serialises the commits of all writers"
            ),
            format!("drop trigger {notify} on {table}"),
        ),
        _ => {}
    }
    for trigger in facts
        .triggers
        .iter()
        .filter(|trigger| trigger.name != notify)
    {
        let name = &trigger.name;
        let when = if trigger.on_insert {
            "in every transaction that inserts an event"
        } else {
            "with every mark"
        };
        book.note(
            "triggers",
            format!("trigger {name:?} of table {table} runs {when}"),
            "drop it unless somebody needs it",
        );
    }
}
