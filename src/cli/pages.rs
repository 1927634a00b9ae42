//! `outboxd completions` and `outboxd man`

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Exit, WrongArgument};

/// `outboxd completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// `outboxd man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Print the page of this command [default: of outboxd]
    #[arg(value_name = "COMMAND")]
    path: Vec<String>,
}

/// Prints what the shell is to be given.
pub fn completions(args: &CompletionsArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "outboxd", &mut script);
    // A closed pipe (`| head`) is no failure, here and below.
    let _ = std::io::stdout().write_all(&script);
    Exit::Success
}

/// Prints a page for `man`.
///
/// # Errors
/// When there is no such command.
pub fn man(args: &ManArgs) -> anyhow::Result<Exit> {
    let page = page(&args.path)?;
    let _ = std::io::stdout().write_all(page.as_bytes());
    Ok(Exit::Success)
}

/// The page of the command at this path.
///
/// # Errors
/// When there is none.
pub fn page(path: &[String]) -> anyhow::Result<String> {
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    for name in path {
        command = command.find_subcommand(name).ok_or_else(|| WrongArgument {
            argument: "COMMAND",
            rule: format!("must be one of outboxd's, is {}", path.join(" ")),
        })?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    Ok(String::from_utf8(page)?)
}
