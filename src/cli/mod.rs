//! The command line: one file per command.

/// As `eprintln!`, for whoever started the command: that nobody reads it is no reason to panic.
macro_rules! tell {
    ($($said:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($said)*);
    }};
}

mod arguments;
mod bench;
mod check;
mod dead;
#[cfg(feature = "demo")]
mod demo;
mod dlq;
mod examples;
mod exit;
mod inbox;
mod migrate;
mod pages;
mod pause;
mod probe;
mod reason;
mod replay;
mod run;
mod status;
mod tail;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigErrors, Loaded, OutboxConfig, Sources};
use crate::db::{self, Database, Role, Session};
use crate::outage::chain;

use arguments::WrongArgument;
pub use exit::Exit;

/// A transactional outbox relay: committed Postgres rows reach Kafka in order, at least once, and are
/// marked sent.
#[derive(Debug, Parser)]
#[command(name = "outboxd", version, max_term_width = 100, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Relay the configured outboxes until stopped
    #[command(after_help = examples::RUN)]
    Run(run::RunArgs),
    /// Show the relay at work, with a throwaway Postgres and a Kafka inside this process
    #[cfg(feature = "demo")]
    #[command(after_help = examples::DEMO)]
    Demo(demo::DemoArgs),
    /// Create or upgrade the tables, or print the SQL that does
    #[command(after_help = examples::MIGRATE)]
    Migrate(migrate::MigrateArgs),
    /// Print the effective configuration, or verify what the guarantees rest on
    #[command(after_help = examples::CHECK)]
    Check(check::CheckArgs),
    /// Show the rows that could not be published, and decide about them
    #[command(after_help = examples::DEAD)]
    Dead(dead::DeadArgs),
    /// Have the rows of an outbox, or of one topic of it, wait in their table
    #[command(after_help = examples::PAUSE)]
    Pause(pause::PauseArgs),
    /// Let them go on
    #[command(after_help = examples::RESUME)]
    Resume(pause::ResumeArgs),
    /// Show who owns each outbox, how much is pending, what is stuck and why
    #[command(after_help = examples::STATUS)]
    Status(status::StatusArgs),
    /// Ask the relay of this machine whether it is alive, or ready: for health checks without a shell
    #[command(after_help = examples::PROBE)]
    Probe(probe::ProbeArgs),
    /// Follow what is being published
    #[command(after_help = examples::TAIL)]
    Tail(tail::TailArgs),
    /// Show the journey of a correlation id: its events, what they caused, what consumers did about them
    #[command(after_help = examples::TRACE)]
    Trace(trace::TraceArgs),
    /// Send rows again that were sent and are still there
    #[command(after_help = examples::REPLAY)]
    Replay(replay::ReplayArgs),
    /// See to the consumers' side: what they remember
    #[command(after_help = examples::INBOX)]
    Inbox(inbox::InboxArgs),
    /// Measure the relay with the configured services, in a schema and topics of its own
    #[command(after_help = examples::BENCH)]
    Bench(bench::BenchArgs),
    /// Print what completes outboxd's commands in a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(pages::CompletionsArgs),
    /// Print a page for man, of outboxd or of one of its commands
    #[command(after_help = examples::MAN)]
    Man(pages::ManArgs),
}

/// Where the configuration comes from; the same for every command that needs one.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// Read this TOML file [default: the file named by OUTBOXD_CONFIG, if set]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Use this database (postgres.url)
    #[arg(long, value_name = "URL")]
    pub postgres_url: Option<String>,
    /// Use these brokers (kafka.bootstrap_servers)
    #[arg(long, value_name = "HOST:PORT,...")]
    pub kafka: Option<String>,
    /// Set any option, such as outbox.default.poll_interval=10ms; may be repeated
    #[arg(long = "set", value_name = "OPTION=VALUE", value_parser = option_and_value)]
    pub options: Vec<(String, String)>,
}

fn option_and_value(text: &str) -> Result<(String, String), String> {
    let (option, value) = text
        .split_once('=')
        .filter(|(option, _)| !option.is_empty())
        .ok_or("must be OPTION=VALUE")?;
    Ok((option.to_owned(), value.to_owned()))
}

impl ConfigArgs {
    /// Reads all layers.
    ///
    /// # Errors
    /// Every broken rule at once.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        Ok(self.load_with_origins()?.config)
    }

    /// Reads all layers, and keeps which value is from which.
    ///
    /// # Errors
    /// As [`ConfigArgs::load`].
    pub fn load_with_origins(&self) -> Result<Loaded, ConfigErrors> {
        let mut overrides = self.options.clone();
        let mut set = |path: &str, value: &Option<String>| {
            if let Some(value) = value {
                overrides.push((path.to_owned(), value.clone()));
            }
        };
        set("postgres.url", &self.postgres_url);
        set("kafka.bootstrap_servers", &self.kafka);
        Loaded::load(Sources::of_process(self.config.clone(), overrides)?)
    }

    /// The same for a command that never connects to Kafka, so that it need not be configured.
    ///
    /// # Errors
    /// As [`ConfigArgs::load`].
    pub fn load_without_kafka(&self) -> Result<Config, ConfigErrors> {
        let mut args = self.clone();
        if args.kafka.is_none() {
            let unused = (
                "kafka.bootstrap_servers".to_owned(),
                "unused:9092".to_owned(),
            );
            args.options.insert(0, unused);
        }
        args.load()
    }
}

/// One outbox; the same for every command that looks at one in Postgres.
#[derive(Debug, Args)]
struct OutboxArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The outbox, as the configuration names it [default: the only one]
    #[arg(long, value_name = "NAME")]
    outbox: Option<String>,
}

impl OutboxArgs {
    /// The configuration, the outbox, and a connection for the command of this name to a schema that fits it.
    ///
    /// # Errors
    /// When the configuration or the schema does not fit, or Postgres does not answer.
    async fn open(&self, command: &str) -> anyhow::Result<(Config, OutboxConfig, Session)> {
        let config = self.config.load_without_kafka()?;
        let outbox = outbox(&config, self.outbox.as_deref())?.clone();
        let database = Database::new(&config.postgres)?;
        let mut session = database.connect(command, Role::Command).await?;
        session.begin().await?;
        db::migrate::verify(&mut session, config.postgres.schema.as_str(), &outbox).await?;
        session.commit().await?;
        Ok((config, outbox, session))
    }
}

/// The outbox that `--outbox` names; the only one if it is not given.
///
/// # Errors
/// When there is none of that name, or there are several and none was named.
fn outbox<'c>(config: &'c Config, named: Option<&str>) -> Result<&'c OutboxConfig, WrongArgument> {
    let found = match named {
        Some(name) => config.outboxes.get(name),
        None if config.outboxes.len() == 1 => config.outboxes.values().next(),
        None => None,
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = config.outboxes.keys().map(String::as_str).collect();
        let is = named.map_or_else(|| "is not given".to_owned(), |name| format!("is {name}"));
        WrongArgument {
            argument: "--outbox",
            rule: format!(
                "must name one of the configured outboxes ({}), {is}",
                names.join(", ")
            ),
        }
    })
}

/// Parses the arguments, runs the command, and turns how it ended into an exit status.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(args) => run::run(&args),
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Dead(args) => dead::run(&args),
        Command::Pause(args) => pause::pause(&args),
        Command::Resume(args) => pause::resume(&args),
        Command::Status(args) => status::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Inbox(args) => inbox::run(args),
        Command::Bench(args) => bench::run(&args),
        Command::Completions(args) => Ok(pages::completions(&args)),
        Command::Man(args) => pages::man(&args),
    };
    done.unwrap_or_else(|error| {
        // The log may go elsewhere; this is for whoever started the command.
        tell!("outboxd: {}", chain(error.as_ref()));
        Exit::of(&error)
    })
    .into()
}

/// The runtime of a command.
///
/// # Errors
/// When the system refuses threads.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The words of a line as a shell takes them apart, up to where its output goes.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut rest) = (Vec::new(), line);
        while !rest.is_empty() && !rest.starts_with('>') {
            let (word, after) = match rest.strip_prefix('\'') {
                Some(quoted) => quoted.split_once('\'').expect("its end"),
                None => rest.split_once(' ').unwrap_or((rest, "")),
            };
            words.push(word.to_owned());
            rest = after.trim_start();
        }
        words
    }

    fn each_command(
        path: &str,
        command: &clap::Command,
        look: &mut impl FnMut(&str, &clap::Command),
    ) {
        look(path, command);
        for below in command.get_subcommands() {
            each_command(&format!("{path} {}", below.get_name()), below, look);
        }
    }

    #[test]
    fn the_help_of_each_command_has_examples_of_it_that_parse() {
        let root = Cli::command();
        let mut seen = 0;
        for below in root.get_subcommands() {
            let path = format!("outboxd {}", below.get_name());
            each_command(&path, below, &mut |path, command| {
                let help = command.get_after_help().map(ToString::to_string);
                let help = help.unwrap_or_else(|| panic!("{path} has no examples"));
                let lines = help.strip_prefix("Examples:\n").expect("a heading").lines();
                for line in lines {
                    assert!(line.starts_with(&format!("  {path}")), "{path}: {line}");
                    let parsed = Cli::try_parse_from(words(line.trim()));
                    assert!(parsed.is_ok(), "{line}: {parsed:?}");
                    seen += 1;
                }
            });
        }
        assert!(seen >= 50, "{seen} examples");
    }

    #[test]
    fn every_command_that_a_program_might_read_speaks_json() {
        let silent = ["run", "demo", "probe", "completions", "man"];
        each_command("", &Cli::command(), &mut |path, command| {
            let is_silent = silent.contains(&command.get_name());
            let mut options = command.get_arguments();
            if !command.has_subcommands() && !is_silent {
                let json = options.find(|option| option.get_long() == Some("json"));
                assert!(json.is_some(), "{path}");
            }
        });
    }

    #[test]
    fn each_command_has_a_page_of_its_own() {
        each_command("", &Cli::command(), &mut |path, command| {
            let path: Vec<String> = path.split_whitespace().map(str::to_owned).collect();
            let page = pages::page(&path).expect("a page");
            let name = [&["outboxd".to_owned()], &path[..]].concat().join("\\-");
            assert!(
                page.contains(&format!(".SH NAME\n{name}")),
                "{name}:\n{page}"
            );
            assert_eq!(
                page.contains("Examples"),
                command.get_name() != "outboxd",
                "{name}"
            );
        });
        assert!(pages::page(&["nine".to_owned()]).is_err());
    }
}
