//! What an operator mistypes: each mistake is named, with its rule and its value, and the documented exit status.

mod arguments;
mod configurations;

use std::process::Output;

use crate::support::command::fails;

/// What was said, if it ended with this status in an orderly way.
fn refused(output: &Output, status: i32) -> String {
    let said = fails(output, status);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed, "", "only stderr has the reason");
    for word in ["panicked", "RUST_BACKTRACE", "stack backtrace", "Error {"] {
        assert!(!said.contains(word), "{word} in {said}");
    }
    said
}
