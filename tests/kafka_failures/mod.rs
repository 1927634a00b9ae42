//! How Kafka fails, and what the relay makes of it.

mod injected;
mod recreated;
mod rights;
