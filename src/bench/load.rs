//! The load of `bench latency`: single-row transactions by a fixed schedule.

use std::time::{Duration, Instant};

use sqlx::PgConnection;
use uuid::Uuid;

use super::BenchError;
use crate::db::bench::{BenchTable, PAYLOAD_FRAME};

/// An event that was committed.
#[derive(Debug, Clone)]
pub struct Sent {
    pub event_id: Uuid,
    pub key: String,
    /// When it was to be inserted.
    pub due: Instant,
    /// The insert was sent.
    pub started: Instant,
    /// The commit's answer arrived.
    pub committed: Instant,
}

/// When a writer inserts: the schedule is fixed in advance, so an insert that takes long delays none of
/// the later ones on paper, and [`Sent::due`] tells by how much it did.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    pub first: Instant,
    pub every: Duration,
    pub events: usize,
}

/// One connection that inserts. Its keys are its own, so that their order is that of its inserts, as it
/// is for an application that locks the key.
pub struct Writer {
    pub connection: PgConnection,
    table: BenchTable,
    name: usize,
    keys: usize,
    random: fastrand::Rng,
    padding: String,
    written: usize,
}

impl Writer {
    /// `keys` are those of this writer.
    pub fn new(
        connection: PgConnection,
        table: BenchTable,
        (name, keys): (usize, usize),
        seed: u64,
        payload: usize,
    ) -> Writer {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(name as u64));
        let padding = payload.saturating_sub(PAYLOAD_FRAME);
        Writer {
            connection,
            table,
            name,
            keys: keys.max(1),
            padding: std::iter::repeat_with(|| random.alphanumeric())
                .take(padding)
                .collect(),
            random,
            written: 0,
        }
    }

    /// Inserts by the schedule.
    ///
    /// # Errors
    /// Whatever Postgres says. Cancelled, an insert under way may still be committed.
    pub async fn run(mut self, schedule: Schedule) -> Result<Vec<Sent>, BenchError> {
        let mut sent = Vec::with_capacity(schedule.events);
        let mut due = schedule.first;
        for _ in 0..schedule.events {
            tokio::time::sleep_until(due.into()).await;
            sent.push(self.write(due).await?);
            due += schedule.every;
        }
        Ok(sent)
    }

    /// Inserts one event now.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn write(&mut self, due: Instant) -> Result<Sent, BenchError> {
        // A tenth of the events falls on one hot key.
        let key = match self.random.u8(..10) {
            0 => 0,
            _ => self.random.usize(..self.keys),
        };
        let key = format!("key-{}-{key:06}", self.name);
        self.written += 1;
        let payload = format!(
            "{{\"n\":\"{:010}\",\"pad\":\"{}\"}}",
            self.written, self.padding
        );
        let event_id = Uuid::now_v7();
        let started = Instant::now();
        self.table
            .insert(&mut self.connection, event_id, &key, &payload)
            .await?;
        Ok(Sent {
            event_id,
            key,
            due,
            started,
            committed: Instant::now(),
        })
    }
}
