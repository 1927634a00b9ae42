//! Text with placeholders for the row's columns.

use std::fmt;

use super::field::Field;
use super::names::Name;
use super::values::Value as _;

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Text that is the same for every row; never empty.
    Literal(String),
    /// The value of a field.
    Field(Field),
    /// The value of a column that holds no field.
    Other {
        /// Its place among the [`OtherColumns`].
        place: usize,
        /// As the catalogue spells it.
        name: Name,
    },
}

/// The columns of an outbox that hold no field and are named by placeholders, in the order in which they
/// are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OtherColumns(Vec<(Name, String)>);

impl OtherColumns {
    /// Each column with the option that named it first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Name, &str)> {
        self.0.iter().map(|(name, option)| (name, option.as_str()))
    }

    fn place(&mut self, name: &Name, option: &str) -> usize {
        let found = self.0.iter().position(|(known, _)| known == name);
        found.unwrap_or_else(|| {
            self.0.push((name.clone(), option.to_owned()));
            self.0.len() - 1
        })
    }
}

/// Text such as `{aggregate_type}-events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
}

impl Template {
    /// Reads the template of `option`; the error is the rule it breaks, to be followed by the value. A
    /// placeholder that is no field is a column of the table, and noted in `others`.
    pub(super) fn parse(
        text: &str,
        option: &str,
        others: &mut OtherColumns,
    ) -> Result<Self, String> {
        let mut segments = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            push_literal(&mut segments, &rest[..open])?;
            let (name, after) = rest[open + 1..]
                .split_once('}')
                .ok_or_else(|| "must close every { with }".to_owned())?;
            segments.push(placeholder(name, option, others)?);
            rest = after;
        }
        push_literal(&mut segments, rest)?;
        Ok(Self { segments })
    }

    /// The field alone.
    pub(super) fn of_field(field: Field) -> Self {
        Self {
            segments: vec![Segment::Field(field)],
        }
    }

    /// The pieces in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The fields that the placeholders stand for.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Field(field) => Some(*field),
            Segment::Literal(_) | Segment::Other { .. } => None,
        })
    }

    /// The pieces that are the same for every row.
    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(text) => Some(text.as_str()),
            Segment::Field(_) | Segment::Other { .. } => None,
        })
    }
}

fn placeholder(name: &str, option: &str, others: &mut OtherColumns) -> Result<Segment, String> {
    match Field::ALL.iter().find(|field| field.name() == name) {
        Some(Field::Payload | Field::PayloadBytes | Field::Headers) => {
            Err(format!("must not use the placeholder {{{name}}}"))
        }
        Some(field) => Ok(Segment::Field(*field)),
        None => {
            let name = Name::read(name).map_err(|_| {
                "must have a column's name between every { and }, of 1 to 63 bytes".to_owned()
            })?;
            Ok(Segment::Other {
                place: others.place(&name, option),
                name,
            })
        }
    }
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
                Segment::Other { name, .. } => write!(f, "{{{}}}", name.as_str())?,
            }
        }
        Ok(())
    }
}
