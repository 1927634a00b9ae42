//! A producer with a thread that takes its reports in, and sleeps when none are due.
//!
//! `rdkafka`'s own `ThreadedProducer` polls ten times a second with a time-out of 100 ms, and spins
//! through the last fraction of a millisecond of each, since librdkafka counts whole ones: a core's
//! percent for an idle relay, two thirds of all that it used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::Login;
use super::upkeep::{Outdated, Upkeep};

/// One poll while messages are in flight. It also bounds how late a drop is noticed.
const POLL: Duration = Duration::from_millis(100);

/// How often errors are looked for while nothing is in flight: soon enough to tell of an outage.
const IDLE: Duration = Duration::from_millis(100);

/// The producer and its thread. Dropping it purges what is undelivered; every report has arrived then.
pub struct PolledProducer<C: ProducerContext + Send + Sync + 'static> {
    shared: Arc<Shared<C>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<C: ProducerContext> {
    producer: BaseProducer<C>,
    outdated: Outdated,
    /// The thread sleeps, or is about to.
    asleep: AtomicBool,
    should_stop: AtomicBool,
}

impl<C: ProducerContext + Send + Sync + 'static> PolledProducer<C> {
    /// # Errors
    /// When librdkafka refuses a property, or there can be no further thread.
    pub fn new(config: &ClientConfig, context: C, login: &Login) -> KafkaResult<PolledProducer<C>> {
        // Before it is made, so that no change is missed.
        let upkeep = Upkeep::new(config, login);
        let shared = Arc::new(Shared {
            producer: BaseProducer::from_config_and_context(config, context)?,
            outdated: upkeep.outdated(),
            asleep: AtomicBool::new(false),
            should_stop: AtomicBool::new(false),
        });
        let polled = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("kafka reports".to_owned())
            .spawn(move || polled.poll(upkeep))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(PolledProducer {
            shared,
            thread: Some(thread),
        })
    }

    pub fn producer(&self) -> &BaseProducer<C> {
        &self.shared.producer
    }

    /// Since when it is made of files that hold something else now, if it is.
    pub fn outdated_since(&self) -> Option<Instant> {
        self.shared.outdated.since()
    }

    /// Hands a message over. Never blocks.
    ///
    /// # Errors
    /// When it was not taken.
    pub fn send(
        &self,
        record: BaseRecord<'_, [u8], [u8], C::DeliveryOpaque>,
    ) -> Result<(), KafkaError> {
        self.shared
            .producer
            .send(record)
            .map_err(|(error, _)| error)?;
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        Ok(())
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl<C: ProducerContext> Shared<C> {
    fn poll(&self, mut upkeep: Upkeep) {
        while !self.should_stop.load(Ordering::SeqCst) {
            upkeep.look(self.producer.client());
            if self.is_idle() {
                self.asleep.store(true, Ordering::SeqCst);
                // Asked again: a message may have been sent before it could see the thread asleep.
                if self.is_idle() {
                    thread::park_timeout(IDLE);
                }
                self.asleep.store(false, Ordering::SeqCst);
            } else {
                self.producer.poll(POLL);
            }
        }
    }

    /// Nothing is in flight and no event waits.
    fn is_idle(&self) -> bool {
        self.producer.in_flight_count() == 0
    }
}

impl<C: ProducerContext + Send + Sync + 'static> Drop for PolledProducer<C> {
    fn drop(&mut self) {
        self.shared.should_stop.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It panics only with a context's callback; the purge below reports what is left.
            let _ = thread.join();
        }
    }
}
