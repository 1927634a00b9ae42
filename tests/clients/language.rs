//! How the examples of a language are built and started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::program;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

#[derive(Debug, Clone, Copy)]
pub enum Language {
    Java,
    Python,
    Node,
    Go,
}

impl Language {
    /// The name of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Language::Java => "java",
            Language::Python => "python",
            Language::Node => "node",
            Language::Go => "go",
        }
    }

    /// What runs its example `insert` or `consume`. The first caller of Java's builds them.
    pub async fn command_line(self, example: &'static str) -> Vec<String> {
        match self {
            Language::Java => {
                let built = tokio::task::spawn_blocking(java_class_path);
                let class_path = built.await.expect("building does not panic");
                let class = format!("example.{}{}", example[..1].to_uppercase(), &example[1..]);
                // A small heap, and a collector that takes no threads from the tests.
                let java = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-cp"];
                let arguments = [class_path, class];
                java.map(str::to_owned)
                    .into_iter()
                    .chain(arguments)
                    .collect()
            }
            Language::Python => vec![
                prepared("python/bin/python"),
                format!("{EXAMPLES}/python/{example}.py"),
            ],
            // A module finds its packages in the folders above it.
            Language::Node => vec!["node".to_owned(), prepared(&format!("node/{example}.js"))],
            Language::Go => vec![prepared(&format!("go/{example}"))],
        }
    }
}

/// A file that `tests/clients/run` has prepared.
pub fn prepared(file: &str) -> String {
    let place = std::env::var("OUTBOXD_TEST_CLIENTS");
    let place = place.expect("run tests/clients/run, which prepares this language's packages");
    format!("{place}/{file}")
}

/// Classes and jars of Java's examples, built once in a test run.
fn java_class_path() -> String {
    static BUILT: OnceLock<Result<String, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build_java().map_err(|error| format!("{error:#}")));
    built.clone().unwrap_or_else(|error| panic!("{error}"))
}

/// Runs Maven on a copy of the project, since it builds beside the sources.
fn build_java() -> anyhow::Result<String> {
    let project = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples-java");
    let class_path = project.join("target/class-path");
    copy(&Path::new(EXAMPLES).join("java"), &project)?;
    let maven = program("mvn").ok_or_else(|| anyhow::anyhow!("Java's examples need mvn"))?;
    let output = Command::new(maven)
        .current_dir(&project)
        .args(["--quiet", "--batch-mode", "compile"])
        .arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath")
        .arg(format!("-Dmdep.outputFile={}", class_path.display()))
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "building Java's examples: {}",
        String::from_utf8_lossy(&output.stdout).trim()
    );
    let classes = project.join("target/classes");
    let jars = fs::read_to_string(class_path)?;
    Ok(format!("{}:{jars}", classes.display()))
}

/// Copies the files of a folder and those below it. What is there and the same stays as it is, so that
/// Maven sees what has changed.
fn copy(from: &Path, to: &PathBuf) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_name() == "target" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&source, &target)?;
        } else if fs::read(&target).ok() != Some(fs::read(&source)?) {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}
