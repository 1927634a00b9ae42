//! README and guide: every command in them is run, every link leads somewhere.
//!
//! The blocks of a page are run one after the other on a database, a Kafka and a relay of the page's own. What stands
//! behind a block's language says how, where it is not simply to succeed:
//!
//! | | |
//! |---|---|
//! | `sh` | run by bash. `exit=3`: ends with this status. `shows=TEXT`: prints that, at the latest when it is tried again, while the application writes. `until=TEXT`: is stopped once it has printed that. `background`: a relay, which runs until the end of the page |
//! | `sql` | run in the shop's database; `database=billing`: in the consumer's |
//! | `toml` | `outboxd check` accepts it; `file=NAME`: the scripts that follow find it there |
//! | `rust` | `from=FILE`: stands there, where cargo compiles it |
//! | `json` | is JSON |
//! | `unrun=REASON` | an `sh` that cannot be run here, and only parses |

pub mod page;
mod stage;

use std::collections::BTreeSet;

use page::{Page, anchors, root};
use stage::{Begin, Stage};

/// A test for each page, and the list of all.
macro_rules! pages {
    ($($name:ident: $path:literal, $begin:ident;)*) => {
        const PAGES: &[&str] = &[$($path),*];

        $(#[tokio::test]
        async fn $name() {
            everything_is_run(Page::read($path), Begin::$begin).await;
        })*
    };
}

pages! {
    readme_is_run: "README.md", Bare;
    guide_is_run: "docs/guide/README.md", Bare;
    consuming_is_run: "docs/guide/consuming.md", Installed;
    dead_letters_are_run: "docs/guide/dead-letters.md", Installed;
    envelopes_are_run: "docs/guide/envelopes.md", Installed;
    guarantees_are_run: "docs/guide/guarantees.md", Bare;
    moving_is_run: "docs/guide/moving.md", Addressed;
    operating_is_run: "docs/guide/operating.md", Installed;
    ordering_is_run: "docs/guide/ordering.md", Installed;
    retention_and_replay_are_run: "docs/guide/retention-and-replay.md", Installed;
    sidecar_is_run: "docs/guide/sidecar.md", Installed;
    tuning_is_run: "docs/guide/tuning.md", Installed;
    upgrading_is_run: "docs/guide/upgrading.md", Installed;
}

async fn everything_is_run(page: Page, begin: Begin) {
    let blocks = page.blocks();
    if blocks.is_empty() {
        return;
    }
    let mut stage = Stage::open(begin).await;
    for block in &blocks {
        stage.run(block).await;
    }
}

#[test]
fn no_page_of_the_guide_is_left_out() {
    let pages = std::fs::read_dir(root().join("docs/guide")).expect("the guide");
    let pages = pages.map(|page| page.expect("a page").file_name());
    let there: BTreeSet<String> = pages
        .map(|name| format!("docs/guide/{}", name.display()))
        .collect();
    let run = PAGES.iter().skip(1).map(|page| (*page).to_owned());
    assert_eq!(there, run.collect());
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    for page in PAGES.iter().map(|path| Page::read(path)) {
        for link in page.links() {
            let (file, heading) = page.target(link);
            assert!(file.exists(), "{}: {link} leads nowhere", page.path);
            let Some(heading) = heading else { continue };
            let text = std::fs::read_to_string(&file).expect("a page");
            assert!(
                anchors(&text).iter().any(|anchor| anchor == heading),
                "{}: {link} has no such heading: {:?}",
                page.path,
                anchors(&text)
            );
        }
    }
}
