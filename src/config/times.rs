//! Lengths of time that bound options.

use std::time::Duration;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A hundred years, as humantime counts them; a longer retention is what "forever" is for.
pub(super) const MAX_RETENTION: Duration = Duration::from_secs(100 * 31_557_600);
