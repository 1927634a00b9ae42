//! `outboxd check`: what is configured, and what stands in the way of the guarantees.

mod configuration;
