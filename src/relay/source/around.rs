//! Reading around rows that are not to be looked at, and around those that Postgres cannot read.
//!
//! A value whose storage is damaged, or whose text is larger than Postgres can make, ends the statement that reads
//! it; text that is no UTF-8 ends the reading of its answer. Such a row must not stop those around it. After such an
//! error the source is *careful* until it has read everything: it lists the rows first, reads them by their ids, and
//! what cannot be read together in halves. A row that cannot be read alone is handed over as one that cannot be
//! sent, and is parked.

use super::{Event, Source, outbox};
use crate::db::outbox::BatchLimit;
use crate::db::{DbError, Session};
use crate::event::EventRef;
use crate::relay::window::Outgoing;

/// Rows that are listed at a time beside those to be read: 24 bytes each, and less to fetch than by one poll more.
const MAX_UNREAD: usize = 10_000;

/// So many rows in succession that cannot be read are not to blame one by one.
const MAX_UNREADABLE: usize = 50;

impl Source {
    /// The unsent rows above `after`, up to `upto` if that is given, in order. Those that are not to be looked at
    /// are among them, [unread](Outgoing::unread).
    pub(super) async fn unsent(
        &mut self,
        session: &mut Session,
        after: i64,
        upto: Option<i64>,
        limit: BatchLimit,
    ) -> Result<outbox::Batch<Outgoing>, DbError> {
        let end = upto.unwrap_or(i64::MAX);
        let unread = self.router.unread().next(after).filter(|id| *id <= end);
        if self.is_careful {
            return self.unsent_around(session, after, end, limit).await;
        }
        let Some(unread) = unread else {
            return self.unsent_directly(session, after, upto, limit).await;
        };
        if unread > after.saturating_add(limit.rows as i64) {
            let before = self.unsent_directly(session, after, Some(unread - 1), limit);
            let before = before.await?;
            if before.full {
                return Ok(before);
            }
        }
        self.unsent_around(session, after, end, limit).await
    }

    async fn unsent_directly(
        &mut self,
        session: &mut Session,
        after: i64,
        upto: Option<i64>,
        limit: BatchLimit,
    ) -> Result<outbox::Batch<Outgoing>, DbError> {
        let (outbox, router) = (&self.outbox, &mut self.router);
        let take = |event: &Event<'_>| router.route(event);
        match upto {
            None => outbox.forward(session, after, limit, take).await,
            Some(upto) => {
                outbox
                    .unsent_between(session, after, upto, limit, take)
                    .await
            }
        }
    }

    /// Lists rows, and reads by their ids those that may be read.
    async fn unsent_around(
        &mut self,
        session: &mut Session,
        after: i64,
        upto: i64,
        limit: BatchLimit,
    ) -> Result<outbox::Batch<Outgoing>, DbError> {
        let unread = self.router.unread();
        let among = unread.count(after, after.saturating_add(MAX_UNREAD as i64));
        let most = limit.rows.saturating_add(among);
        let listed = self.outbox.references(session, after, upto, most).await?;
        let mut full = listed.len() == most;
        let unread = self.router.unread();
        let (mut unread, mut wanted): (Vec<_>, Vec<_>) = listed
            .into_iter()
            .partition(|event| unread.contains(*event));
        let is_cut = wanted.len() > limit.rows;
        wanted.truncate(limit.rows);
        let read = match self.is_careful {
            true => self.read_apart(session, &wanted, limit).await?,
            false => self.read(session, &wanted, limit).await?,
        };
        // What stands above the last row that was read comes with the next poll.
        let last = match read.full {
            true => read.rows.last().map(|row| row.event.id),
            false => wanted.last().filter(|_| is_cut).map(|event| event.id),
        };
        if let Some(last) = last {
            unread.truncate(unread.partition_point(|event| event.id <= last));
            full = true;
        }
        let mut rows = read.rows;
        rows.extend(unread.into_iter().map(Outgoing::unread));
        rows.sort_unstable_by_key(|row| row.event.id);
        Ok(outbox::Batch { rows, full })
    }

    async fn read(
        &mut self,
        session: &mut Session,
        events: &[EventRef],
        limit: BatchLimit,
    ) -> Result<outbox::Batch<Outgoing>, DbError> {
        let ids: Vec<i64> = events.iter().map(|event| event.id).collect();
        if ids.is_empty() {
            return Ok(outbox::Batch::default());
        }
        let router = &mut self.router;
        let take = |event: &Event<'_>| router.route(event);
        self.outbox.unsent_with_ids(session, ids, limit, take).await
    }

    /// Reads rows together that can be read together.
    ///
    /// # Errors
    /// Whatever Postgres says that is not about single rows.
    async fn read_apart(
        &mut self,
        session: &mut Session,
        events: &[EventRef],
        limit: BatchLimit,
    ) -> Result<outbox::Batch<Outgoing>, DbError> {
        let mut all = outbox::Batch::default();
        let mut unreadable = 0;
        let mut bytes = 0;
        let mut parts = vec![events];
        while let Some(part) = parts.pop() {
            // At least a row goes on, whatever its size.
            let left = limit.bytes.saturating_sub(bytes).max(1);
            let limit = BatchLimit {
                bytes: left,
                ..limit
            };
            let attempt = async |session: &mut Session| self.read(session, part, limit).await;
            let error = match session.attempt(attempt).await {
                Ok(read) => {
                    unreadable = 0;
                    bytes += read
                        .rows
                        .iter()
                        .map(|row| row.message.size())
                        .sum::<usize>();
                    all.rows.extend(read.rows);
                    all.full = read.full;
                    if all.full {
                        break;
                    }
                    continue;
                }
                Err(error) => error,
            };
            match (error.said_of_a_row(), part) {
                (Some(said), [event]) if unreadable < MAX_UNREADABLE => {
                    unreadable += 1;
                    let reason = format!("Postgres cannot read it: {said}");
                    all.rows.push(self.router.unreadable(*event, &reason));
                }
                (Some(_), [_, _, ..]) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                _ => return Err(error),
            }
        }
        Ok(all)
    }
}
