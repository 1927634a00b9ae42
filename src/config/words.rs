//! Options that take one of a few words.

use super::values::Value;

/// Options that take one of a few words.
macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that stands for it in the configuration.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl Value for $name {
            fn read(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(one_of(&[$($word),+])),
                }
            }

            fn show(&self) -> String {
                self.as_str().to_owned()
            }
        }
    )+};
}

pub(super) fn one_of(words: &[&str]) -> String {
    format!(
        "must be {}",
        words
            .iter()
            .map(|word| format!("{word:?}"))
            .collect::<Vec<_>>()
            .join(" or ")
    )
}

choices! {
    /// What stands between the relay and Postgres.
    Pooler {
        /// Nothing, or a pooler in session mode.
        None = "none",
        /// A pooler in transaction mode, such as PgBouncer: no prepared statements, no sessions.
        Transaction = "transaction",
    }
    /// What becomes of a key whose row is parked.
    OnPoison {
        /// It goes on.
        ParkRow = "park_row",
        /// It waits until somebody has decided about the row.
        BlockKey = "block_key",
    }
    /// The form in which an event is published.
    EnvelopeFormat {
        /// One JSON object in camelCase.
        Native = "native",
        /// CloudEvents 1.0, structured: one JSON object.
        CloudEvents = "cloudevents",
        /// CloudEvents 1.0, binary: attributes in headers, the payload alone as value.
        CloudEventsBinary = "cloudevents_binary",
        /// The payload alone.
        Raw = "raw",
    }
    /// The Kafka timestamp of an event.
    EventTimestamp {
        /// The row's `created_at`.
        CreatedAt = "created_at",
        /// Left to the client: the time of sending.
        None = "none",
    }
    /// What is done with a row once the broker has acknowledged its event.
    OnSent {
        /// The row is marked and stays until its retention is over.
        Mark = "mark",
        /// The row is deleted.
        Delete = "delete",
    }
    /// What the payload's column of a mapped table holds.
    PayloadEncoding {
        /// What its type says: `json` and `jsonb` hold JSON, `bytea` bytes, all others text.
        Auto = "auto",
        /// JSON: spliced in as it is.
        Json = "json",
        /// Text: a JSON string in structured formats.
        Text = "text",
        /// Bytes: Base64 in structured formats.
        Bytes = "bytes",
    }
    /// A table that another project has designed.
    Preset {
        /// Debezium's outbox event router.
        Debezium = "debezium",
        /// Spring Modulith's event publication registry.
        SpringModulith = "spring-modulith",
        /// MassTransit's transactional outbox.
        MassTransit = "masstransit",
        /// The gem active_outbox for Rails.
        ActiveOutbox = "active-outbox",
    }
    /// The form of the log.
    LogFormat {
        /// For people on a terminal, JSON elsewhere.
        Auto = "auto",
        /// Lines for people.
        Human = "human",
        /// One JSON object a line.
        Json = "json",
    }
}
