//! The circuit breaker of a lane: when the brokers refuse row after row of a topic, the topic is the cause and
//! not its rows. Pure: it is told what happened, and when.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::window::{Backoff, TopicId};

/// See the module's documentation.
#[derive(Debug)]
pub struct Breaker {
    limit: u32,
    backoff: Backoff,
    /// Topics with refusals since their last success.
    topics: HashMap<TopicId, Refusals>,
}

#[derive(Debug, Default)]
struct Refusals {
    rows: u32,
    /// Rows that were tried since it opened.
    trials: u32,
    /// When the next one is due; nothing while it is closed.
    trial_at: Option<Instant>,
    /// One is under way.
    is_tried: bool,
    /// What was said when it opened, and when that was.
    opened: Option<(Box<str>, Instant)>,
    /// Somebody wants the rows parked, however many they are: it does not open.
    is_bypassed: bool,
}

/// What it ends that the brokers took a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// The breaker was open.
    Open,
    /// It was bypassed.
    Bypass,
}

impl Breaker {
    /// Opens after `limit` refusals in turn.
    pub fn new(limit: u32, backoff: Backoff) -> Breaker {
        Breaker {
            limit,
            backoff,
            topics: HashMap::new(),
        }
    }

    /// The brokers refused a row that went alone. Says whether the breaker opens, or stays open: then the row
    /// is not to blame.
    pub fn refused(
        &mut self,
        topic: TopicId,
        now: Instant,
        jitter: impl Fn(Duration) -> Duration,
    ) -> bool {
        let refusals = self.topics.entry(topic).or_default();
        refusals.rows = refusals.rows.saturating_add(1);
        let opens = refusals.rows >= self.limit && !refusals.is_bypassed;
        if opens {
            self.open(topic, now, jitter);
        }
        opens
    }

    /// The brokers refuse the topic itself.
    pub fn open(&mut self, topic: TopicId, now: Instant, jitter: impl Fn(Duration) -> Duration) {
        let refusals = self.topics.entry(topic).or_default();
        if refusals.trial_at.is_some() && !std::mem::take(&mut refusals.is_tried) {
            // It was under way already, with those that opened it.
            return;
        }
        refusals.trials = refusals.trials.saturating_add(1);
        let wait = jitter(self.backoff.after(refusals.trials));
        refusals.trial_at = Some(now + wait);
    }

    /// The brokers took a row: the breaker is closed from now on, and not bypassed. Says if that is new.
    pub fn took(&mut self, topic: TopicId) -> Option<Ends> {
        let refusals = match self.topics.is_empty() {
            true => None,
            false => self.topics.remove(&topic),
        }?;
        match refusals.trial_at {
            Some(_) => Some(Ends::Open),
            None => refusals.is_bypassed.then_some(Ends::Bypass),
        }
    }

    /// Somebody wants the topic's rows parked until it takes one, though it is to blame and not they. Says
    /// whether the breaker was open, which it is no more.
    pub fn bypass(&mut self, topic: TopicId) -> bool {
        let refusals = self.topics.entry(topic).or_default();
        let was_open = refusals.trial_at.is_some();
        *refusals = Refusals {
            rows: refusals.rows,
            is_bypassed: true,
            ..Refusals::default()
        };
        was_open
    }

    /// Somebody wants that no more: the next refusal counts with those before.
    pub fn arm(&mut self, topic: TopicId) {
        if let Some(refusals) = self.topics.get_mut(&topic) {
            refusals.is_bypassed = false;
        }
    }

    pub fn is_bypassed(&self, topic: TopicId) -> bool {
        let refusals = self.topics.get(&topic);
        refusals.is_some_and(|refusals| refusals.is_bypassed)
    }

    /// Whether rows of the topic were refused in turn.
    pub fn is_open(&self, topic: TopicId) -> bool {
        let refusals = self.topics.get(&topic);
        refusals.is_some_and(|refusals| refusals.trial_at.is_some())
    }

    /// Notes why it opened.
    pub fn explain(&mut self, topic: TopicId, why: &str, now: Instant) {
        if let Some(refusals) = self.topics.get_mut(&topic) {
            refusals.opened = Some((why.into(), now));
        }
    }

    /// Why it is open, and since when, if so.
    pub fn opened(&self, topic: TopicId) -> Option<(&str, Instant)> {
        let (why, since) = self.topics.get(&topic)?.opened.as_ref()?;
        Some((why, *since))
    }

    /// The topics of which one row is to be tried now.
    pub fn due(&mut self, now: Instant) -> Vec<TopicId> {
        let topics = self.topics.iter_mut();
        let due = topics.filter(|(_, refusals)| refusals.trial_at.is_some_and(|at| at <= now));
        due.map(|(topic, refusals)| {
            // Until its report, which sets the next one; if no row was at hand, it is asked for again then.
            refusals.trial_at = Some(now + self.backoff.most);
            refusals.is_tried = true;
            *topic
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_secs(1),
        most: Duration::from_secs(8),
    };
    const TOPIC: TopicId = TopicId(7);

    #[test]
    fn refusals_in_turn_open_it_and_one_success_closes_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new(3, BACKOFF);
        let refused = |breaker: &mut Breaker, at| breaker.refused(TOPIC, at, |wait| wait);
        assert!(!refused(&mut breaker, now));
        assert_eq!(breaker.took(TOPIC), None, "it was closed");
        assert!(!refused(&mut breaker, now));
        assert!(!refused(&mut breaker, now));
        assert!(refused(&mut breaker, now), "three in turn");
        assert!(breaker.due(now).is_empty());
        let next = now + BACKOFF.first;
        assert_eq!(breaker.due(next), [TOPIC]);
        assert!(breaker.due(next).is_empty(), "one row at a time");
        assert!(refused(&mut breaker, next));
        assert!(
            breaker.due(next + BACKOFF.first).is_empty(),
            "it waits longer"
        );
        assert_eq!(breaker.due(next + 2 * BACKOFF.first), [TOPIC]);
        assert!(breaker.is_open(TOPIC));
        assert_eq!(breaker.took(TOPIC), Some(Ends::Open));
        assert!(!breaker.is_open(TOPIC));
        assert!(breaker.due(next + BACKOFF.most * 2).is_empty());
    }

    #[test]
    fn rows_that_were_under_way_when_it_opened_make_nobody_wait_longer() {
        let now = Instant::now();
        let mut breaker = Breaker::new(2, BACKOFF);
        for _ in 0..20 {
            breaker.open(TOPIC, now, |wait| wait);
            breaker.refused(TOPIC, now, |wait| wait);
        }
        assert_eq!(breaker.due(now + BACKOFF.first), [TOPIC]);
    }

    #[test]
    fn a_topic_has_its_own() {
        let now = Instant::now();
        let mut breaker = Breaker::new(1, BACKOFF);
        assert!(breaker.refused(TOPIC, now, |wait| wait));
        assert_eq!(breaker.took(TopicId(8)), None);
        assert_eq!(breaker.took(TOPIC), Some(Ends::Open));
    }

    #[test]
    fn bypassed_it_blames_the_rows_until_one_is_taken() {
        let now = Instant::now();
        let mut breaker = Breaker::new(2, BACKOFF);
        let refused = |breaker: &mut Breaker| breaker.refused(TOPIC, now, |wait| wait);
        assert!(!breaker.bypass(TopicId(8)), "none was refused yet");
        assert!(!refused(&mut breaker));
        assert!(refused(&mut breaker));
        assert!(breaker.bypass(TOPIC), "it was open");
        assert!(!breaker.bypass(TOPIC), "it is said again");
        for _ in 0..20 {
            assert!(!refused(&mut breaker));
        }
        assert!(!breaker.is_open(TOPIC));
        assert_eq!(breaker.opened(TOPIC), None);
        assert!(breaker.due(now + BACKOFF.most).is_empty(), "nothing waits");
        assert_eq!(breaker.took(TOPIC), Some(Ends::Bypass));
        assert_eq!(breaker.took(TOPIC), None);
        assert!(!refused(&mut breaker), "it counts anew");
        assert!(refused(&mut breaker));
        assert!(breaker.is_bypassed(TopicId(8)));
        assert!(!breaker.is_bypassed(TOPIC));
    }

    #[test]
    fn armed_again_it_opens_with_the_next_refusal() {
        let now = Instant::now();
        let mut breaker = Breaker::new(2, BACKOFF);
        breaker.arm(TOPIC);
        assert!(breaker.topics.is_empty(), "nothing is kept of other topics");
        breaker.bypass(TOPIC);
        for _ in 0..5 {
            assert!(!breaker.refused(TOPIC, now, |wait| wait));
        }
        breaker.arm(TOPIC);
        assert!(!breaker.is_open(TOPIC));
        assert!(breaker.refused(TOPIC, now, |wait| wait));
    }
}
