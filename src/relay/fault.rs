//! A fault for tests, in debug builds alone: what a defect of ours could do at one row.

use std::str::FromStr;

/// `OUTBOXD_FAULT` is `abort:ROW` or `panic:ROW`.
const VARIABLE: &str = "OUTBOXD_FAULT";

/// What happens when this row is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process ends at once.
    Abort { row: i64 },
    /// The task that reads panics.
    Panic { row: i64 },
}

impl Fault {
    /// The fault that this process is to have; none in a release build.
    pub fn of_process() -> Option<Fault> {
        let fault = std::env::var(VARIABLE).ok()?;
        cfg!(debug_assertions).then(|| fault.parse().ok()).flatten()
    }

    /// A row is about to be encoded.
    #[expect(clippy::panic, reason = "it is asked for")]
    pub fn strike(self, encoded: i64) {
        match self {
            Fault::Abort { row } if row == encoded => std::process::abort(),
            Fault::Panic { row } if row == encoded => panic!("{VARIABLE} asks for it"),
            Fault::Abort { .. } | Fault::Panic { .. } => {}
        }
    }
}

impl FromStr for Fault {
    type Err = ();

    fn from_str(text: &str) -> Result<Fault, ()> {
        let (kind, row) = text.split_once(':').ok_or(())?;
        let row = row.parse().map_err(|_| ())?;
        match kind {
            "abort" => Ok(Fault::Abort { row }),
            "panic" => Ok(Fault::Panic { row }),
            _ => Err(()),
        }
    }
}
