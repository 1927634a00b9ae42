//! A consumer is checked, put together, and run.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc;

use super::builder::Consumer;
use super::dead_letter::DeadLetters;
use super::dispatcher::{Broken, Dispatcher, Settings};
use super::feed::{Arrival, Feed};
use super::worker::Worker;
use super::{ConsumerError, Ended};
use crate::inbox::outcome::Outcomes;
use crate::inbox::{ConsumerName, Inbox};
use crate::kafka::Login;
use crate::outage::{Outage, chain};

/// How long a rebalance waits for batches that are at work.
const REBALANCE_PATIENCE: Duration = Duration::from_secs(10);

impl Consumer {
    /// Consumes until `stop` ends; then finishes what is at work, commits, and leaves the group. Postgres
    /// and Kafka may come and go meanwhile.
    ///
    /// Dropped instead of stopped, it rolls back what is at work, and its events come again.
    ///
    /// # Errors
    /// When it is not complete, or a part of it ends that must not.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<Ended, ConsumerError> {
        let consumer = self.name.clone();
        let (dispatcher, arrivals) = self.start().await?;
        let ended = dispatcher.run(arrivals, stop).await;
        ended
            .map(|unfinished_batches| Ended { unfinished_batches })
            .map_err(|broken| ConsumerError::Broken {
                consumer,
                reason: match broken {
                    Broken::Kafka(error) => chain(&error),
                    Broken::Worker(error) => chain(&error),
                    Broken::Feed => "the thread that polls kafka ended".to_owned(),
                },
            })
    }

    async fn start(self) -> Result<(Dispatcher, mpsc::Receiver<Arrival>), ConsumerError> {
        self.check()?;
        let name = ConsumerName::new(self.name.clone())?;
        let outcomes = Outcomes::new(name.clone(), self.schema.as_deref())?;
        let inbox = match &self.schema {
            Some(schema) => Inbox::in_schema(name, schema)?,
            None => Inbox::new(name),
        };
        let kafka = |source| ConsumerError::Kafka {
            consumer: self.name.clone(),
            source,
        };
        let topic = self.dead_letter_topic.clone();
        let topic = topic.unwrap_or_else(|| format!("{}-dead-letters", self.name));
        let login = Login::new(self.oauth.as_ref(), None);
        let client = self.properties.client();
        let dead_letters = DeadLetters::new(&self.name, &topic, client, &login).map_err(kafka)?;
        if let Err(error) = dead_letters.ensure_topic().await {
            // Its letters wait for it, and say so.
            tracing::warn!(
                topic.name = topic,
                error = chain(&error),
                "the dead-letter topic cannot be used yet"
            );
        }
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let feed = Feed::start(
            &self.properties.consumer(&self.name),
            &login,
            &topics,
            REBALANCE_PATIENCE,
        )
        .map_err(kafka)?;
        let settings = Settings {
            workers: self.usable_workers(),
            batch: self.batch.get(),
            limits: self.limits,
            backoff: self.backoff,
            shutdown_deadline: self.shutdown_deadline,
        };
        let worker = Worker {
            metrics: self.metrics.consumer(&self.name),
            pool: self.pool,
            inbox,
            outcomes,
            decoders: self.decoders,
            upcasters: self.upcasters,
            routes: self.routes,
            dead_letters,
            postgres: Outage::new("postgres"),
            distrust: AtomicBool::new(false),
            attempts: self.attempts,
            handler_timeout: self.handler_timeout,
            reject_unhandled: self.reject_unhandled,
            hold_key: self.hold_key,
        };
        Ok(Dispatcher::new(settings, worker, feed))
    }

    /// A worker that waits for a connection until the pool gives up would take that for an outage.
    fn usable_workers(&self) -> usize {
        let workers = self.workers.get();
        let connections = self.pool.options().get_max_connections();
        let usable = workers.min(usize::try_from(connections).unwrap_or(usize::MAX));
        if usable < workers {
            tracing::warn!(
                consumer = self.name,
                workers,
                connections,
                "the pool has fewer connections than the consumer has workers, so some stay idle"
            );
        }
        usable
    }

    fn check(&self) -> Result<(), ConsumerError> {
        self.upcasters.check()?;
        self.properties
            .check()
            .map_err(|source| ConsumerError::Property {
                consumer: self.name.clone(),
                source,
            })?;
        let missing = if self.topics.is_empty() {
            "no topics to read"
        } else if !self.properties.0.contains_key("bootstrap.servers") {
            "the property bootstrap.servers is not set"
        } else if self.properties.need_tokens() && self.oauth.is_none() {
            "sasl.mechanism is OAUTHBEARER, and there are no credentials to fetch tokens for (Consumer::oauth)"
        } else if !self.properties.need_tokens() && self.oauth.is_some() {
            "credentials for tokens have no effect without sasl.mechanism OAUTHBEARER"
        } else if self.routes.is_empty() && !self.reject_unhandled {
            "no handlers: every event would be passed over"
        } else if self.routes.has_repeats() {
            "two handlers for one type of event"
        } else {
            return Ok(());
        };
        Err(ConsumerError::Incomplete {
            consumer: self.name.clone(),
            missing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::{ClientCredentials, TokenUrl};
    use crate::secret::Secret;

    #[tokio::test]
    async fn the_protocol_of_a_group_that_a_consumer_cannot_speak_is_refused_by_name() {
        let pool = sqlx::PgPool::connect_lazy("postgres://localhost").expect("a pool");
        let consumer = Consumer::new("billing", pool)
            .kafka([("bootstrap.servers", "b"), ("group.protocol", "consumer")])
            .topics(["t"])
            .reject_unhandled();
        let refused = consumer.check().expect_err("refused");
        assert!(matches!(refused, ConsumerError::Property { .. }));
        assert_eq!(
            chain(&refused),
            "consumer \"billing\": kafka property group.protocol: must be \"classic\", \
             since the consumer takes part in assigning partitions, is \"consumer\""
        );
    }

    #[tokio::test]
    async fn tokens_and_what_they_are_fetched_for_go_together() {
        let consumer = |mechanism| {
            let pool = sqlx::PgPool::connect_lazy("postgres://localhost").expect("a pool");
            Consumer::new("billing", pool)
                .kafka([("bootstrap.servers", "b"), ("sasl.mechanism", mechanism)])
                .topics(["t"])
                .reject_unhandled()
        };
        let url = TokenUrl::parse("https://idp/token").expect("an address");
        let credentials = ClientCredentials::new(url, "billing", Secret::text("hunter2"));
        let missing = |consumer: Consumer| match consumer.check() {
            Err(ConsumerError::Incomplete { missing, .. }) => Some(missing),
            _ => None,
        };
        let refused = missing(consumer("OAUTHBEARER"));
        assert!(refused.is_some_and(|text| text.contains("no credentials")));
        let refused = missing(consumer("PLAIN").oauth(credentials.clone()));
        assert!(refused.is_some_and(|text| text.contains("have no effect")));
        assert!(consumer("OAUTHBEARER").oauth(credentials).check().is_ok());
    }
}
