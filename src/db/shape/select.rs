//! The select list of an outbox, and how a value that no message has room for stays where it is: its length
//! is asked first, and the row arrives without it and says why.

use crate::db::literal;

/// What arrives of a text that is too large, in characters: enough for a person to know it by. With the end that
/// marks it, a key keeps the row's place without being that of any other row, and a topic is none that exists.
const SHOWN: u32 = 100;

/// Marks a text that was cut off. No topic has a space.
const CUT: &str = " ...";

/// No type stores more bytes for each byte of its text: a `jsonb` takes up to four, an array eight.
const MOST_STORED_PER_BYTE: u32 = 8;

/// One column of the answer, over the alias `e` of the table.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    /// What a person knows it by.
    pub label: String,
    pub sql: String,
    pub length: Length,
}

/// How long a value is before anybody reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Length {
    /// Never long.
    Short,
    /// A text, whose length is known without reading it.
    Text,
    /// Bytes likewise.
    Bytes,
    /// Something else, whose text has to be made. What is stored is known without reading it, and says how
    /// long the text is at least.
    Made {
        /// Of the text, in UTF-8.
        text: String,
        stored_per_byte: u32,
    },
}

impl Column {
    pub fn new(name: &str, sql: String, length: Length) -> Column {
        Column {
            name: name.to_owned(),
            label: name.to_owned(),
            sql,
            length,
        }
    }
}

impl Length {
    /// Of a `json`: the exact text is what is stored, compressed perhaps. `json_send` gives its bytes, at a
    /// copy less than a cast.
    pub fn of_json(sql: &str) -> Length {
        Length::Made {
            text: format!("json_send({sql})"),
            stored_per_byte: 1,
        }
    }

    /// Of any type that is neither a text nor short.
    pub fn of_any(sql: &str) -> Length {
        Length::Made {
            text: format!("{sql}::text"),
            stored_per_byte: MOST_STORED_PER_BYTE,
        }
    }
}

/// What is selected of a row: the columns, and at [`UNSENDABLE`] one more.
#[derive(Debug, Clone)]
pub struct Selection {
    columns: Vec<Column>,
    max_bytes: usize,
}

/// Where in the answer stands why the row cannot be sent, if so: after outboxd's own columns.
pub const UNSENDABLE: usize = 16;

impl Selection {
    /// `max_bytes` is what the client takes as a message, and so the most that a value of one can have.
    pub fn new(columns: &[Column], max_bytes: usize) -> Selection {
        Selection {
            columns: columns.to_vec(),
            max_bytes,
        }
    }

    /// The select list of a statement that is given to [`of`](Self::of).
    pub fn fields(&self) -> String {
        let fields: Vec<String> = self
            .columns
            .iter()
            .map(|column| self.field(column))
            .collect();
        fields.join(", ")
    }

    fn field(
        &self,
        Column {
            name, sql, length, ..
        }: &Column,
    ) -> String {
        let Length::Made {
            text,
            stored_per_byte,
        } = length
        else {
            return format!("{sql} as {name}");
        };
        let least = match stored_per_byte {
            1 => format!("pg_column_size({sql})"),
            most => format!("pg_column_size({sql}) / {most}"),
        };
        let max = self.max_bytes;
        format!("case when {least} <= {max} then {text} end as {name}, {least} as {name}_least")
    }

    /// The rows of `statement` without what is too large. The `offset` has it answer before anything else is
    /// done, so that no text is made twice; it keeps the order.
    pub fn of(&self, statement: &str) -> String {
        let mut columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| self.guarded(column))
            .collect();
        columns.insert(UNSENDABLE, self.unsendable());
        format!(
            "select {} from ({statement} offset 0) e",
            columns.join(", ")
        )
    }

    fn guarded(&self, Column { name, length, .. }: &Column) -> String {
        let max = self.max_bytes;
        match length {
            Length::Short => format!("e.{name}"),
            Length::Text => format!(
                "case when octet_length(e.{name}) > {max} then left(e.{name}, {SHOWN}) || '{CUT}' else e.{name} end"
            ),
            Length::Bytes | Length::Made { .. } => {
                format!("case when octet_length(e.{name}) <= {max} then e.{name} end")
            }
        }
    }

    /// Names every value that is too large, with its length.
    fn unsendable(&self) -> String {
        let max = self.max_bytes;
        let (mut lengths, mut reasons) = (Vec::new(), Vec::new());
        for Column {
            name,
            label,
            length,
            ..
        } in &self.columns
        {
            let bytes = format!("octet_length(e.{name})");
            let least = format!("e.{name}_least");
            let says = |is: &str, bytes: &str| {
                format!(
                    "when {bytes} > {max} then {} || {bytes} || ' bytes'",
                    literal(&format!("{label} is {is}"))
                )
            };
            match length {
                Length::Short => continue,
                Length::Text | Length::Bytes => {
                    reasons.push(format!("case {} end", says("", &bytes)))
                }
                Length::Made { .. } => {
                    reasons.push(format!(
                        "case {} {} end",
                        says("", &bytes),
                        says("at least ", &least)
                    ));
                    lengths.push(least);
                }
            }
            lengths.push(bytes);
        }
        if lengths.is_empty() {
            return "null::text".to_owned();
        }
        format!(
            "case when greatest({}) > {max} then concat_ws(', ', {}) \
             || ', larger than the client''s message.max.bytes ({max})' end",
            lengths.join(", "),
            reasons.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        let mut columns: Vec<Column> = (0..UNSENDABLE)
            .map(|n| Column::new(&format!("c{n}"), format!("e.c{n}"), Length::Short))
            .collect();
        columns[1] = Column::new("key", "e.k".to_owned(), Length::Text);
        columns[2] = Column::new("doc", "e.d".to_owned(), Length::of_any("e.d"));
        columns
    }

    #[test]
    fn the_length_of_a_value_is_asked_before_it_is_read_and_only_once() {
        let selection = Selection::new(&columns()[..3], 500);
        assert_eq!(
            selection.fields(),
            "e.c0 as c0, e.k as key, case when pg_column_size(e.d) / 8 <= 500 then e.d::text end as doc, \
             pg_column_size(e.d) / 8 as doc_least"
        );
        let guarded: Vec<String> = selection
            .columns
            .iter()
            .map(|column| selection.guarded(column))
            .collect();
        assert_eq!(
            guarded,
            [
                "e.c0",
                "case when octet_length(e.key) > 500 then left(e.key, 100) || ' ...' else e.key end",
                "case when octet_length(e.doc) <= 500 then e.doc end",
            ]
        );
    }

    #[test]
    fn every_value_that_is_too_large_is_named_at_its_place() {
        let selection = Selection::new(&columns(), 500);
        assert_eq!(
            selection.unsendable(),
            "case when greatest(octet_length(e.key), e.doc_least, octet_length(e.doc)) > 500 then concat_ws(', ', \
             case when octet_length(e.key) > 500 then 'key is ' || octet_length(e.key) || ' bytes' end, \
             case when octet_length(e.doc) > 500 then 'doc is ' || octet_length(e.doc) || ' bytes' \
             when e.doc_least > 500 then 'doc is at least ' || e.doc_least || ' bytes' end) \
             || ', larger than the client''s message.max.bytes (500)' end"
        );
        let statement = selection.of("select 1");
        assert!(
            statement.ends_with("message.max.bytes (500)' end from (select 1 offset 0) e"),
            "{statement}"
        );
        assert_eq!(
            Selection::new(&columns()[..1], 500).unsendable(),
            "null::text"
        );
    }
}
