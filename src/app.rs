//! The relay as a whole: builds every part from the configuration, runs them, and says how it ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_otlp::ExporterBuildError;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::admin::metrics::Metrics;
use crate::admin::{Admin, Process, Shown};
use crate::config::Config;
use crate::db::outbox::{Outbox, Remaining};
use crate::db::{DbError, Role};
use crate::kafka::{KafkaClient, KafkaSetupError, Topics};
use crate::listen::Listener;
use crate::otlp::Otlp;
use crate::relay::fault::Fault;
use crate::relay::status::Progress;
use crate::relay::{Ended, Postgres, Relay, RelayError};

/// Why the relay cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Postgres(DbError),
    #[error(transparent)]
    Kafka(KafkaSetupError),
    #[error("listening on the admin port {address}")]
    Admin {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Relay(Box<RelayError>),
    #[error("otlp")]
    Otlp(#[source] ExporterBuildError),
    #[error("outbox \"{outbox}\": the relay of it broke")]
    Broke { outbox: String },
}

/// Until when to relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Stopped,
    /// Everything that is committed at the start is settled, but for what waits for somebody's decision, or the
    /// time is over.
    Empty {
        timeout: Option<Duration>,
    },
}

/// How it ended.
#[derive(Debug, Default)]
pub struct Outcome {
    pub ended: Ended,
    /// With [`Until::Empty`]: how many rows are left that wait for somebody's decision, by outbox.
    pub undecided: Vec<(String, u64)>,
    /// With [`Until::Empty`], when the time was over: the first rows that are left, by outbox.
    pub remaining: Vec<(String, Vec<Remaining>)>,
}

/// How many remaining rows are listed.
const LISTED: usize = 20;

/// All parts of a relay.
pub struct App {
    config: Config,
    postgres: Arc<Postgres>,
    kafka: KafkaClient,
    topics: Topics,
    owner: Uuid,
    admin: Arc<Admin>,
    otlp: Arc<Otlp>,
}

impl App {
    /// Builds the parts, in the runtime that is to run them; nothing connects yet.
    ///
    /// # Errors
    /// When a client refuses its configuration.
    pub fn build(config: Config) -> Result<App, AppError> {
        let postgres = Arc::new(Postgres::new(&config.postgres).map_err(AppError::Postgres)?);
        let kafka = KafkaClient::new(&config.kafka);
        let topics = Topics::new(&kafka).map_err(AppError::Kafka)?;
        let owner = Uuid::now_v7();
        let otlp = Otlp::new(&config.otlp, owner).map_err(AppError::Otlp)?;
        let metrics = Metrics::new(otlp.meter());
        let outboxes = config
            .outboxes
            .iter()
            .map(|(name, outbox)| {
                let progress = Arc::new(Progress::default());
                let metrics = metrics.outbox(name, &progress);
                Shown {
                    name: name.clone(),
                    table: outbox.table.to_string(),
                    progress,
                    metrics,
                }
            })
            .collect();
        let process = Process {
            owner,
            started: Instant::now(),
            postgres: Arc::clone(&postgres),
            kafka: Arc::clone(kafka.health()),
        };
        let token = config.admin.token.clone();
        Ok(App {
            config,
            postgres,
            kafka,
            topics,
            owner,
            admin: Arc::new(Admin {
                process,
                metrics,
                outboxes,
                token,
            }),
            otlp: Arc::new(otlp),
        })
    }

    /// For a Kafka that says nothing of its topics' configuration: their limits then show only when it refuses
    /// a message.
    pub fn without_topic_rules(mut self) -> App {
        self.topics = self.topics.without_rules();
        self
    }

    /// What the admin port answers from, for whoever wants to show it elsewhere.
    pub fn admin(&self) -> &Arc<Admin> {
        &self.admin
    }

    /// Relays all outboxes until `stop` says so, or as `until` says.
    ///
    /// # Errors
    /// The first outbox that cannot be relayed at all stops the others, cleanly.
    pub async fn run(self, stop: watch::Receiver<bool>, until: Until) -> Result<Outcome, AppError> {
        let mut services = JoinSet::new();
        if let Some(address) = self.config.admin.listen {
            let listener = Admin::bind(address)
                .await
                .map_err(|source| AppError::Admin { address, source })?;
            tracing::info!(admin.address = %address, "the admin port is open");
            let admin = Arc::clone(&self.admin);
            services.spawn(async move {
                if let Err(error) = admin.serve(listener).await {
                    tracing::error!(error = %error, "the admin port failed");
                }
            });
        }
        if self.config.otlp.endpoint.is_some() {
            services.spawn(send_metrics(
                Arc::clone(&self.otlp),
                Arc::clone(&self.admin),
                self.config.otlp.interval,
            ));
        }
        let (stop_all, stopping) = watch::channel(false);
        let mut relays = JoinSet::new();
        for shown in &self.admin.outboxes {
            let relay = self.relay(shown, until, &mut services);
            let (name, stopping) = (shown.name.clone(), stopping.clone());
            relays.spawn(async move { (name, relay.run(stopping).await) });
        }
        let outcome = self.supervise(relays, stop, stop_all, until).await;
        services.shutdown().await;
        self.admin.refresh();
        self.otlp.close().await;
        outcome
    }

    fn relay(&self, shown: &Shown, until: Until, services: &mut JoinSet<()>) -> Relay {
        let config = self.config.outboxes[&shown.name].clone();
        let wake = Arc::new(Notify::new());
        if config.notify {
            let listener = Listener {
                postgres: Arc::clone(&self.postgres),
                channel: config.table.name.to_string(),
                wake: Arc::clone(&wake),
            };
            services.spawn(listener.run());
        }
        Relay {
            config,
            settings: self.config.relay.clone(),
            postgres: Arc::new(self.postgres.of_outbox(Arc::clone(&shown.progress))),
            kafka: self.kafka.clone(),
            topics: self.topics.clone(),
            progress: Arc::clone(&shown.progress),
            metrics: shown.metrics.clone(),
            spans: self.otlp.spans(&shown.name),
            owner: self.owner,
            wake,
            until_empty: until != Until::Stopped,
            fault: Fault::of_process(),
        }
    }

    /// Waits for every outbox, and stops all when asked, when the time is over, or when one cannot go on.
    async fn supervise(
        &self,
        mut relays: JoinSet<(String, Result<Ended, RelayError>)>,
        mut stop: watch::Receiver<bool>,
        stop_all: watch::Sender<bool>,
        until: Until,
    ) -> Result<Outcome, AppError> {
        let timeout = match until {
            Until::Empty { timeout } => timeout,
            Until::Stopped => None,
        };
        let deadline = tokio::time::Instant::now() + timeout.unwrap_or_default();
        let mut outcome = Outcome::default();
        let mut failure = None;
        let mut late = false;
        loop {
            tokio::select! {
                biased;
                // 1. An outbox has ended. `join_next` loses nothing.
                ended = relays.join_next() => match ended {
                    None => break,
                    Some(Ok((name, Ok(ended)))) => {
                        outcome.ended.in_flight += ended.in_flight;
                        outcome.ended.unmarked += ended.unmarked;
                        if until != Until::Stopped && ended.undecided > 0 && !*stop_all.borrow() {
                            outcome.undecided.push((name, ended.undecided));
                        }
                    }
                    Some(Ok((_, Err(error)))) => {
                        failure.get_or_insert(AppError::Relay(Box::new(error)));
                        let _ = stop_all.send(true);
                    }
                    Some(Err(error)) => {
                        failure.get_or_insert(AppError::Broke { outbox: error.to_string() });
                        let _ = stop_all.send(true);
                    }
                },
                // 2. Asked to stop. `wait_for` keeps nothing.
                _ = stop.wait_for(|stop| *stop), if !*stop_all.borrow() => {
                    let _ = stop_all.send(true);
                }
                // 3. The time is over. A sleep keeps nothing.
                () = tokio::time::sleep_until(deadline), if timeout.is_some() && !late => {
                    late = true;
                    let _ = stop_all.send(true);
                }
            }
        }
        if late {
            outcome.remaining = self.remaining().await.map_err(AppError::Postgres)?;
        }
        failure.map_or(Ok(outcome), Err)
    }

    async fn remaining(&self) -> Result<Vec<(String, Vec<Remaining>)>, DbError> {
        let max_message_bytes = self.kafka.rules().max_message_bytes;
        let mut remaining = Vec::new();
        for (name, config) in &self.config.outboxes {
            let mut session = self.postgres.database().connect(name, Role::Gauge).await?;
            session.begin().await?;
            let outbox = Outbox::open(
                &mut session,
                config,
                self.postgres.schema(),
                max_message_bytes,
            )
            .await?;
            let rows = outbox.remaining(&mut session, LISTED).await?;
            session.commit().await?;
            if !rows.is_empty() {
                remaining.push((name.clone(), rows));
            }
        }
        Ok(remaining)
    }
}

/// Sends the metrics for as long as the process relays.
async fn send_metrics(otlp: Arc<Otlp>, admin: Arc<Admin>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        admin.refresh();
        otlp.send_metrics().await;
    }
}
