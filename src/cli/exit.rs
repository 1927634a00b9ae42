//! Exit statuses.

use std::process::ExitCode;

use crate::app::AppError;
use crate::config::ConfigErrors;
use crate::db::DbError;
use crate::relay::RelayError;

/// How a command ends. The numbers above 63 are those of BSD's `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Success,
    Failure,
    /// Something is left: a window that did not settle, or rows that were not published.
    Unsettled,
    /// Something could be better, and works.
    Warnings,
    Config,
}

/// The same, for `--help`.
pub const HELP: &str = "\
Exit status:
  0    done; for `run`: stopped, and nothing will be published twice
  1    failed
  2    wrong arguments
  3    for `check --connect`: warnings, and no error
  75   stopped before everything was settled; for `run`: some events may be published again; for
       `replay`: rows remain
  78   the configuration or the database's schema does not fit; for `check --connect`: errors
  130  ended at once by a second signal";

impl Exit {
    /// The status that fits an error.
    pub fn of(error: &anyhow::Error) -> Exit {
        let schema = match error.downcast_ref() {
            Some(AppError::Relay(error)) => matches!(**error, RelayError::Schema { .. }),
            _ => matches!(error.downcast_ref(), Some(DbError::Schema(_))),
        };
        if schema || error.is::<ConfigErrors>() {
            Exit::Config
        } else {
            Exit::Failure
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Warnings => 3,
            Exit::Unsettled => 75,
            Exit::Config => 78,
        })
    }
}
