//! The tests that need a real PostgreSQL and a real Kafka, in one binary: it starts each once.

mod services;
mod support;
