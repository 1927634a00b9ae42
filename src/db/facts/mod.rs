//! What `outboxd check` wants to know of a database. Everything here reads the catalogue and the server's
//! views alone; what the answers mean is judged in [`crate::check`].

mod activity;
mod rights;
mod server;
mod table;

pub use activity::{Slot, Transaction, slots, transactions};
pub use rights::{Lacking, lacking, other_tables};
pub use server::{Asynchronous, Server, asynchronous};
pub use table::{TableFacts, Trigger};
