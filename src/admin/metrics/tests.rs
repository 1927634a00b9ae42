use std::collections::BTreeMap;

use super::*;
use crate::inbox::consumer;

const TABLES: &str = include_str!("../../../docs/metrics.md");

/// Name to kind and meaning, as they are scraped.
fn scraped(text: &str) -> BTreeMap<String, (String, String)> {
    let mut helps = BTreeMap::new();
    let mut metrics = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => drop(helps.insert(name, help.trim_end_matches('.'))),
            ["#", "TYPE", name, kind] => {
                let name_shown = match kind {
                    "counter" => format!("{name}_total"),
                    _ => name.to_owned(),
                };
                metrics.insert(name_shown, (kind.to_owned(), helps[name].to_owned()));
            }
            _ => {}
        }
    }
    metrics
}

/// The rows of the document's tables.
fn documented() -> BTreeMap<String, (String, String)> {
    let rows = TABLES.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect());
    cells
        .map(|cells: Vec<&str>| {
            let name = cells[0].trim_matches('`').to_owned();
            (name, (cells[1].to_owned(), cells[2].to_owned()))
        })
        .collect()
}

#[test]
fn the_document_has_every_metric_with_its_kind_and_meaning_and_no_other() {
    let metrics = Metrics::default();
    metrics.outbox("orders", &Arc::default());
    let mut text = metrics.encode().expect("text");
    let mut registry = Registry::default();
    consumer::Metrics::sampled().register(&mut registry);
    encode(&mut text, &registry).expect("text");
    let (scraped, documented) = (scraped(&text), documented());
    assert!(scraped.len() > 30, "{scraped:#?}");
    assert_eq!(scraped, documented);
}
