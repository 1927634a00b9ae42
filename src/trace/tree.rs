//! From what was found to a tree: which event caused which. Pure.

use std::collections::HashMap;

use crate::db::outbox::traced::{Fate, TracedRow};
use crate::inbox::ProcessedEvent;

/// One event, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub database: String,
    /// As the configuration names it, or its table.
    pub outbox: String,
    pub row: TracedRow,
}

/// What a consumer did about an event, and where it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub database: String,
    pub processed: ProcessedEvent,
}

/// An event with what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub step: Step,
    /// In the order of their times.
    pub effects: Vec<Effect>,
    /// The events that name this one as their cause, in the order of their creation.
    pub caused: Vec<Node>,
}

/// The journey of a correlation id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// Events without a cause, or whose cause was not found.
    pub roots: Vec<Node>,
    pub events: usize,
    pub effects: usize,
}

impl Tree {
    pub fn of(steps: Vec<Step>, effects: Vec<Effect>) -> Tree {
        let (event_count, effect_count) = (steps.len(), effects.len());
        let mut of_event: HashMap<String, Vec<Effect>> = HashMap::new();
        for effect in effects {
            let id = effect.processed.event_id.clone();
            of_event.entry(id).or_default().push(effect);
        }
        let ids: HashMap<String, usize> = steps
            .iter()
            .enumerate()
            .map(|(index, step)| (step.row.event_id.clone(), index))
            .collect();
        let parents: Vec<Option<usize>> = steps
            .iter()
            .enumerate()
            .map(|(index, step)| {
                let cause = step.row.causation_id.as_ref()?;
                ids.get(cause).copied().filter(|cause| *cause != index)
            })
            .collect();
        let mut caused: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
        let mut roots = Vec::new();
        for (index, parent) in parents.iter().enumerate() {
            match parent {
                Some(parent) if !leads_back(&parents, index) => caused[*parent].push(index),
                _ => roots.push(index),
            }
        }
        let mut grower = Grower {
            steps: steps.into_iter().map(Some).collect(),
            caused,
            effects: of_event,
        };
        Tree {
            roots: grower.nodes(roots),
            events: event_count,
            effects: effect_count,
        }
    }

    /// The first and the last of all times, in microseconds since 1970.
    pub fn span(&self) -> Option<(i64, i64)> {
        let mut times = Vec::new();
        let mut left: Vec<&Node> = self.roots.iter().collect();
        while let Some(node) = left.pop() {
            times.extend(node.step.row.created_us);
            times.extend(node.step.sent_us());
            times.extend(node.effects.iter().map(|effect| effect.processed.at_us));
            left.extend(&node.caused);
        }
        Some((*times.iter().min()?, *times.iter().max()?))
    }
}

impl Step {
    pub fn sent_us(&self) -> Option<i64> {
        match self.row.fate {
            Fate::Sent { at_us } => at_us,
            Fate::Pending | Fate::Parked { .. } | Fate::Discarded => None,
        }
    }
}

/// Events that claim to have caused each other have no beginning: each of them is taken for one.
fn leads_back(parents: &[Option<usize>], start: usize) -> bool {
    let mut at = start;
    for _ in 0..parents.len() {
        match parents[at] {
            None => return false,
            Some(parent) if parent == start => return true,
            Some(parent) => at = parent,
        }
    }
    // It leads into such a ring without being part of it.
    false
}

struct Grower {
    /// Each is taken once.
    steps: Vec<Option<Step>>,
    caused: Vec<Vec<usize>>,
    effects: HashMap<String, Vec<Effect>>,
}

impl Grower {
    fn nodes(&mut self, indexes: Vec<usize>) -> Vec<Node> {
        let nodes = indexes.into_iter().filter_map(|index| {
            let step = self.steps[index].take()?;
            let mut effects = self.effects.remove(&step.row.event_id).unwrap_or_default();
            effects.sort_by_key(|effect| effect.processed.at_us);
            let caused = std::mem::take(&mut self.caused[index]);
            Some(Node {
                step,
                effects,
                caused: self.nodes(caused),
            })
        });
        let mut nodes: Vec<Node> = nodes.collect();
        // Those without a time come last; of the same time, by their places in their tables.
        nodes.sort_by_key(|node| {
            let row = &node.step.row;
            (row.created_us.is_none(), row.created_us, row.id)
        });
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: i64, event: &str, cause: Option<&str>, created_us: Option<i64>) -> Step {
        Step {
            database: "shop".to_owned(),
            outbox: "default".to_owned(),
            row: TracedRow {
                id,
                event_id: event.to_owned(),
                event_type: None,
                aggregate_type: None,
                causation_id: cause.map(str::to_owned),
                created_us,
                fate: Fate::Pending,
            },
        }
    }

    fn effect(event: &str, at_us: i64) -> Effect {
        Effect {
            database: "billing".to_owned(),
            processed: ProcessedEvent {
                consumer: "billing".to_owned(),
                event_id: event.to_owned(),
                outcome: "processed".to_owned(),
                at_us,
            },
        }
    }

    /// `a(b,c(d))`
    fn shape(nodes: &[Node]) -> String {
        let texts = nodes.iter().map(|node| {
            let id = &node.step.row.event_id;
            match shape(&node.caused) {
                caused if caused.is_empty() => id.clone(),
                caused => format!("{id}({caused})"),
            }
        });
        texts.collect::<Vec<_>>().join(",")
    }

    #[test]
    fn events_stand_under_their_causes_in_the_order_of_their_times() {
        let steps = vec![
            step(9, "d", Some("c"), Some(50)),
            step(4, "c", Some("a"), Some(30)),
            step(1, "a", Some("gone"), Some(10)),
            step(7, "b", Some("a"), Some(20)),
            step(3, "alone", None, None),
        ];
        let effects = vec![effect("a", 18), effect("a", 15), effect("d", 99)];
        let tree = Tree::of(steps, effects);
        assert_eq!(shape(&tree.roots), "a(b,c(d)),alone");
        assert_eq!((tree.events, tree.effects), (5, 3));
        assert_eq!(tree.span(), Some((10, 99)));
        let times: Vec<i64> = tree.roots[0]
            .effects
            .iter()
            .map(|e| e.processed.at_us)
            .collect();
        assert_eq!(times, [15, 18]);
    }

    #[test]
    fn events_that_caused_each_other_are_all_there() {
        let steps = vec![
            step(1, "a", Some("b"), Some(1)),
            step(2, "b", Some("a"), Some(2)),
            step(3, "self", Some("self"), Some(3)),
            step(4, "after", Some("b"), Some(4)),
        ];
        assert_eq!(shape(&Tree::of(steps, Vec::new()).roots), "a,b(after),self");
        assert_eq!(Tree::of(Vec::new(), Vec::new()).span(), None);
    }
}
