//! What a replay would send, and what would become of it: looked at before anything is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Replay, ReplayError, Wanted};
use crate::db::DbError;
use crate::event::CreatedAt;
use crate::kafka::{ClientRules, REQUEST_TIMEOUT, TopicRetention, TopicRules, TopicStatus};
use crate::outage::chain;
use crate::relay::window::Outgoing;

/// What is there.
#[derive(Debug, Default)]
pub struct Survey {
    /// Rows to be sent.
    pub rows: u64,
    /// The last id that is looked at; nothing: the table is empty.
    pub last: Option<i64>,
    /// The first row that was sent and is still there.
    pub oldest: Option<(i64, Option<CreatedAt>)>,
    pub topics: BTreeMap<Arc<str>, TopicSurvey>,
    /// Rows older than what the consumers remember.
    pub forgotten: u64,
    /// Rows that cannot be messages any more, and the first of them with its reason: they are left out.
    pub unsendable: u64,
    pub first_unsendable: Option<(i64, Box<str>)>,
    /// Of the ids that were asked for, those that are no sent row.
    pub missing: Vec<i64>,
}

/// What goes to one topic.
#[derive(Debug)]
pub struct TopicSurvey {
    pub rows: u64,
    /// What it takes.
    pub rules: TopicRules,
    /// The error is why it is not known.
    pub retention: Result<TopicRetention, String>,
    /// Rows that the topic deletes soon after they arrive, by their timestamp.
    pub expired: u64,
}

impl Survey {
    /// Why the row cannot be a message of its topic any more, if so.
    pub(super) fn refuses(
        &self,
        client: &ClientRules,
        topic: &str,
        row: &Outgoing,
        now_ms: i64,
    ) -> Option<Box<str>> {
        if row.unsendable.is_some() {
            return row.unsendable.clone();
        }
        let rules = self.topics.get(topic)?.rules;
        let refused = rules.refuses(client, &row.message, row.timestamp_ms, now_ms);
        refused.map(Into::into)
    }

    /// The smallest message set that one of the topics takes at most.
    pub(super) fn set_bytes(&self) -> Option<usize> {
        let topics = self.topics.values();
        topics
            .filter_map(|topic| topic.rules.max_message_bytes)
            .min()
    }
}

impl TopicSurvey {
    /// The first instant that the topic keeps, in milliseconds since 1970.
    fn kept_from_ms(&self, now_ms: i64) -> Option<i64> {
        match &self.retention {
            Ok(TopicRetention::For(time)) => Some(now_ms.saturating_sub(millis(*time))),
            Ok(TopicRetention::Forever) | Err(_) => None,
        }
    }
}

impl Replay {
    /// Looks at everything that is wanted. `remembered` is how long the consumers remember ids, if that is
    /// known.
    ///
    /// # Errors
    /// When Postgres does not answer, or a topic cannot be used.
    pub async fn survey(
        &mut self,
        wanted: &Wanted,
        remembered: Option<Duration>,
    ) -> Result<Survey, ReplayError> {
        let now_ms = now_ms();
        let remembered_from_us =
            remembered.map(|time| now_ms.saturating_sub(millis(time)).saturating_mul(1_000));
        let mut survey = self.bounds().await?;
        let Some(last) = survey.last else {
            return Ok(survey);
        };
        let (topics, client) = (self.topics.clone(), self.kafka.rules());
        let mut found = BTreeSet::new();
        let mut reader = self.reader(wanted, last);
        while let Some(rows) = reader.next().await? {
            for (name, row) in rows {
                if wanted.choice.ids.is_some() {
                    found.insert(row.event.id);
                }
                // A name that none can have is not asked for.
                if row.unsendable.is_none() && !survey.topics.contains_key(&name) {
                    let looked_at = look_at(&topics, &name).await?;
                    survey.topics.insert(Arc::clone(&name), looked_at);
                }
                if let Some(reason) = survey.refuses(&client, &name, &row, now_ms) {
                    survey.unsendable += 1;
                    survey
                        .first_unsendable
                        .get_or_insert((row.event.id, reason));
                    continue;
                }
                let Some(topic) = survey.topics.get_mut(&name) else {
                    continue;
                };
                survey.rows += 1;
                topic.rows += 1;
                let kept_from = topic.kept_from_ms(now_ms);
                // Without a timestamp of its own a copy is as young as its sending.
                if row
                    .timestamp_ms
                    .zip(kept_from)
                    .is_some_and(|(at, from)| at < from)
                {
                    topic.expired += 1;
                }
                if remembered_from_us.is_some_and(|from| row.created_at_us < from) {
                    survey.forgotten += 1;
                }
            }
        }
        let asked = wanted.choice.ids.iter().flatten().copied();
        survey.missing = asked.filter(|id| !found.contains(id)).collect();
        Ok(survey)
    }

    async fn bounds(&mut self) -> Result<Survey, DbError> {
        let (session, rows) = (&mut self.session, &self.rows);
        let look = async {
            session.begin().await?;
            let survey = Survey {
                last: rows.last(session).await?,
                oldest: rows.oldest(session).await?,
                ..Survey::default()
            };
            session.commit().await?;
            Ok(survey)
        };
        self.postgres.deadline("looking at the outbox", look).await
    }
}

/// A topic that takes messages, and how long it keeps them. Not to be allowed to ask is no reason to stop.
async fn look_at(
    topics: &crate::kafka::Topics,
    name: &Arc<str>,
) -> Result<TopicSurvey, ReplayError> {
    let rules = match topics.ensure(name, REQUEST_TIMEOUT).await? {
        TopicStatus::Ready { rules, .. } => rules.unwrap_or_default(),
        TopicStatus::Unusable(reason) => {
            let topic = Arc::clone(name);
            return Err(ReplayError::Topic { topic, reason });
        }
    };
    let retention = topics.retention(&[name]).await;
    Ok(TopicSurvey {
        rows: 0,
        rules,
        retention: match retention {
            Ok(kept) => kept.first().copied().ok_or_else(|| "no answer".to_owned()),
            Err(error) => Err(chain(&error)),
        },
        expired: 0,
    })
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, millis)
}
