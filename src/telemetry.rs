//! Logs on standard error: for people on a terminal, JSON elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{LogConfig, LogFormat};
use crate::terminal::Theme;

/// Sets the process's log up. A second call changes nothing.
pub fn init(config: &LogConfig) {
    let human = match config.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    // sqlx logs what servers say on their way down, connection by connection; an outage is logged once,
    // by us. The configuration was checked, so the directives parse.
    let directives = format!("sqlx=error,{}", config.level.as_str());
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would say on stderr that stderr cannot be written to, and panic over that.
        .log_internal_errors(false);
    let colors = std::io::stderr().is_terminal() && Theme::of_environment().has_colors;
    let _ = if human {
        builder.with_target(false).with_ansi(colors).try_init()
    } else {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init()
    };
}
