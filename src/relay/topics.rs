//! The topics that the rows of a lane go to: asked for before the first row is sent, and again for as long
//! as they cannot be used.

use std::future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::task::JoinSet;

use super::window::{Outgoing, TopicId};
use crate::config::is_topic_name;
use crate::kafka::{
    ClientRules, KafkaSetupError, REQUEST_TIMEOUT, TopicRules, TopicStatus, Topics,
};
use crate::outage::{Retry, chain, jittered};

/// How long an unusable topic waits until it is asked for again, at most.
const TOPIC_WAIT: Duration = Duration::from_secs(30);

/// How long the first rows of a topic that is there wait for its rules: an answer takes milliseconds, and without one
/// its limits show when a message is refused.
const RULES_PATIENCE: Duration = Duration::from_secs(1);

/// How long a question that the cluster did not answer waits until it is asked again.
const CLUSTER_WAIT: Duration = Duration::from_secs(1);

/// What the cluster says of a topic; nothing if the question was lost with its task.
pub type TopicAnswer = Option<(TopicId, Result<TopicStatus, KafkaSetupError>)>;

/// See the module's documentation.
pub struct TopicDesk {
    outbox: String,
    client: ClientRules,
    topics: Topics,
    seen: HashMap<TopicId, Seen>,
    ids: HashMap<Arc<str>, TopicId>,
    questions: JoinSet<(TopicId, Result<TopicStatus, KafkaSetupError>)>,
}

struct Seen {
    name: Arc<str>,
    retry: Retry,
    rules: TopicRules,
    /// The rules are from then or later.
    rules_since: Option<Instant>,
    /// When the question was put that is not answered yet.
    asking_since: Option<Instant>,
    /// Why it could not be used at the last answer, and since when.
    unusable: Option<(String, Instant)>,
}

impl TopicDesk {
    pub fn new(outbox: String, client: ClientRules, topics: Topics) -> TopicDesk {
        TopicDesk {
            outbox,
            client,
            topics,
            seen: HashMap::new(),
            ids: HashMap::new(),
            questions: JoinSet::new(),
        }
    }

    /// A topic is used for the first time: asks for it. Says false of a name that no topic can have, which
    /// nobody is asked about.
    pub fn add(&mut self, id: TopicId, name: Arc<str>) -> bool {
        let is_possible = is_topic_name(&name);
        self.ids.insert(Arc::clone(&name), id);
        let retry = Retry::new(TOPIC_WAIT);
        let seen = Seen {
            name,
            retry,
            rules: TopicRules::default(),
            rules_since: None,
            asking_since: None,
            unusable: None,
        };
        self.seen.insert(id, seen);
        if is_possible {
            self.ask(id);
        }
        is_possible
    }

    /// Every topic that has a number.
    pub fn ids(&self) -> impl Iterator<Item = (&str, TopicId)> {
        self.ids.iter().map(|(name, id)| (&**name, *id))
    }

    pub fn id(&self, name: &str) -> Option<TopicId> {
        self.ids.get(name).copied()
    }

    pub fn name(&self, id: TopicId) -> Option<&str> {
        self.seen.get(&id).map(|seen| &*seen.name)
    }

    /// Why the topic cannot be used, and since when, if so.
    pub fn unusable(&self, id: TopicId) -> Option<(&str, Instant)> {
        let (reason, since) = self.seen.get(&id)?.unusable.as_ref()?;
        Some((reason, *since))
    }

    /// Why the topic would refuse a message, if it would.
    pub fn refuses(&self, row: &Outgoing, now_ms: i64) -> Option<String> {
        let rules = &self.seen.get(&row.topic)?.rules;
        rules.refuses(&self.client, &row.message, row.timestamp_ms, now_ms)
    }

    /// Whether a topic's rules are from after that instant; if not, they are asked for again.
    pub fn are_rules_from_after(&mut self, id: TopicId, instant: Instant) -> bool {
        let Some(seen) = self.seen.get(&id) else {
            return true;
        };
        let are_newer = seen.rules_since.is_some_and(|since| since > instant);
        if !are_newer && seen.asking_since.is_none() {
            self.ask(id);
        }
        are_newer
    }

    /// The smallest `max.message.bytes` of all topics.
    pub fn least_limit(&self) -> Option<usize> {
        let limits = self
            .seen
            .values()
            .filter_map(|seen| seen.rules.max_message_bytes);
        limits.min()
    }

    /// Asks for a topic at once.
    pub fn ask(&mut self, id: TopicId) {
        self.ask_after(id, Duration::ZERO);
    }

    fn ask_after(&mut self, id: TopicId, wait: Duration) {
        let Some(seen) = self.seen.get_mut(&id) else {
            return;
        };
        // It is put later, if there is a wait; the answer is then newer than it need be.
        seen.asking_since = Some(Instant::now());
        let (topics, name) = (self.topics.clone(), Arc::clone(&seen.name));
        let rules_within = match seen.rules_since {
            None => RULES_PATIENCE,
            Some(_) => REQUEST_TIMEOUT,
        };
        self.questions.spawn(async move {
            tokio::time::sleep(wait).await;
            (id, topics.ensure(&name, rules_within).await)
        });
    }

    /// Waits for an answer. Cancel-safe: none is lost.
    pub async fn answered(&mut self) -> TopicAnswer {
        match self.questions.join_next().await {
            Some(answer) => answer.ok(),
            None => future::pending().await,
        }
    }

    /// Takes an answer in; returns the topic if the cluster said something of it, and if it can be used now, how
    /// many partitions it has. As long as it cannot, it is asked for again.
    pub fn take(&mut self, answer: TopicAnswer) -> Option<(TopicId, Option<usize>)> {
        let (id, status) = answer?;
        let seen = self.seen.get_mut(&id)?;
        let mut wait = seen.retry.next_wait();
        let is_known = status.is_ok();
        let asked = seen.asking_since.take();
        match status {
            Ok(TopicStatus::Ready { partitions, rules }) => {
                let is_answered = rules.is_some();
                seen.rules = rules.unwrap_or(seen.rules);
                seen.rules_since = asked;
                if seen.unusable.take().is_some() {
                    tracing::info!(outbox = self.outbox, topic = %seen.name, "the topic can be used now");
                    seen.retry.reset();
                }
                match is_answered {
                    true => seen.retry.reset(),
                    false => self.ask_after(id, wait),
                }
                return Some((id, Some(partitions)));
            }
            Ok(TopicStatus::Unusable(reason)) => {
                let now = Instant::now();
                let since = seen.unusable.as_ref().map_or(now, |(_, since)| *since);
                seen.unusable = Some((reason.clone(), since));
                if seen.retry.is_news(&reason, now) {
                    tracing::warn!(
                        outbox = self.outbox,
                        topic = %seen.name,
                        error = reason,
                        retry_in_ms = wait.as_millis() as u64,
                        "the topic cannot be used, its rows wait"
                    );
                }
            }
            // The outage is logged where it is noticed. It says nothing of the topic, so the topic's own
            // waits start over when the cluster is back.
            Err(error) => {
                tracing::debug!(error = chain(&error), "asking for a topic failed");
                seen.retry.reset();
                wait = jittered(CLUSTER_WAIT);
            }
        }
        self.ask_after(id, wait);
        is_known.then_some((id, None))
    }

    /// Whether the cluster answers at all.
    pub async fn cluster_answers(&self) -> bool {
        self.topics.answers().await
    }
}
