//! `outboxd migrate`

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::{ConfigArgs, Exit, arguments};
use crate::config::{Config, Pooler};
use crate::db::migrate::{Applied, Plan};
use crate::db::{Database, Roles};

/// `outboxd migrate`
#[derive(Debug, Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the SQL for a fresh database instead of applying it
    #[arg(long)]
    print: bool,
    /// The consumer's side instead: processed_events and its functions, in a consumer's database
    #[arg(long)]
    inbox: bool,
    /// Make the index that `outboxd trace` looks correlation ids up by, too: writers go on meanwhile, and each
    /// insert and each mark has an index more to write
    #[arg(long, conflicts_with = "inbox")]
    trace_index: bool,
    /// Grant this role what the relay needs [with --print: outboxd_relay]
    #[arg(long, value_name = "ROLE", value_parser = arguments::role, conflicts_with = "inbox")]
    relay_role: Option<String>,
    /// Grant this role the right to insert events, and nothing else [with --print: outboxd_app]
    #[arg(long, value_name = "ROLE", value_parser = arguments::role, conflicts_with = "inbox")]
    app_role: Option<String>,
    /// Grant this role what a consumer needs to claim events [with --inbox --print: outboxd_consumer]
    #[arg(long, value_name = "ROLE", value_parser = arguments::role, requires = "inbox")]
    consumer_role: Option<String>,
    /// Grant this role what `outboxd inbox` needs [with --inbox --print: outboxd_maintenance]
    #[arg(long, value_name = "ROLE", value_parser = arguments::role, requires = "inbox")]
    maintenance_role: Option<String>,
    /// Print JSON: which steps were missing
    #[arg(long, conflicts_with = "print")]
    json: bool,
}

impl MigrateArgs {
    fn plan(&self, config: &Config) -> Plan {
        let named = |role: &Option<String>, used: bool, default: &str| {
            let print = (self.print && used).then(|| default.to_owned());
            role.clone().or(print)
        };
        let plan = match self.inbox {
            true => Plan::of_inbox(config),
            false => Plan::of(config),
        };
        Plan {
            trace_index: self.trace_index,
            roles: Roles {
                relay: named(&self.relay_role, !self.inbox, "outboxd_relay"),
                app: named(&self.app_role, !self.inbox, "outboxd_app"),
                consumer: named(&self.consumer_role, self.inbox, "outboxd_consumer"),
                maintenance: named(&self.maintenance_role, self.inbox, "outboxd_maintenance"),
            },
            ..plan
        }
    }
}

/// Applies or prints the migrations.
///
/// # Errors
/// When the configuration is wrong or Postgres refuses a step.
pub fn run(args: &MigrateArgs) -> anyhow::Result<Exit> {
    let mut sources = args.config.clone();
    if args.print && sources.postgres_url.is_none() {
        // Printing connects to nothing.
        let unused = ("postgres.url".to_owned(), "postgres://unused".to_owned());
        sources.options.insert(0, unused);
    }
    let config = sources.load_without_kafka()?;
    let plan = args.plan(&config);
    if args.print {
        // A closed pipe (`| head`) is no failure.
        let _ = std::io::stdout().write_all(plan.print().as_bytes());
        return Ok(Exit::Success);
    }
    if config.postgres.pooler == Pooler::Transaction && config.postgres.direct_url.is_none() {
        anyhow::bail!(
            "postgres.direct_url: must be set for migrate when postgres.pooler is \"transaction\": \
             migrations need a session, which a pooler in transaction mode does not give"
        );
    }
    let applied = super::runtime()?.block_on(apply(&config, &plan))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let applied: Vec<Value> = applied.iter().map(json).collect();
        let _ = writeln!(out, "{:#}", json!({"applied": applied}));
        return Ok(Exit::Success);
    }
    if applied.is_empty() {
        let _ = writeln!(out, "the schema is up to date");
    }
    for step in applied {
        let _ = writeln!(out, "applied {step}");
    }
    Ok(Exit::Success)
}

async fn apply(config: &Config, plan: &Plan) -> anyhow::Result<Vec<Applied>> {
    let mut connection = Database::new(&config.postgres)?
        .connect_direct("migrate")
        .await?;
    Ok(plan.apply(&mut connection).await?)
}

fn json(step: &Applied) -> Value {
    json!({"component": step.component, "version": step.version, "name": step.name})
}
