//! Who can read what the admin port says.

use super::{Finding, Notebook};
use crate::config::AdminConfig;

/// Judges how it is configured.
pub fn judge(admin: &AdminConfig) -> Vec<Finding> {
    let mut book = Notebook::of("admin");
    if let AdminConfig {
        listen: Some(listen),
        token: None,
    } = admin
        && !listen.ip().is_loopback()
    {
        book.warning(
            "admin-open",
            format!(
                "admin.listen is {listen} without admin.token, so whoever reaches it can read /metrics and /status, which \
                 names the Kafka keys that are held"
            ),
            "set admin.token (OUTBOXD_ADMIN__TOKEN_FILE), or let nobody reach the port but what probes and scrapes it",
        );
    }
    book.findings
}
