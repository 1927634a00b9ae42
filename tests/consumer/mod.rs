//! The consumer runtime against a real Postgres and a real Kafka.
//!
//! [`stage`] is a database, a topic and a consumer on them; [`process`] is a consumer as a process of its
//! own, to be killed and frozen.

mod chaos;
mod connections;
mod dead_letters;
mod handling;
mod kills;
mod pressure;
mod process;
mod rate;
mod rebalances;
pub mod stage;
