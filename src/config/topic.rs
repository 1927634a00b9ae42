//! Topic templates: where an outbox's events go when the row names no topic.

use std::fmt;

use super::field::Field;
use super::template::{OtherColumns, Segment, Template};
use super::topic_name::{MAX_TOPIC_BYTES, is_legal};

/// A topic name with placeholders, such as `{aggregate_type}-events`.
///
/// The literal parts are legal in a Kafka topic. What the placeholders become is only known for a
/// row, so the resolved name must be checked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate(Template);

impl TopicTemplate {
    /// The template that is this name for every row; the error is the rule that the name breaks.
    pub fn literal(name: &str) -> Result<Self, String> {
        match name.contains('{') {
            true => Err("must have no placeholder".to_owned()),
            false => Self::parse(name, "", &mut OtherColumns::default()),
        }
    }

    /// Reads the template of `option`; the error is the rule it breaks, to be followed by the value.
    pub(super) fn parse(
        text: &str,
        option: &str,
        others: &mut OtherColumns,
    ) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        let template = Template::parse(text, option, others)?;
        if !template.literals().all(|text| text.bytes().all(is_legal)) {
            return Err(
                "must use only the characters a-z, A-Z, 0-9, '.', '_' and '-' outside of placeholders"
                    .to_owned(),
            );
        }
        if template.literals().map(str::len).sum::<usize>() > MAX_TOPIC_BYTES {
            return Err(format!("must be at most {MAX_TOPIC_BYTES} bytes"));
        }
        if text == "." || text == ".." {
            return Err("must not be . or ..".to_owned());
        }
        Ok(Self(template))
    }

    /// The pieces in order, at least one.
    pub fn segments(&self) -> &[Segment] {
        self.0.segments()
    }

    /// The fields that the placeholders stand for.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.0.fields()
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
