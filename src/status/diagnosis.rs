//! What is stuck, and why: a report's facts in words, the gravest first. Pure.

use super::report::{
    Bypass, HeldKey, HeldTopic, KeyHold, OutboxReport, Pause, Report, Service, ServiceWord, Stuck,
    TopicHold, Who,
};
use super::words::since;
use crate::terminal::counted;

/// Keys of a kind, and topics, that are said one by one for each outbox.
const SAID: usize = 5;

/// Everything that does not move.
pub fn diagnose(report: &Report) -> Vec<Stuck> {
    let mut stuck = Vec::new();
    let services = &report.services;
    for (name, service) in [("postgres", &services.postgres), ("kafka", &services.kafka)] {
        stuck.extend(outage(name, service, &report.at).map(|what| Stuck { outbox: None, what }));
    }
    for outbox in &report.outboxes {
        let of = Of {
            outbox,
            now: &report.at,
        };
        stuck.extend(of.all().into_iter().map(|what| Stuck {
            outbox: Some(outbox.name.clone()),
            what,
        }));
    }
    stuck
}

fn outage(name: &str, service: &Service, now: &str) -> Option<String> {
    let since = service.since.as_deref().map(|time| since(time, now));
    let reason = service.reason.as_deref().unwrap_or("no reason given");
    (service.state == ServiceWord::Down).then(|| {
        format!(
            "{name} is unreachable{}: {reason}",
            since.unwrap_or_default()
        )
    })
}

struct Of<'r> {
    outbox: &'r OutboxReport,
    /// The report's time.
    now: &'r str,
}

impl Of<'_> {
    fn all(&self) -> Vec<String> {
        let mut all = Vec::new();
        all.extend(self.without_owner());
        all.extend(self.not_ready());
        let (outbox, topics): (Vec<_>, Vec<_>) =
            self.outbox.paused.iter().partition(|p| p.topic.is_none());
        all.extend(outbox.iter().map(|pause| self.paused(pause)));
        // What is paused as a whole waits for nothing else.
        if outbox.is_empty() {
            let held = &self.outbox.held;
            let held_for_itself = held.topics.iter().filter(|t| t.hold != TopicHold::Paused);
            let said: Vec<String> = held_for_itself.map(|topic| self.topic(topic)).collect();
            limited(said, "topics", None, &mut all);
            all.extend(topics.iter().map(|pause| self.paused(pause)));
            self.keys(&mut all);
        }
        all.extend(
            self.outbox
                .bypassed
                .iter()
                .map(|bypass| self.bypassed(bypass)),
        );
        all.extend(self.parked());
        all
    }

    fn without_owner(&self) -> Option<String> {
        let owner = &self.outbox.owner;
        (owner.who == Who::Nobody).then(|| match owner.lease_seconds {
            Some(seconds) if owner.id.is_some() && seconds.is_finite() => format!(
                "nobody owns it: the last relay has not renewed its lease, which ran out {} ago",
                super::words::duration(-seconds)
            ),
            _ => "nobody owns it: no relay runs that is configured for it".to_owned(),
        })
    }

    fn not_ready(&self) -> Option<String> {
        let health = self.outbox.health.as_ref()?;
        (!health.is_ready && self.outbox.owner.who != Who::Nobody).then(|| health.text.clone())
    }

    fn paused(&self, pause: &Pause) -> String {
        let what = match &pause.topic {
            Some(topic) => format!("topic {topic} is paused"),
            None => "it is paused".to_owned(),
        };
        let why = pause.why.as_deref().unwrap_or("no reason given");
        let since = since(&pause.since, self.now);
        format!("{what}{since} by {}: {why}", pause.by)
    }

    fn bypassed(&self, bypass: &Bypass) -> String {
        let why = bypass.why.as_deref().unwrap_or("no reason given");
        let since = since(&bypass.since, self.now);
        format!(
            "refused rows of topic {} are parked until kafka takes one{since} by {}: {why}",
            bypass.topic, bypass.by
        )
    }

    fn topic(&self, topic: &HeldTopic) -> String {
        let (what, remedy) = match topic.hold {
            TopicHold::Paused => ("is paused", ""),
            TopicHold::Unusable => ("cannot be used", ""),
            TopicHold::BreakerOpen => (
                "refuses row after row, its breaker is open",
                " (outboxd dead park)",
            ),
        };
        let since = topic.since.as_deref().map(|time| since(time, self.now));
        format!(
            "topic {} {what}{}{remedy}: {}; {} wait",
            topic.topic,
            since.unwrap_or_default(),
            topic.why.as_deref().unwrap_or("no reason given"),
            counted(topic.rows, "row")
        )
    }

    fn keys(&self, all: &mut Vec<String>) {
        let held = &self.outbox.held;
        let (failing, blocked): (Vec<_>, Vec<_>) =
            held.keys.iter().partition(|k| k.hold == KeyHold::Failing);
        let said = failing.iter().chain(&blocked).map(|key| self.key(key));
        limited(said.collect(), "keys", Some(held.key_count), all);
    }

    fn key(&self, key: &HeldKey) -> String {
        let name = match &key.key {
            Some(name) => format!("key {name:?} of topic {}", key.topic),
            None => format!("a row without a key for topic {}", key.topic),
        };
        let since = since(&key.since, self.now);
        let rows = key
            .rows
            .map(|rows| format!("; {} wait", counted(rows, "row")));
        let rows = rows.unwrap_or_default();
        let attempts = key.attempts.map_or(0, u64::from);
        match key.hold {
            KeyHold::Failing => format!(
                "{name} does not get through{since}, {}: {}{rows}",
                counted(attempts, "attempt"),
                key.why
            ),
            KeyHold::Blocked => {
                format!(
                    "{name} waits for a decision{since} (outboxd dead list): {}{rows}",
                    key.why
                )
            }
        }
    }

    fn parked(&self) -> Option<String> {
        let parked = &self.outbox.parked;
        let rows = parked.rows.filter(|rows| *rows > 0)?;
        let last = parked.last.as_ref().map(|row| {
            format!(
                ", the last{}: row {} for topic {}, {}",
                since(&row.at, self.now),
                row.id,
                row.topic,
                row.reason
            )
        });
        Some(format!(
            "{} parked (outboxd dead list){}",
            match rows {
                1 => "1 row is".to_owned(),
                rows => format!("{rows} rows are"),
            },
            last.unwrap_or_default()
        ))
    }
}

/// The first few, and how many there are besides; `count` knows of more than are listed.
fn limited(mut said: Vec<String>, what: &str, count: Option<u64>, all: &mut Vec<String>) {
    let count = count.unwrap_or(0).max(said.len() as u64);
    said.truncate(SAID);
    let more = count - said.len() as u64;
    all.extend(said);
    if more > 0 {
        all.push(format!("and {more} {what} more wait"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::report::{Health, Held, Owner, Parked, SaidBy, Services};

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn outbox() -> OutboxReport {
        OutboxReport {
            name: "orders".to_owned(),
            table: "public.orders".to_owned(),
            owner: Owner {
                who: Who::ThisRelay,
                id: None,
                lease_seconds: None,
            },
            health: Some(Health {
                is_ready: true,
                text: "ready, owned here".to_owned(),
            }),
            published: Some(1),
            per_second: Some(0.5),
            pending_rows: Some(0),
            oldest_pending_seconds: None,
            late_rows: Some(0),
            window: None,
            held: Held::default(),
            parked: Parked::default(),
            paused: Vec::new(),
            bypassed: Vec::new(),
            last_error: None,
        }
    }

    fn stuck(outbox: OutboxReport, kafka: Service) -> Vec<String> {
        let report = Report {
            at: NOW.to_owned(),
            said_by: SaidBy::Relay,
            relay: None,
            services: Services {
                postgres: Service::UP,
                kafka,
            },
            stuck: Vec::new(),
            outboxes: vec![outbox],
        };
        diagnose(&report)
            .into_iter()
            .map(|stuck| stuck.what)
            .collect()
    }

    fn key(name: usize, hold: KeyHold) -> HeldKey {
        HeldKey {
            topic: "t".to_owned(),
            key: Some(format!("k{name}")),
            hold,
            why: "too large".to_owned(),
            since: "2026-01-02T03:04:00Z".to_owned(),
            attempts: Some(1),
            rows: Some(2),
        }
    }

    #[test]
    fn of_what_gets_on_nothing_is_said() {
        assert_eq!(stuck(outbox(), Service::UNKNOWN), Vec::<String>::new());
    }

    #[test]
    fn an_outage_comes_first_and_then_why_an_outbox_is_not_ready() {
        let mut ill = outbox();
        ill.health = Some(Health {
            is_ready: false,
            text: "not ready, 3 messages wait".to_owned(),
        });
        let down = Service {
            state: ServiceWord::Down,
            since: Some("2026-01-02T03:02:05Z".to_owned()),
            reason: Some("1/1 brokers are down".to_owned()),
        };
        assert_eq!(
            stuck(ill, down),
            [
                "kafka is unreachable since 2026-01-02T03:02:05Z (2m): 1/1 brokers are down",
                "not ready, 3 messages wait",
            ]
        );
    }

    #[test]
    fn a_few_keys_are_said_and_how_many_there_are_besides() {
        let mut held = outbox();
        held.held.keys = (0..8).map(|name| key(name, KeyHold::Failing)).collect();
        held.held.key_count = 1_000;
        let said = stuck(held, Service::UP);
        assert_eq!(said.len(), SAID + 1);
        assert_eq!(
            said[0],
            "key \"k0\" of topic t does not get through since 2026-01-02T03:04:00Z (5.0s), 1 attempt: too large; \
             2 rows wait"
        );
        assert_eq!(said[SAID], "and 995 keys more wait");
    }

    #[test]
    fn a_bypassed_breaker_is_said_with_who_and_why() {
        let mut bypassed = outbox();
        bypassed.bypassed.push(Bypass {
            topic: "t".to_owned(),
            since: "2026-01-02T03:02:05Z".to_owned(),
            by: "ada".to_owned(),
            why: Some("the limit stays".to_owned()),
        });
        assert_eq!(
            stuck(bypassed, Service::UP),
            ["refused rows of topic t are parked until kafka takes one \
              since 2026-01-02T03:02:05Z (2m) by ada: the limit stays"]
        );
    }

    #[test]
    fn what_is_paused_as_a_whole_waits_for_nothing_else() {
        let mut paused = outbox();
        let pause = |topic: Option<&str>| Pause {
            topic: topic.map(str::to_owned),
            since: NOW.to_owned(),
            by: "ada".to_owned(),
            why: None,
        };
        paused.held.keys = vec![key(1, KeyHold::Blocked)];
        paused.paused = vec![pause(Some("t"))];
        let said = stuck(paused.clone(), Service::UP);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("topic t is paused since "), "{said:?}");
        paused.paused.insert(0, pause(None));
        assert_eq!(
            stuck(paused, Service::UP),
            ["it is paused since 2026-01-02T03:04:05Z (0.0s) by ada: no reason given"]
        );
    }
}
