//! What the machine allows: each part of the relay's work alone, with the relay's own code, on the same
//! rows.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use uuid::Uuid;

use super::BenchError;
use super::workspace::{Stage, Workspace};
use crate::config::EventTimestamp;
use crate::db::lease::{Fence, LANE, Leases};
use crate::db::outbox::{BatchLimit, Outbox};
use crate::db::{Role, Session};
use crate::envelope::{Encoder, Envelope, Message};
use crate::event::{CreatedAt, EventRef};
use crate::kafka::{Producer, ProducerSizes, REQUEST_TIMEOUT, Reports, SendError, Sharing, Topics};

/// Rows of one statement, in reading and in marking: the relay's default.
const BATCH_ROWS: usize = 2000;

/// Messages that are encoded before they are produced. A longer backlog is produced as far as this: the
/// rate is that of any part of it, and the memory stays bounded.
const MOST_MESSAGES: usize = 200_000;

/// What the producer may hold: all of them, since the limit is the machine's and not a window's.
const PRODUCER: ProducerSizes = ProducerSizes {
    messages: MOST_MESSAGES,
    bytes: 1 << 30,
    batch_bytes: None,
};

/// How long the producer may get no report while it waits for one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Rows a second of each part alone.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Limits {
    #[serde(rename = "read_rows_per_second")]
    pub read: f64,
    #[serde(rename = "produce_rows_per_second")]
    pub produce: f64,
    #[serde(rename = "mark_rows_per_second")]
    pub mark: f64,
    /// All three one after the other, as when they share the cores: 1 / (1/read + 1/produce + 1/mark).
    #[serde(rename = "chain_rows_per_second")]
    pub chain: f64,
}

impl Limits {
    fn new(read: f64, produce: f64, mark: f64) -> Limits {
        Limits {
            read,
            produce,
            mark,
            chain: 1.0 / (1.0 / read + 1.0 / produce + 1.0 / mark),
        }
    }
}

/// Measures the three on a filled stage, which has no unsent rows afterward.
///
/// # Errors
/// Whatever Postgres or Kafka says.
pub async fn measure(workspace: &Workspace, stage: &mut Stage) -> Result<Limits, BenchError> {
    let schema = workspace.config().postgres.schema.to_string();
    let outbox = outbox(workspace, stage);
    let database = workspace.database();
    let mut reader = database.connect("bench", Role::Reader).await?;
    let (rows, read) = read(&mut reader, &outbox, stage.aside_upto).await?;
    let messages = encode(&mut reader, &outbox, stage).await?;
    drop(reader);
    let produce = produce(workspace, &stage.topic, messages).await?;

    let mut session = database.connect("bench", Role::Lease).await?;
    session.begin().await?;
    let acquired = Leases::new(&schema)
        .acquire(
            &mut session,
            &stage.outbox.table.to_string(),
            LANE,
            Uuid::now_v7(),
            Duration::from_secs(3600),
            false,
        )
        .await?;
    session.commit().await?;
    let acquired = acquired.ok_or_else(|| BenchError::Stalled {
        awaited: format!("the lease of {}", stage.outbox.table),
        seconds: 0,
    })?;
    let mut marker = database.connect("bench", Role::Marker).await?;
    let mark = mark(&mut marker, &outbox, &acquired.fence, &rows).await?;
    Ok(Limits::new(read, produce, mark))
}

/// Sends what there is, over connections made for it: what the first event of a relay cannot do without. As a relay
/// does, it asks for the topic while the producer connects: a message that comes before that waits half a second.
///
/// # Errors
/// Whatever Postgres or Kafka says.
pub async fn first(workspace: &Workspace, stage: &Stage) -> Result<(), BenchError> {
    let reports = Arc::new(Reports::default());
    let producer = Producer::new(workspace.kafka(), Sharing::Batched, PRODUCER, &reports)?;
    let topics = Topics::new(workspace.kafka())?;
    topics.ensure(&stage.topic, REQUEST_TIMEOUT).await?;
    let outbox = outbox(workspace, stage);
    let mut reader = workspace.database().connect("bench", Role::Reader).await?;
    let messages = encode(&mut reader, &outbox, stage).await?;
    send(&producer, &reports, &stage.topic, &messages).await?;
    close(producer).await
}

/// All rows of the stage that a relay is to publish, by the relay's own statement.
///
/// # Errors
/// Whatever Postgres says.
pub async fn rows(workspace: &Workspace, stage: &Stage) -> Result<Vec<EventRef>, BenchError> {
    let outbox = outbox(workspace, stage);
    let mut reader = workspace.database().connect("bench", Role::Reader).await?;
    Ok(read(&mut reader, &outbox, stage.aside_upto).await?.0)
}

fn outbox(workspace: &Workspace, stage: &Stage) -> Outbox {
    Outbox::new(
        &stage.outbox.table,
        workspace.config().postgres.schema.as_str(),
        stage.outbox.on_sent,
        workspace.kafka().rules().max_message_bytes,
    )
}

async fn read(
    session: &mut Session,
    outbox: &Outbox,
    after: i64,
) -> Result<(Vec<EventRef>, f64), BenchError> {
    let limit = BatchLimit {
        rows: BATCH_ROWS,
        bytes: usize::MAX,
    };
    let mut rows: Vec<EventRef> = Vec::new();
    let started = Instant::now();
    loop {
        let position = rows.last().map_or(after, |row| row.id);
        session.begin().await?;
        let batch = outbox
            .forward(session, position, limit, |event| black_box(event).reference)
            .await?;
        session.commit().await?;
        rows.extend(batch.rows);
        if !batch.full {
            break;
        }
    }
    let rate = per_second(rows.len(), started.elapsed());
    Ok((rows, rate))
}

async fn encode(
    session: &mut Session,
    outbox: &Outbox,
    stage: &Stage,
) -> Result<Vec<(Message, Option<i64>)>, BenchError> {
    let envelope = Envelope::new(&stage.outbox);
    let timestamp = stage.outbox.timestamp;
    let mut encoder = Encoder::default();
    let mut messages = Vec::new();
    let mut position = i64::MIN;
    while messages.len() < MOST_MESSAGES {
        let limit = BatchLimit {
            rows: BATCH_ROWS.min(MOST_MESSAGES - messages.len()),
            bytes: usize::MAX,
        };
        session.begin().await?;
        let batch = outbox
            .forward(session, position, limit, |event| {
                position = event.reference.id;
                let millis = event.created_at.map(CreatedAt::unix_millis);
                let sent_at = millis.filter(|_| timestamp == EventTimestamp::CreatedAt);
                let message = encoder.encode(&envelope, event);
                message.map(|message| (message, sent_at))
            })
            .await?;
        session.commit().await?;
        let full = batch.full;
        for message in batch.rows {
            messages.push(message.map_err(|error| BenchError::Produce {
                reason: error.to_string(),
            })?);
        }
        if !full {
            break;
        }
    }
    Ok(messages)
}

/// The rate of a producer of its own.
async fn produce(
    workspace: &Workspace,
    topic: &str,
    messages: Vec<(Message, Option<i64>)>,
) -> Result<f64, BenchError> {
    let reports = Arc::new(Reports::default());
    let producer = Producer::new(workspace.kafka(), Sharing::Batched, PRODUCER, &reports)?;
    let rate = send(&producer, &reports, topic, &messages).await?;
    close(producer).await?;
    Ok(rate)
}

/// Hands over as fast as the producer takes, and waits for the last report.
async fn send(
    producer: &Producer,
    reports: &Reports,
    topic: &str,
    messages: &[(Message, Option<i64>)],
) -> Result<f64, BenchError> {
    let mut taken = Vec::new();
    // The first message waits for the connection and the producer's id, which is no limit of the rate.
    let mut started = Instant::now();
    let mut acknowledged = 0;
    for (ticket, (message, sent_at)) in messages.iter().enumerate() {
        loop {
            match producer.send(topic, message, *sent_at, ticket as u64) {
                Ok(()) => break,
                Err(SendError::QueueFull) => {
                    acknowledged += reported(reports, &mut taken).await?;
                }
                Err(error) => {
                    return Err(BenchError::Produce {
                        reason: format!("{error:?}"),
                    });
                }
            }
        }
        if ticket == 0 {
            acknowledged += reported(reports, &mut taken).await?;
            started = Instant::now();
        }
    }
    while acknowledged < messages.len() {
        acknowledged += reported(reports, &mut taken).await?;
    }
    Ok(per_second(messages.len(), started.elapsed()))
}

/// Its destructor waits; nothing is in flight any more.
async fn close(producer: Producer) -> Result<(), BenchError> {
    tokio::task::spawn_blocking(move || drop(producer)).await?;
    Ok(())
}

async fn reported(
    reports: &Reports,
    taken: &mut Vec<crate::kafka::Report>,
) -> Result<usize, BenchError> {
    let waited = tokio::time::timeout(PATIENCE, reports.wait()).await;
    waited.map_err(|_| BenchError::Stalled {
        awaited: "acknowledgements".to_owned(),
        seconds: PATIENCE.as_secs(),
    })?;
    reports.take(taken);
    match taken.iter().find_map(|report| report.outcome.err()) {
        Some(code) => Err(BenchError::Produce {
            reason: code.to_string(),
        }),
        None => Ok(taken.len()),
    }
}

async fn mark(
    session: &mut Session,
    outbox: &Outbox,
    fence: &Fence,
    rows: &[EventRef],
) -> Result<f64, BenchError> {
    let started = Instant::now();
    for batch in rows.chunks(BATCH_ROWS) {
        session.begin().await?;
        outbox.settle(session, fence, batch).await?;
        session.commit().await?;
    }
    Ok(per_second(rows.len(), started.elapsed()))
}

fn per_second(rows: usize, elapsed: Duration) -> f64 {
    rows as f64 / elapsed.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_slower_than_its_slowest_part() {
        let limits = Limits::new(600.0, 300.0, 200.0);
        assert!((limits.chain - 100.0).abs() < 1e-9);
    }
}
