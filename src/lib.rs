//! outboxd, a transactional outbox relay: committed rows of a Postgres table reach Kafka in the order of
//! their keys, at least once, and are marked sent.
//!
//! ```text
//! application tx ──INSERT──▶ outbox table
//!                                │  relay::source   read ahead by id, pick up late commits
//!                                ▼
//!                            relay::window          key order, barriers, capacity (pure)
//!                                │  envelope        row → key, headers, bytes (pure)
//!                                ▼
//!                            kafka                  a supervised producer, delivery reports
//!                                │  relay::failure  what an error means (pure)
//!                                ▼
//!                            relay::mark            acknowledged rows, in batches
//!                                ▼
//!                            relay::janitor         retention, in bounded steps
//! ```
//!
//! # The promise
//!
//! * A committed row reaches its topic at least once; a rolled-back one never does.
//! * First copies of the rows of one order key (outbox, topic, Kafka key) go out in the order of `id`,
//!   as long as writers take the key's lock before they draw it.
//! * Every copy of an event is the same, byte for byte.
//! * Marked means acknowledged by Kafka with `acks=all`, for that very event.
//! * A clean stop repeats nothing; a crash repeats at most the window.
//! * Writers never wait for the relay.
//!
//! The other half is [`inbox`], in the consumer's own transaction: an event that arrives twice takes
//! effect once.
//!
//! # Features
//!
//! | feature | what it builds |
//! |---|---|
//! | `inbox` | [`inbox`]: claims and their pruning; neither librdkafka nor the daemon |
//! | `outbox` | [`outbox`]: appends events in the caller's transaction |
//! | `consumer` | the consumer runtime, with librdkafka |
//! | `relay` (default) | everything else, and the program |
//! | `demo` (default) | `outboxd demo` and the local Postgres of the tests |
//!
//! Reading order: `event`, `envelope`, `relay`, [`inbox`], `kafka`, `db`, `admin`, `config`, `app`,
//! `check`.

#[cfg(feature = "relay")]
pub mod event;

#[cfg(feature = "relay")]
pub mod envelope;

#[cfg(feature = "relay")]
pub mod relay;

#[cfg(feature = "inbox")]
pub mod inbox;

#[cfg(feature = "outbox")]
pub mod outbox;

#[cfg(feature = "consumer")]
pub mod kafka;

#[cfg(feature = "relay")]
pub mod db;

#[cfg(feature = "relay")]
pub mod admin;
#[cfg(feature = "relay")]
pub mod app;
#[cfg(feature = "relay")]
pub mod bench;
#[cfg(feature = "consumer")]
mod certificate;
#[cfg(feature = "relay")]
pub mod check;
#[cfg(feature = "relay")]
pub mod cli;
#[cfg(feature = "relay")]
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
#[cfg(feature = "relay")]
mod listen;
#[cfg(feature = "demo")]
pub mod local;
#[cfg(feature = "consumer")]
pub mod oauth;
#[cfg(feature = "relay")]
pub mod otlp;
#[cfg(feature = "consumer")]
pub mod outage;
#[cfg(feature = "consumer")]
pub mod secret;
#[cfg(feature = "relay")]
pub mod shutdown;
#[cfg(feature = "relay")]
pub mod status;
#[cfg(feature = "relay")]
pub mod tail;
#[cfg(feature = "relay")]
pub mod telemetry;
#[cfg(feature = "relay")]
pub mod terminal;
#[cfg(feature = "relay")]
pub mod trace;
