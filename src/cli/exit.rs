//! Exit statuses.

use std::process::ExitCode;

use super::arguments::WrongArgument;
use crate::app::AppError;
use crate::config::ConfigErrors;
use crate::db::DbError;
use crate::relay::RelayError;
use crate::status::LookError;
use crate::trace::TraceError;

/// How a command ends. The numbers above 63 are those of BSD's `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Success,
    Failure,
    /// Something is left: a window that did not settle, rows that were not published, or something that
    /// is stuck.
    Unsettled,
    /// Something could be better, and works.
    Warnings,
    /// The arguments are wrong.
    Usage,
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
       `replay`: rows remain; for `status`: something is stuck
  78   the configuration or the database's schema does not fit; for `check --connect`: errors
  130  ended at once by a second signal";

impl Exit {
    /// The status that fits an error.
    pub fn of(error: &anyhow::Error) -> Exit {
        let of_relay = |error: &AppError| match error {
            AppError::Relay(error) => matches!(**error, RelayError::Schema { .. }),
            _ => false,
        };
        let looked = error.downcast_ref().and_then(LookError::postgres);
        let traced = match error.downcast_ref() {
            Some(TraceError::Postgres { source, .. }) => Some(source),
            _ => None,
        };
        let of_database = looked.or(traced).or(error.downcast_ref());
        let schema = matches!(of_database, Some(DbError::Schema(_)))
            || error.downcast_ref().is_some_and(of_relay);
        if schema || error.is::<ConfigErrors>() {
            Exit::Config
        } else if error.is::<WrongArgument>() {
            Exit::Usage
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
            Exit::Usage => 2,
            Exit::Warnings => 3,
            Exit::Unsettled => 75,
            Exit::Config => 78,
        })
    }
}
