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
//! Reading order: [`event`], [`envelope`], [`relay`], [`kafka`], [`db`], [`admin`], [`config`], [`app`].

pub mod event;

pub mod envelope;

pub mod relay;

pub mod kafka;

pub mod db;

pub mod admin;
pub mod app;
pub mod bench;
pub mod cli;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
mod listen;
#[cfg(feature = "demo")]
pub mod local;
pub mod outage;
pub mod shutdown;
pub mod telemetry;
