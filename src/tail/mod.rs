//! Follows what is being published: from the topics' ends, without a consumer group.

mod facts;
mod follower;
pub mod text;
mod topics;

pub use facts::{Facts, Filter, HeaderNames};
pub use follower::{Follower, Next};
pub use topics::Wanted;
