//! The tests that need a real PostgreSQL and a real Kafka, in one binary: it starts each once.

mod late_commits;
mod services;
mod support;
