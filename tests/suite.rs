//! The tests that need a real PostgreSQL and a real Kafka, in one binary: it starts each once.

mod bad_rows;
mod bench;
mod clients;
mod consumer;
mod crash_loop;
mod dead;
mod debezium;
mod demo;
mod envelopes;
mod holds;
mod inbox;
mod large_rows;
mod late_commits;
mod mapping;
mod parked;
mod pauses;
mod polls;
mod presets;
mod replay;
mod routing;
mod run;
mod scenario;
mod schema;
mod services;
mod settle;
mod support;
