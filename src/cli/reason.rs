//! Why somebody decides something: the same for every command that records it.

use clap::Args;

use crate::db::wishes::Reason;

#[derive(Debug, Args)]
pub struct ReasonArgs {
    /// Record this as the reason
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Record this as who decided [default: the database session's user]
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
}

impl ReasonArgs {
    pub fn reason(&self) -> Reason {
        Reason {
            who: self.who.clone(),
            why: self.why.clone(),
        }
    }
}
