//! What the tests run on Java: their jars come from Maven Central once, and stay in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use outboxd::local::{Sandbox, cache};

use super::program;

/// The file in the sandbox that configures the log, and what it says: warnings and errors go to the
/// console, which is the log in the sandbox.
pub const LOGGING: (&str, &str) = (
    "log4j2.properties",
    "\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
",
);

/// A program of Java: its class path and the Java to run it with.
#[derive(Debug)]
pub struct Java {
    java: PathBuf,
    class_path: String,
}

impl Java {
    /// Those jars that the file `pom` of this folder names, kept in the cache as `entry`.
    pub async fn of(entry: &str, pom: &'static str) -> Result<Java> {
        Ok(Java {
            class_path: format!("{}/*", jars(entry, pom).await?.display()),
            java: java().context("install java (17 or later)")?,
        })
    }

    /// Java with a small heap and a collector that takes no threads from the tests. [`LOGGING`] must be in
    /// the sandbox.
    pub fn command(&self, sandbox: &Sandbox, class: &str) -> Command {
        self.command_with(sandbox, class, &[])
    }

    /// The same with more options of Java.
    pub fn command_with(&self, sandbox: &Sandbox, class: &str, options: &[String]) -> Command {
        let mut command = sandbox.command(&self.java);
        command
            .args(["-Xmx512m", "-XX:+UseSerialGC", "-cp", &self.class_path])
            .args(options)
            .arg(format!("-Dlog4j2.configurationFile={}", LOGGING.0))
            .arg(class);
        command
    }
}

/// What this machine lacks to run such programs, if anything.
pub fn lacks() -> Option<String> {
    (java().is_none() || program("mvn").is_none()).then(|| "java (17 or later) and mvn".to_owned())
}

fn java() -> Option<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(PathBuf::from);
    home.map(|home| home.join("bin/java"))
        .filter(|java| java.is_file())
        .or_else(|| program("java"))
}

/// The folder of the jars, fetched on first use.
async fn jars(entry: &str, pom: &'static str) -> Result<PathBuf> {
    cache::entry(entry, async |folder: &Path| {
        let maven = program("mvn").context("install mvn")?;
        let mut command = Command::new(maven);
        command
            .args(["--quiet", "--batch-mode", "--file"])
            .arg(format!(
                "{}/tests/support/{pom}",
                env!("CARGO_MANIFEST_DIR")
            ))
            .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
            .arg(format!("-DoutputDirectory={}", folder.display()));
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        ensure!(
            output.status.success(),
            "fetching the jars of {pom} from Maven Central: {}",
            String::from_utf8_lossy(&output.stdout).trim()
        );
        Ok(())
    })
    .await
}
