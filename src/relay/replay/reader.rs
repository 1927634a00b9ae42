//! The wanted rows, encoded, batch by batch.

use std::sync::Arc;

use super::{Choice, Wanted};
use crate::config::OutboxConfig;
use crate::db::outbox::BatchLimit;
use crate::db::outbox::sent_rows::{SentRows, Span};
use crate::db::{DbError, Session};
use crate::relay::BATCHES_PER_WINDOW;
use crate::relay::postgres::Postgres;
use crate::relay::router::{Origin, Router};
use crate::relay::window::Outgoing;

/// Walks the table once.
pub struct Reader<'r> {
    postgres: &'r Postgres,
    session: &'r mut Session,
    rows: &'r SentRows,
    router: Router,
    topics: Vec<Arc<str>>,
    choice: Choice,
    topic: Option<String>,
    /// The name that leases and notes have for the outbox.
    outbox: String,
    limit: BatchLimit,
    /// What is left; nothing at the end.
    rest: Option<Span>,
}

impl<'r> Reader<'r> {
    pub fn new(
        postgres: &'r Postgres,
        session: &'r mut Session,
        rows: &'r SentRows,
        outbox: &OutboxConfig,
        wanted: &Wanted,
        last: i64,
    ) -> Reader<'r> {
        Reader {
            postgres,
            session,
            rows,
            router: Router::new(outbox),
            topics: Vec::new(),
            choice: wanted.choice.clone(),
            topic: wanted.topic.clone(),
            outbox: outbox.table.to_string(),
            limit: BatchLimit {
                rows: outbox.batch_rows.get() as usize,
                bytes: (outbox.window_bytes.as_u64() / BATCHES_PER_WINDOW).max(1) as usize,
            },
            rest: Some(Span {
                after: wanted.after.unwrap_or(i64::MIN),
                upto: last,
            }),
        }
    }

    /// The next rows with their topics, perhaps none; nothing at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<(Arc<str>, Outgoing)>>, DbError> {
        let Some(span) = self.rest else {
            return Ok(None);
        };
        let (session, router) = (&mut *self.session, &mut self.router);
        let (rows, choice, outbox, limit) = (self.rows, &self.choice, &self.outbox, self.limit);
        let step = async {
            session.begin().await?;
            let read = rows.read(session, choice, span, limit, outbox, |event| {
                router.route(event)
            });
            let read = read.await?;
            session.commit().await?;
            Ok(read)
        };
        let (rows, rest) = self.postgres.deadline("reading sent rows", step).await?;
        self.rest = rest.map(|after| Span { after, ..span });
        let batch = self.router.batch(rows, Origin::Poll);
        // They are numbered in this order.
        self.topics
            .extend(batch.new_topics.into_iter().map(|(_, name)| name));
        let named = batch.rows.into_iter().filter_map(|row| {
            let topic = self.topics.get(row.topic.0 as usize)?;
            let wanted = self.topic.as_deref();
            let is_wanted = wanted.is_none_or(|wanted| wanted == &**topic);
            let message = row.message.replayed();
            is_wanted.then(|| (Arc::clone(topic), Outgoing { message, ..row }))
        });
        Ok(Some(named.collect()))
    }
}
