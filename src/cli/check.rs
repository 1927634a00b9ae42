//! `outboxd check`

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::{ConfigArgs, Exit};
use crate::config::{Loaded, Origin, Setting, Shown};

/// `outboxd check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the effective configuration with the origin of each value.
///
/// # Errors
/// When the configuration is wrong.
pub fn run(args: &CheckArgs) -> anyhow::Result<Exit> {
    let loaded = args.config.load_with_origins()?;
    let text = match args.json {
        true => format!("{:#}\n", settings(&loaded)),
        false => loaded.annotated_toml(),
    };
    // A closed pipe (`| head`) is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(Exit::Success)
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
