//! Connections that are encrypted, and those that are refused.

mod kafka;
mod oauth;
mod rotation;
