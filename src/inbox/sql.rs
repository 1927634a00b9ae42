//! The statements of the inbox, built once. All claims go through the SQL functions of the migration, so
//! that there is one truth for every language.

use std::sync::Arc;

/// Statements with the schema's name in front of what they use.
#[derive(Debug, Clone)]
pub(super) struct Statements {
    pub claim: Arc<str>,
    pub claim_batch: Arc<str>,
}

impl Statements {
    /// `schema`: none leaves it to the connection's search path; else a checked identifier.
    pub fn new(schema: Option<&str>) -> Statements {
        let prefix = schema.map_or_else(String::new, |schema| format!("\"{schema}\"."));
        Statements {
            // Times are handed over in microseconds, so that no time crate need be agreed upon.
            claim: format!(
                "select {prefix}inbox_claim($1, $2::text, to_timestamp($3::bigint / 1e6::float8))"
            )
            .into(),
            claim_batch: format!(
                "select c.event_id, c.claim from {prefix}inbox_claim_batch($1, $2, (\
                     select array_agg(to_timestamp(t.us / 1e6::float8) order by t.at) \
                     from unnest($3::bigint[]) with ordinality as t (us, at))) as c"
            )
            .into(),
        }
    }
}

/// Fails in a transaction that is aborted, and only there.
pub(super) const IS_ALIVE: &str = "select";

/// Of a name that needs no quotes.
pub(super) fn is_identifier(name: &str) -> bool {
    let legal = |(at, byte): (usize, u8)| {
        byte.is_ascii_lowercase() || byte == b'_' || (at > 0 && byte.is_ascii_digit())
    };
    (1..=63).contains(&name.len()) && name.bytes().enumerate().all(legal)
}
