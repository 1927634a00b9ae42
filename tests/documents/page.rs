//! A page of Markdown: its fenced blocks, its links and its headings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A page, by its path from the root of the repository.
pub struct Page {
    pub path: &'static str,
    text: String,
}

/// A fenced block.
pub struct Block {
    /// `README.md:12`
    pub place: String,
    pub language: String,
    /// What stands behind the language: `name` or `name=value`, the value in quotes if it has spaces.
    pub notes: BTreeMap<String, String>,
    pub text: String,
}

impl Page {
    pub fn read(path: &'static str) -> Page {
        let text = std::fs::read_to_string(root().join(path));
        Page {
            path,
            text: text.unwrap_or_else(|error| panic!("{path}: {error}")),
        }
    }

    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut lines = self.text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let Some((indent, info)) = line.split_once("```") else {
                continue;
            };
            let (language, notes) = info.split_once(' ').unwrap_or((info, ""));
            let inside = lines.by_ref().map(|(_, line)| line);
            let inside = inside.take_while(|line| line.trim() != "```");
            let text = inside.map(|line| line.strip_prefix(indent).unwrap_or(line));
            blocks.push(Block {
                place: format!("{}:{}", self.path, number + 1),
                language: language.to_owned(),
                notes: self::notes(notes),
                text: text.collect::<Vec<_>>().join("\n"),
            });
        }
        blocks
    }

    /// The targets of links and pictures that lead to files of the repository.
    pub fn links(&self) -> impl Iterator<Item = &str> {
        let targets = self.text.split("](").skip(1);
        targets
            .filter_map(|rest| rest.split_once(')'))
            .map(|(target, _)| target)
            .filter(|target| !target.contains("://"))
    }

    /// The file that a link leads to, and the heading in it.
    pub fn target<'a>(&self, link: &'a str) -> (PathBuf, Option<&'a str>) {
        let (file, heading) = match link.split_once('#') {
            Some((file, heading)) => (file, Some(heading)),
            None => (link, None),
        };
        let page = root().join(self.path);
        match (file, page.parent()) {
            ("", _) | (_, None) => (page, heading),
            (file, Some(folder)) => (folder.join(file), heading),
        }
    }
}

impl Block {
    pub fn note(&self, name: &str) -> Option<&str> {
        self.notes.get(name).map(String::as_str)
    }

    /// Panics if there is a note that nobody acts upon.
    pub fn expect_notes(&self, known: &[&str]) {
        for name in self.notes.keys() {
            assert!(known.contains(&&**name), "{}: what is {name}?", self.place);
        }
    }
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The anchors that GitHub gives the headings of a page.
pub fn anchors(markdown: &str) -> Vec<String> {
    let headings = markdown.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

fn notes(text: &str) -> BTreeMap<String, String> {
    let mut notes = BTreeMap::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let name_end = rest.find(['=', ' ']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(name_end);
        let (value, after) = match after.strip_prefix('=') {
            None => ("", after),
            Some(quoted) if quoted.starts_with('"') => {
                quoted[1..].split_once('"').expect("a closing quote")
            }
            Some(value) => value.split_at(value.find(' ').unwrap_or(value.len())),
        };
        notes.insert(name.to_owned(), value.to_owned());
        rest = after.trim_start();
    }
    notes
}

#[test]
fn a_block_is_known_by_its_language_and_notes() {
    let page = Page {
        path: "page.md",
        text: "# A, b: c\n\n1. Run\n\n   ```sh shows=\"a b\" exit=3 background\n   x\n     y\n   ```\n[l](f.md#h)".into(),
    };
    let [block] = &page.blocks()[..] else {
        panic!("one block")
    };
    assert_eq!((&*block.place, &*block.language), ("page.md:5", "sh"));
    assert_eq!(block.text, "x\n  y");
    assert_eq!(block.note("shows"), Some("a b"));
    assert_eq!(block.note("exit"), Some("3"));
    assert_eq!(block.note("background"), Some(""));
    assert_eq!(page.links().collect::<Vec<_>>(), ["f.md#h"]);
    assert_eq!(anchors(&page.text), ["a-b-c"]);
}
