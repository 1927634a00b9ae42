//! `outboxd probe`

use anyhow::{Context, bail};
use clap::Args;

use super::{ConfigArgs, Exit};
use crate::status::ask::{get, reachable};

/// `outboxd probe`
#[derive(Debug, Args)]
pub struct ProbeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Ask whether it is ready (/readyz), not only whether it is alive (/livez)
    #[arg(long)]
    ready: bool,
}

/// Asks the admin port.
///
/// # Errors
/// When there is none, nobody answers there, or the answer is no: then with its reason.
pub fn run(args: &ProbeArgs) -> anyhow::Result<Exit> {
    let config = args.config.load_without_kafka()?;
    let listen = config.admin.listen;
    let address = listen.context("admin.listen is \"off\", so there is nobody to ask")?;
    let path = if args.ready { "/readyz" } else { "/livez" };
    let address = reachable(address).to_string();
    let answer = get(&address, path, config.admin.token.as_ref());
    let page = super::runtime()?.block_on(answer)?;
    match page.status {
        200 => Ok(Exit::Success),
        status => bail!("{path} answers {status}: {}", page.body.trim()),
    }
}
