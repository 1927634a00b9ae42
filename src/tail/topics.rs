//! Which topics are followed. Pure.

use crate::config::{OutboxConfig, Segment, Templates};

/// The topics that somebody named, or those that templates can become.
#[derive(Debug, Clone)]
pub enum Wanted {
    Named(Vec<String>),
    Like(Vec<Vec<Segment>>),
}

impl Wanted {
    /// What the rows of these outboxes go to, unless they name a topic of their own.
    pub fn of<'o>(outboxes: impl Iterator<Item = &'o OutboxConfig>) -> Wanted {
        let templates = outboxes.flat_map(|outbox| {
            let Templates { topic, topics, .. } = &outbox.templates;
            std::iter::once(topic).chain(topics.values())
        });
        Wanted::Like(templates.map(|t| t.segments().to_vec()).collect())
    }

    pub fn includes(&self, topic: &str) -> bool {
        match self {
            Wanted::Named(names) => names.iter().any(|name| name == topic),
            Wanted::Like(templates) => templates.iter().any(|segments| {
                let is_named = matches!(&segments[..], [Segment::Literal(_)]);
                // Kafka's own topics.
                (is_named || !topic.starts_with("__")) && can_become(segments, topic)
            }),
        }
    }
}

/// Whether the template can become this name, each placeholder at least one character of it.
fn can_become(segments: &[Segment], name: &str) -> bool {
    match segments {
        [] => name.is_empty(),
        [Segment::Literal(text), rest @ ..] => name
            .strip_prefix(text.as_str())
            .is_some_and(|name| can_become(rest, name)),
        [Segment::Field(_) | Segment::Other { .. }, rest @ ..] => name
            .char_indices()
            .skip(1)
            .map(|(at, _)| at)
            .chain([name.len()].into_iter().filter(|length| *length > 0))
            .any(|at| can_become(rest, &name[at..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Field;

    #[test]
    fn a_template_is_every_topic_that_it_can_become() {
        let literal = |text: &str| Segment::Literal(text.to_owned());
        let field = || Segment::Field(Field::AggregateType);
        let events = Wanted::Like(vec![vec![field(), literal("-events")]]);
        let debezium = Wanted::Like(vec![vec![literal("outbox.event."), field()]]);
        let both = Wanted::Like(vec![vec![field(), literal("-"), field()]]);
        let all = Wanted::Like(vec![vec![field()]]);
        let fixed = Wanted::Like(vec![vec![literal("__mine")]]);
        let named = Wanted::Named(vec!["orders".to_owned()]);
        for (wanted, topic, expected) in [
            (&events, "order-events", true),
            (&events, "-events", false),
            (&events, "order-events-2", false),
            (&events, "__order-events", false),
            (&debezium, "outbox.event.order", true),
            (&debezium, "outbox.event.", false),
            (&both, "a-b-c", true),
            (&both, "ab", false),
            (&all, "anything", true),
            (&all, "__consumer_offsets", false),
            (&fixed, "__mine", true),
            (&named, "orders", true),
            (&named, "orders2", false),
        ] {
            assert_eq!(wanted.includes(topic), expected, "{wanted:?} {topic}");
        }
    }
}
