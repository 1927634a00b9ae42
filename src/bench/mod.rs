//! `outboxd bench`: what the relay does on this machine, beside what the machine allows.
//!
//! The relay under test is a process of its own, `outboxd run` of the same executable, so that its
//! memory and CPU are its own and its configuration is one that can be deployed. The load and the
//! consumer are here. Everything happens in a schema and in topics made for the benchmark, which
//! [`Workspace::clear`] removes again.
//!
//! ```text
//! drain    a backlog: rows a second, beside the limits of reading, producing and marking alone
//! latency  a paced load, or single events after quiet: from commit to consumed
//! idle     nothing: the CPU that waiting costs
//! start    a row that waits: from the start of the process to its event at a consumer
//! envelope rows to messages alone, without Postgres and Kafka: rows a second of one core
//! ```

mod consumer;
mod drain;
mod envelope;
mod idle;
mod latency;
mod limits;
mod load;
mod relay;
mod report;
mod spread;
mod start;
mod workspace;

use rdkafka::error::KafkaError;

use crate::db::DbError;
use crate::kafka::KafkaSetupError;
use crate::secret::SecretError;

pub use drain::{Aside, DrainOptions, drain};
pub use envelope::{EnvelopeOptions, envelope};
pub use idle::{IdleOptions, idle};
pub use latency::{LatencyOptions, Load, latency};
pub use report::{DrainReport, EnvelopeReport, IdleReport, LatencyReport, Report};
pub use start::{StartOptions, StartReport, start};
pub use workspace::{Names, Workspace};

/// Why something could not be measured. What was measured and is wrong is in the report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Postgres(#[from] DbError),
    #[error(transparent)]
    KafkaSetup(#[from] KafkaSetupError),
    #[error("{action}")]
    Kafka {
        action: String,
        #[source]
        source: KafkaError,
    },
    #[error("kafka.oauth.client_secret")]
    Secret(#[from] SecretError),
    #[error("producing without the relay: {reason}")]
    Produce { reason: String },
    #[error("{action}")]
    Process {
        action: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the relay under test ended by itself: {status}{log}")]
    RelayEnded {
        status: std::process::ExitStatus,
        /// Its last lines, each on a line of its own.
        log: String,
    },
    #[error("waiting for {awaited}: nothing moved for {seconds} s")]
    Stalled { awaited: String, seconds: u64 },
    #[error("a task of the load broke")]
    Broke(#[from] tokio::task::JoinError),
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    fn kafka(action: impl Into<String>) -> impl FnOnce(KafkaError) -> BenchError {
        let action = action.into();
        move |source| BenchError::Kafka { action, source }
    }

    fn process(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> BenchError {
        let action = action.into();
        move |source| BenchError::Process { action, source }
    }
}
