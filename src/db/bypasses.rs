//! Breakers that somebody has bypassed: the topic's refused rows are parked all the same, until it takes one.

use std::sync::Arc;

use sqlx::Row;

use super::lease::{Fence, fenced, with_fence};
use super::wishes::{Kind, Wish, Wishes};
use super::{DbError, Session};

/// One that is in force.
pub type Bypass = Wish<String>;

/// The bypassed breakers of one outbox.
pub type Bypasses = Wishes<String>;

const BYPASSES: Kind = Kind {
    one: "a bypassed breaker",
    several: "the bypassed breakers",
    in_force: "outboxd_bypasses where ended_at is null",
    note: "outbox_dead_park",
    take_back: "outbox_dead_park_stop",
};

impl Bypasses {
    /// `outbox` as it is named in its lease.
    pub fn new(relay_schema: &str, outbox: &str) -> Bypasses {
        Wishes::of(&BYPASSES, relay_schema, outbox)
    }
}

/// How the owner of an outbox ends them.
#[derive(Debug, Clone)]
pub struct EndBypasses {
    end: Arc<str>,
}

impl EndBypasses {
    pub fn new(relay_schema: &str) -> EndBypasses {
        let fence = with_fence(relay_schema);
        EndBypasses {
            end: format!(
                "{fence}, ended as (\
                     update \"{relay_schema}\".outboxd_bypasses set ended_at = clock_timestamp() \
                     where outbox = $1 and topic = any ($5) and ended_at is null \
                       and exists (select from fence)) \
                 select exists (select from fence)"
            )
            .into(),
        }
    }

    /// Notes that these topics have taken a row; false if the lane is not ours any more, then nothing is.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn end(
        &self,
        session: &mut Session,
        fence: &Fence,
        topics: &[String],
    ) -> Result<bool, DbError> {
        let query = fenced(session, &self.end, fence).bind(topics.to_vec());
        let row = session.fetch_one(query).await;
        let action = DbError::query(format!("ending bypasses of {}", fence.outbox));
        row.and_then(|row| row.try_get(0)).map_err(action)
    }
}
