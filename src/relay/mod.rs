//! The lane of an outbox: `source → window → kafka → mark`, under a lease. This file alone knows their
//! order.

mod breaker;
mod caution;
mod copies;
pub mod failure;
pub mod fault;
mod gauges;
pub mod horizon;
mod janitor;
mod lane;
mod lease;
mod mark;
mod outbound;
mod park;
mod postgres;
pub mod replay;
pub(crate) mod router;
mod source;
pub mod status;
mod topics;
mod unread;
pub mod window;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::admin::metrics::OutboxMetrics;
use crate::config::{OutboxConfig, RelayConfig, Retention};
use crate::db::bypasses::{Bypasses, EndBypasses};
use crate::db::copies::Copies;
use crate::db::lease::Standing;
use crate::db::outbox::{BatchLimit, Outbox};
use crate::db::parked::ParkedRows;
use crate::db::pauses::Pauses;
use crate::db::standing::Standings;
use crate::db::{DbError, Role, migrate};
use crate::kafka::{KafkaClient, KafkaSetupError, Topics};
use crate::otlp::Spans;
use crate::outage::Retry;

use fault::Fault;
use lane::{Lane, LaneEnd, LaneParts, Poison};
use lease::LeaseKeeper;
use router::Router;
use source::SourceSettings;
use status::{Ownership, Progress};
use window::Limits;

pub use postgres::Postgres;

/// Part of a window's bytes that one read may bring: the next batch is read while the window works.
const BATCHES_PER_WINDOW: u64 = 4;

/// How an outbox's relay ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Messages that were in flight when the deadline passed: whether Kafka has them is not known.
    pub in_flight: usize,
    /// Rows that Kafka has and that are not marked: they go out again.
    pub unmarked: usize,
    /// Rows known to be left, which somebody has to decide about if nothing else kept them.
    pub undecided: u64,
}

impl Ended {
    /// Stopping repeats nothing.
    pub fn is_settled(&self) -> bool {
        self.in_flight == 0 && self.unmarked == 0
    }
}

/// Why an outbox cannot be relayed, whatever happens later.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("outbox \"{outbox}\"")]
    Schema {
        outbox: String,
        #[source]
        source: DbError,
    },
    #[error("outbox \"{outbox}\"")]
    Kafka {
        outbox: String,
        #[source]
        source: KafkaSetupError,
    },
}

/// Relays one outbox, for as long as the process runs.
#[derive(Clone)]
pub struct Relay {
    pub config: OutboxConfig,
    pub settings: RelayConfig,
    pub postgres: Arc<Postgres>,
    pub kafka: KafkaClient,
    pub topics: Topics,
    pub progress: Arc<Progress>,
    pub metrics: OutboxMetrics,
    /// For a collector of traces, if there is one.
    pub spans: Option<Spans>,
    /// This process.
    pub owner: Uuid,
    /// Wakes an idle source.
    pub wake: Arc<Notify>,
    /// End when everything that is committed at the start is settled.
    pub until_empty: bool,
    /// For tests.
    pub fault: Option<Fault>,
}

impl Relay {
    /// Waits for the schema and the lease, relays, and starts again whenever something is lost; until
    /// `stop` says so, or everything is out with `until_empty`.
    ///
    /// # Errors
    /// Only for what waiting cannot mend: a schema that does not fit, properties that Kafka's client
    /// refuses.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Result<Ended, RelayError> {
        let stopped = Ok(Ended::default());
        let outbox = tokio::select! {
            biased;
            // `wait_for` keeps nothing, and the check is repeated as a whole.
            _ = stop.wait_for(|stop| *stop) => return stopped,
            verified = self.verify() => verified?,
        };
        self.progress.set_schema_seen();
        let keeper = LeaseKeeper {
            postgres: Arc::clone(&self.postgres),
            table: self.config.table.clone(),
            owner: self.owner,
            duration: self.settings.lease,
        };
        let mut broke = false;
        loop {
            let standing = |standing| match standing {
                Standing::Held { owner } if owner != self.owner => self.stand_by(owner),
                Standing::Held { .. } | Standing::Free => {}
            };
            let lease = tokio::select! {
                biased;
                // As above. A lease that is being won at this moment runs out by itself.
                _ = stop.wait_for(|stop| *stop) => return stopped,
                lease = keeper.acquire(broke, standing) => lease,
            };
            self.progress.set_ownership(Ownership::Owner);
            self.metrics.owner.set(1);
            tracing::info!(
                outbox = self.config.name,
                lease.epoch = lease.fence.epoch,
                "owning the outbox"
            );
            let end = self.own(&outbox, &keeper, lease, stop.clone()).await?;
            broke = matches!(end, LaneEnd::Broken(_));
            match end {
                LaneEnd::Stopped(ended) => return Ok(ended),
                LaneEnd::LeaseLost => {
                    tracing::warn!(
                        outbox = self.config.name,
                        "lost the lease of the outbox, standing by"
                    );
                }
                LaneEnd::Broken(reason) => {
                    tracing::error!(
                        outbox = self.config.name,
                        error = reason,
                        "the lane broke, starting it again"
                    );
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Somebody else owns the outbox, as the lease said just now.
    fn stand_by(&self, owner: Uuid) {
        let before = self.progress.ownership();
        self.progress.set_ownership(Ownership::Standby { owner });
        if !matches!(before, Ownership::Standby { .. }) {
            tracing::info!(
                outbox = self.config.name,
                "another relay owns the outbox, standing by"
            );
        }
    }

    /// Compares the schema, and waits as long as Postgres does not answer.
    async fn verify(&self) -> Result<Outbox, RelayError> {
        let mut retry = Retry::new(Duration::from_secs(2));
        loop {
            let mut session = None;
            let verified = async {
                let session = self
                    .postgres
                    .session(&mut session, &self.config.table, Role::Reader)
                    .await?;
                session.begin().await?;
                let schema = self.postgres.schema();
                let max_message_bytes = self.kafka.rules().max_message_bytes;
                migrate::verify(session, schema, &self.config).await?;
                let outbox = Outbox::open(session, &self.config, schema, max_message_bytes).await?;
                session.commit().await?;
                Ok(outbox)
            };
            match self
                .postgres
                .deadline("comparing the schema's version", verified)
                .await
            {
                Ok(outbox) => return Ok(outbox),
                Err(source) if source.is_permanent() => {
                    return Err(RelayError::Schema {
                        outbox: self.config.name.clone(),
                        source,
                    });
                }
                Err(error) => {
                    self.postgres.note(
                        &error,
                        &mut retry,
                        "looking at the schema failed, trying again",
                    );
                    tokio::time::sleep(retry.next_wait()).await;
                }
            }
        }
    }

    /// One ownership: the lane with its tasks, from winning the lease to giving it up.
    async fn own(
        &self,
        outbox: &Outbox,
        keeper: &LeaseKeeper,
        mut lease: lease::Lease,
        stop: watch::Receiver<bool>,
    ) -> Result<LaneEnd, RelayError> {
        let (ended_tx, ended_rx) = watch::channel(false);
        let mut helpers = JoinSet::new();
        self.start_helpers(&mut helpers, outbox);
        let lane = Lane::new(LaneParts {
            name: self.config.name.clone(),
            source: self.source(outbox.clone()),
            marker: mark::Marker {
                postgres: Arc::clone(&self.postgres),
                outbox: outbox.clone(),
                fence: lease.fence.clone(),
                metrics: self.metrics.clone(),
            },
            parker: park::Parker {
                postgres: Arc::clone(&self.postgres),
                outbox: outbox.clone(),
                fence: lease.fence.clone(),
                deaths: lease.deaths,
                rows: ParkedRows::new(self.postgres.schema()),
                pauses: Pauses::new(self.postgres.schema(), &lease.fence.outbox),
                bypasses: Bypasses::new(self.postgres.schema(), &lease.fence.outbox),
                end_bypasses: EndBypasses::new(self.postgres.schema()),
                metrics: self.metrics.clone(),
            },
            poison: Poison {
                on_poison: self.config.on_poison,
                max_attempts: self.config.max_attempts.get(),
                breaker_errors: self.config.breaker_errors.get(),
            },
            deaths: lease.deaths,
            kafka: self.kafka.clone(),
            topics: self.topics.clone(),
            validity: Arc::clone(&lease.validity),
            progress: Arc::clone(&self.progress),
            metrics: self.metrics.clone(),
            spans: self.spans.clone(),
            limits: self.limits(),
            settings: self.settings.clone(),
            stop,
        })
        .map_err(|source| RelayError::Kafka {
            outbox: self.config.name.clone(),
            source,
        })?;
        let keep = async {
            let held = keeper.keep(&mut lease, ended_rx).await;
            (held, lease)
        };
        let run = async {
            let end = lane.run().await;
            helpers.shutdown().await;
            // Before the keeper has ended, which may take as long as Postgres does.
            self.disown(&end);
            // The keeper holds the other end until it has seen this.
            let _ = ended_tx.send(true);
            end
        };
        let (end, (held, lease)) = tokio::join!(run, keep);
        // One that broke is kept: that its successor found it so is how its end is counted.
        if held && !matches!(end, LaneEnd::Broken(_)) {
            keeper.release(lease).await;
        }
        Ok(end)
    }

    fn disown(&self, end: &LaneEnd) {
        match end {
            LaneEnd::Stopped(_) => {}
            LaneEnd::LeaseLost => self.progress.note_error("the lease of the outbox was lost"),
            LaneEnd::Broken(reason) => self.progress.note_error(reason),
        }
        self.progress.set_ownership(Ownership::Unknown);
        self.metrics.disowned();
    }

    fn start_helpers(&self, helpers: &mut JoinSet<()>, outbox: &Outbox) {
        let gauges = gauges::Gauges {
            postgres: Arc::clone(&self.postgres),
            outbox: outbox.clone(),
            standings: Standings::new(self.postgres.schema(), &self.config.table.to_string()),
            progress: Arc::clone(&self.progress),
            metrics: self.metrics.clone(),
        };
        helpers.spawn(gauges.run());
        if let Some(topic) = &self.config.dead_letter_topic {
            let copier = copies::Copier {
                postgres: Arc::clone(&self.postgres),
                outbox: outbox.clone(),
                config: self.config.clone(),
                kafka: self.kafka.clone(),
                topics: self.topics.clone(),
                topic: topic.clone(),
                copies: Copies::new(self.postgres.schema()),
                metrics: self.metrics.clone(),
            };
            helpers.spawn(copier.run());
        }
        if let (crate::config::OnSent::Mark, Retention::For(retention)) =
            (self.config.on_sent, self.config.retention)
        {
            let janitor = janitor::Janitor {
                postgres: Arc::clone(&self.postgres),
                outbox: outbox.clone(),
                retention,
                metrics: self.metrics.clone(),
            };
            helpers.spawn(janitor.run());
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            rows: self.config.window_rows.get() as usize,
            bytes: self.config.window_bytes.as_u64() as usize,
        }
    }

    fn source(&self, outbox: Outbox) -> source::Source {
        let bytes = (self.config.window_bytes.as_u64() / BATCHES_PER_WINDOW).max(1) as usize;
        source::Source {
            postgres: Arc::clone(&self.postgres),
            outbox,
            settings: SourceSettings {
                limit: BatchLimit {
                    rows: self.config.batch_rows.get() as usize,
                    bytes,
                },
                poll_interval: self.config.poll_interval,
                sweep_interval: self.config.sweep_interval,
                until_empty: self.until_empty,
            },
            router: Router::new(&self.config)
                .with_fault(self.fault)
                .with_traces(self.spans.is_some()),
            progress: Arc::clone(&self.progress),
            metrics: self.metrics.clone(),
            wake: Arc::clone(&self.wake),
            is_careful: false,
        }
    }
}
