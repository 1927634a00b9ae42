//! Text with placeholders for the row's columns.

use std::fmt;

use super::field::Field;

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Text that is the same for every row; never empty.
    Literal(String),
    /// The value of a column.
    Field(Field),
}

/// Text such as `{aggregate_type}-events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
}

impl Template {
    /// Reads a template that uses `known` fields; the error is the rule it breaks, to be followed by the
    /// value.
    pub(super) fn parse(text: &str, known: &[Field]) -> Result<Self, String> {
        let mut segments = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            push_literal(&mut segments, &rest[..open])?;
            let (name, after) = rest[open + 1..]
                .split_once('}')
                .ok_or_else(|| "must close every { with }".to_owned())?;
            segments.push(Segment::Field(field(name, known)?));
            rest = after;
        }
        push_literal(&mut segments, rest)?;
        Ok(Self { segments })
    }

    /// The pieces in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The fields that the placeholders stand for.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Field(field) => Some(*field),
            Segment::Literal(_) => None,
        })
    }

    /// The pieces that are the same for every row.
    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(text) => Some(text.as_str()),
            Segment::Field(_) => None,
        })
    }
}

fn field(name: &str, known: &[Field]) -> Result<Field, String> {
    let found = known.iter().find(|field| field.name() == name);
    found.copied().ok_or_else(|| {
        let known: Vec<_> = known
            .iter()
            .map(|field| format!("{{{}}}", field.name()))
            .collect();
        format!("must use only the placeholders {}", known.join(", "))
    })
}

fn push_literal(segments: &mut Vec<Segment>, text: &str) -> Result<(), String> {
    if text.contains('}') {
        return Err("must open every } with {".to_owned());
    }
    if !text.is_empty() {
        segments.push(Segment::Literal(text.to_owned()));
    }
    Ok(())
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => f.write_str(text)?,
                Segment::Field(field) => write!(f, "{{{}}}", field.name())?,
            }
        }
        Ok(())
    }
}
