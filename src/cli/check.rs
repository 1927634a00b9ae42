//! `outboxd check`

use std::io::Write;

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{ConfigArgs, Exit};
use crate::check::{self, Finding, Options, Severity};
use crate::config::{Loaded, Origin, Setting, Shown};

/// `outboxd check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Connect to Postgres and Kafka, and say what is not as it should be; changes nothing
    #[arg(long)]
    connect: bool,
    /// With --connect: say of transactions that are open for longer than this
    #[arg(long, value_name = "DURATION", default_value = "5m", requires = "connect", value_parser = humantime::parse_duration)]
    long_transaction: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the effective configuration with the origin of each value, or what is not as it should be.
///
/// # Errors
/// When the configuration is wrong.
pub fn run(args: &CheckArgs) -> anyhow::Result<Exit> {
    let loaded = args.config.load_with_origins()?;
    let (text, exit) = if args.connect {
        let options = Options {
            long_transaction: args.long_transaction,
        };
        let findings = super::runtime()?.block_on(check::connect(&loaded.config, &options));
        let text = match args.json {
            true => {
                let findings: Vec<Value> = findings.iter().map(finding).collect();
                format!("{:#}\n", json!({"findings": findings}))
            }
            false => findings
                .iter()
                .map(|finding| format!("{finding}\n"))
                .collect(),
        };
        (text, exit(&findings))
    } else {
        let text = match args.json {
            true => format!("{:#}\n", settings(&loaded)),
            false => loaded.annotated_toml(),
        };
        (text, Exit::Success)
    };
    // A closed pipe (`| head`) is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(exit)
}

fn exit(findings: &[Finding]) -> Exit {
    match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Error) => Exit::Config,
        Some(Severity::Warning) => Exit::Warnings,
        Some(Severity::Note) | None => Exit::Success,
    }
}

fn finding(finding: &Finding) -> Value {
    json!({
        "severity": finding.severity.as_str(),
        "code": finding.code,
        "subject": finding.subject,
        "problem": finding.problem,
        "remedy": finding.remedy,
    })
}

fn settings(loaded: &Loaded) -> Value {
    let settings: Vec<Value> = loaded.settings().iter().map(setting).collect();
    json!({"settings": settings})
}

fn setting(setting: &Setting) -> Value {
    let value = match &setting.value {
        Shown::Text(text) => Value::from(text.as_str()),
        Shown::Plain(plain) => {
            serde_json::from_str(plain).unwrap_or_else(|_| plain.as_str().into())
        }
    };
    let origin = match &setting.origin {
        Origin::Default => json!({"kind": "default"}),
        Origin::Preset(preset) => json!({"kind": "preset", "name": preset.as_str()}),
        Origin::File(file) => json!({"kind": "file", "file": file}),
        Origin::Variable(name) => json!({"kind": "variable", "name": name}),
        Origin::VariableFile { variable, file } => {
            json!({"kind": "variable_file", "name": variable, "file": file})
        }
        Origin::CommandLine => json!({"kind": "command_line"}),
    };
    json!({"option": setting.option(), "value": value, "origin": origin})
}
