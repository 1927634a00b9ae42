//! An envelope for people: one field a line, or several where lines are few.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// A piece of text, by its part in the JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Mark(String),
    Name(String),
    Value(String),
}

impl Piece {
    pub fn text(&self) -> &str {
        match self {
            Piece::Mark(text) | Piece::Name(text) | Piece::Value(text) => text,
        }
    }
}

/// The lines of an envelope, at most `height` if packing can do it, each of at most `width` columns
/// where no single field is wider.
///
/// What is not a JSON object is one line as it is.
pub fn lines(envelope: &str, width: usize, height: usize) -> Vec<Vec<Piece>> {
    let Some(fields) = fields(envelope) else {
        return vec![vec![Piece::Value(envelope.to_owned())]];
    };
    let spread = fields.iter().map(|(_, value)| 1 + nested(value).len());
    if spread.sum::<usize>() + 2 <= height {
        return spread_out(&fields);
    }
    if fields.len() + 2 <= height {
        return one_a_line(&fields);
    }
    packed(&fields, width)
}

/// The top-level fields of an object, in the order and with the text in which they stand.
fn fields(object: &str) -> Option<Vec<(String, String)>> {
    let fields: Fields = serde_json::from_str(object).ok()?;
    Some(fields.0)
}

struct Fields(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            // Within strings they are escaped: only the layout of the author is lost.
            fields.push((name, value.get().replace(['\n', '\r', '\t'], " ")));
        }
        Ok(Fields(fields))
    }
}

/// The fields of a value that is an object with something in it.
fn nested(value: &str) -> Vec<(String, String)> {
    fields(value).unwrap_or_default()
}

fn named(name: &str, value: &str, end: &str) -> Vec<Piece> {
    vec![
        Piece::Name(Value::from(name).to_string()),
        Piece::Mark(": ".to_owned()),
        Piece::Value(value.to_owned()),
        Piece::Mark(end.to_owned()),
    ]
}

fn mark(text: &str) -> Piece {
    Piece::Mark(text.to_owned())
}

fn end_of(index: usize, count: usize) -> &'static str {
    if index + 1 < count { "," } else { "" }
}

fn one_a_line(fields: &[(String, String)]) -> Vec<Vec<Piece>> {
    let mut lines = vec![vec![mark("{")]];
    for (index, (name, value)) in fields.iter().enumerate() {
        let mut line = vec![mark("  ")];
        line.extend(named(name, value, end_of(index, fields.len())));
        lines.push(line);
    }
    lines.push(vec![mark("}")]);
    lines
}

fn spread_out(fields: &[(String, String)]) -> Vec<Vec<Piece>> {
    let mut lines = vec![vec![mark("{")]];
    for (index, (name, value)) in fields.iter().enumerate() {
        let end = end_of(index, fields.len());
        let inner = nested(value);
        let mut line = vec![mark("  ")];
        if inner.is_empty() {
            line.extend(named(name, value, end));
            lines.push(line);
            continue;
        }
        line.extend(named(name, "", "{"));
        lines.push(line);
        for (index, (name, value)) in inner.iter().enumerate() {
            let mut line = vec![mark("    ")];
            line.extend(named(name, value, end_of(index, inner.len())));
            lines.push(line);
        }
        lines.push(vec![mark("  }"), mark(end)]);
    }
    lines.push(vec![mark("}")]);
    lines
}

/// As many fields to a line as fit.
fn packed(fields: &[(String, String)], width: usize) -> Vec<Vec<Piece>> {
    let columns = |pieces: &[Piece]| -> usize {
        pieces
            .iter()
            .map(|piece| piece.text().chars().count())
            .sum()
    };
    let mut lines: Vec<Vec<Piece>> = Vec::new();
    let mut line = vec![mark("{ ")];
    for (index, (name, value)) in fields.iter().enumerate() {
        let is_last = index + 1 == fields.len();
        let field = named(name, value, if is_last { " }" } else { "," });
        // The first field follows the brace, in its two columns.
        let is_first_of_line = line.len() == 1;
        if !is_first_of_line && columns(&line) + 1 + columns(&field) > width {
            lines.push(std::mem::replace(&mut line, vec![mark("  ")]));
        } else if !is_first_of_line {
            line.push(mark(" "));
        }
        line.extend(field);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVELOPE: &str = r#"{"envelopeVersion":1,"eventType":"order.placed","source":"outboxd-demo","data":{"b":1,"a":[1,2]}}"#;

    fn texts(width: usize, height: usize) -> Vec<String> {
        let lines = lines(ENVELOPE, width, height);
        let text = |line: &Vec<Piece>| line.iter().map(Piece::text).collect();
        lines.iter().map(text).collect()
    }

    #[test]
    fn with_room_every_field_has_its_line_in_the_order_of_the_envelope() {
        assert_eq!(
            texts(80, 20),
            [
                "{",
                r#"  "envelopeVersion": 1,"#,
                r#"  "eventType": "order.placed","#,
                r#"  "source": "outboxd-demo","#,
                r#"  "data": {"#,
                r#"    "b": 1,"#,
                r#"    "a": [1,2]"#,
                "  }",
                "}",
            ]
        );
    }

    #[test]
    fn without_room_fields_share_lines_and_no_line_is_too_wide() {
        let texts = texts(56, 4);
        assert_eq!(
            texts,
            [
                r#"{ "envelopeVersion": 1, "eventType": "order.placed","#,
                r#"  "source": "outboxd-demo", "data": {"b":1,"a":[1,2]} }"#,
            ]
        );
        assert!(texts.iter().all(|line| line.chars().count() <= 56));
    }

    #[test]
    fn what_is_no_object_stays_as_it_is() {
        for text in ["", "plain", "[1,2]"] {
            assert_eq!(lines(text, 80, 20), [[Piece::Value(text.to_owned())]]);
        }
    }
}
