//! `outboxd check`

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{ConfigArgs, Exit, arguments};
use crate::check::acls::{self, Acl};
use crate::check::{self, Finding, Options, Severity};
use crate::config::{Config, Loaded, Origin, SecretFile, Setting, Shown};
use crate::inbox::ConsumerName;

/// `outboxd check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Connect to Postgres and Kafka, and say what is not as it should be; changes nothing
    #[arg(long)]
    connect: bool,
    /// With --connect: say of transactions that are open for longer than this
    #[arg(long, value_name = "DURATION", default_value = "5m", requires = "connect", value_parser = arguments::duration)]
    long_transaction: Duration,
    /// Print the least Kafka ACLs of the relay and of each consumer, as commands of kafka-acls.sh
    #[arg(long, conflicts_with = "connect")]
    print_acls: bool,
    /// With --print-acls: the relay is this principal
    #[arg(
        long,
        value_name = "PRINCIPAL",
        default_value = "User:outboxd",
        requires = "print_acls"
    )]
    relay_principal: String,
    /// With --print-acls: this consumer is the principal User:NAME; may be repeated
    #[arg(long = "consumer", value_name = "NAME", requires = "print_acls", value_parser = arguments::consumer)]
    consumers: Vec<ConsumerName>,
    /// With --print-acls: whoever sees to the consumers' dead letters is this principal
    #[arg(
        long,
        value_name = "PRINCIPAL",
        default_value = "User:outboxd-maintenance",
        requires = "consumers"
    )]
    maintenance_principal: String,
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
        args.findings(&loaded.config)?
    } else if args.print_acls {
        (args.acls(&loaded.config), Exit::Success)
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

impl CheckArgs {
    fn findings(&self, config: &Config) -> anyhow::Result<(String, Exit)> {
        let options = Options {
            long_transaction: self.long_transaction,
        };
        let findings = super::runtime()?.block_on(check::connect(config, &options));
        let text = match self.json {
            true => {
                let findings: Vec<Value> = findings.iter().map(finding).collect();
                format!("{:#}\n", json!({"findings": findings}))
            }
            false => lines(&findings),
        };
        Ok((text, exit(&findings)))
    }

    fn acls(&self, config: &Config) -> String {
        let mut acls = acls::of_relay(config, &self.relay_principal);
        for consumer in &self.consumers {
            let (name, principal) = (consumer.as_str(), format!("User:{consumer}"));
            acls.extend(acls::of_consumer(config, name, &principal));
            let maintenance = &self.maintenance_principal;
            acls.extend(acls::of_maintenance(config, name, maintenance));
        }
        match self.json {
            true => {
                let acls: Vec<Value> = acls.iter().map(acl).collect();
                format!("{:#}\n", json!({"acls": acls}))
            }
            false => lines(&acls),
        }
    }
}

fn lines(of: &[impl Display]) -> String {
    of.iter().map(|line| format!("{line}\n")).collect()
}

fn acl(acl: &Acl) -> Value {
    let (kind, name, pattern) = acl.resource.parts();
    json!({
        "principal": acl.principal,
        "resource": kind,
        "name": name,
        "pattern": pattern,
        "operations": acl.operations,
    })
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
        Origin::VariableFile(SecretFile { variable, path }) => {
            json!({"kind": "variable_file", "name": variable, "file": path.display().to_string()})
        }
        Origin::CommandLine => json!({"kind": "command_line"}),
    };
    json!({"option": setting.option(), "value": value, "origin": origin})
}
