//! What the tests stand on: a real PostgreSQL, a real Kafka, a real PgBouncer.
//!
//! A test asks [`services`] for the shared servers and makes its own database and topics on them.
//! A test that stops or kills a server starts a private one there, and a
//! [`pgbouncer::PgBouncer`] before it if need be. None of them outlives the test process.

pub mod acls;
pub mod arrived;
pub mod certificates;
pub mod command;
pub mod debezium;
mod docker;
pub mod fixture;
mod java;
pub mod kafka;
pub mod pgbouncer;
mod provider;
pub mod relay;
pub mod secured;
pub mod services;
pub mod tail;
pub mod tokens;

use std::path::PathBuf;

/// The program of this name on the `PATH`.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A name that no other test uses, in this run or another on the same server.
fn unique(prefix: &str, separator: char) -> String {
    format!("{prefix}{separator}{:012x}", fastrand::u64(..1 << 48))
}
