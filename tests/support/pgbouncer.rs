//! A throwaway PgBouncer in transaction mode, on 127.0.0.1.
//!
//! The program is `OUTBOXD_TEST_PGBOUNCER`, or an installed one, or Debian's package unpacked
//! without being installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use outboxd::local::{Account, Sandbox, cache, free_port, last_lines};
use rustix::process::Signal;
use tokio::net::TcpStream;

use super::program;
use super::provider::variable;

const VARIABLE: &str = "OUTBOXD_TEST_PGBOUNCER";
const CONFIGURATION: &str = "pgbouncer.ini";
const LOG: &str = "pgbouncer.log";

/// How many connections to the server all clients share. Two, so that a session is lost and
/// found again between any two transactions.
const POOL_SIZE: u32 = 2;

/// How often a starting PgBouncer is looked at.
const POLL: Duration = Duration::from_millis(10);

/// How long it may take to listen, which is a matter of milliseconds.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// A PgBouncer before one PostgreSQL server, with its own settings but for the pool mode: it
/// refuses the same start-up parameters as the one in production. It ends with this value.
#[derive(Debug)]
pub struct PgBouncer {
    sandbox: Sandbox,
    port: u16,
}

impl PgBouncer {
    /// Starts it before the server that listens on this port of 127.0.0.1 and trusts `postgres`.
    ///
    /// # Panics
    ///
    /// With one line that says what to install, if there is no PgBouncer to be had.
    pub async fn start(server_port: u16) -> Self {
        Self::start_with(server_port, "").await
    }

    /// As [`start`](Self::start), with these lines more in its configuration.
    pub async fn start_with(server_port: u16, settings: &str) -> Self {
        match Self::try_start(server_port, settings).await {
            Ok(bouncer) => bouncer,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// The connection URL of `database` through the pooler.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    async fn try_start(server_port: u16, settings: &str) -> Result<Self> {
        let installation = Installation::find().await?;
        let port = free_port()?;
        let mut sandbox = Sandbox::create("pgbouncer", Account::unprivileged()?, Signal::QUIT)
            .context("making a directory for PgBouncer")?;
        let configuration = format!(
            "[databases]\n\
             * = host=127.0.0.1 port={server_port} user=postgres\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             pool_mode = transaction\n\
             default_pool_size = {POOL_SIZE}\n\
             max_client_conn = 500\n\
             {settings}\n"
        );
        sandbox.write(CONFIGURATION, &configuration)?;
        let mut command = sandbox.command(&installation.program);
        command.arg(CONFIGURATION);
        command.env("LD_LIBRARY_PATH", &installation.libraries);
        sandbox.run(command, LOG).context("starting PgBouncer")?;
        let mut bouncer = Self { sandbox, port };
        bouncer.listening().await?;
        Ok(bouncer)
    }

    async fn listening(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let log = last_lines(&self.sandbox.directory().join(LOG), 20);
            if let Some(status) = self.sandbox.exit_status() {
                bail!("PgBouncer ended with {status} while starting:\n{log}");
            }
            ensure!(
                Instant::now() < deadline,
                "PgBouncer does not listen after {START_PATIENCE:?}:\n{log}"
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// The program and the folder of the libraries that this machine lacks.
struct Installation {
    program: PathBuf,
    libraries: PathBuf,
}

impl Installation {
    async fn find() -> Result<Self> {
        let named = variable(VARIABLE).map(PathBuf::from);
        let packaged = || Some(PathBuf::from("/usr/sbin/pgbouncer")).filter(|file| file.is_file());
        let installed = named
            .or_else(|| program("pgbouncer"))
            .or_else(packaged)
            .map(|program| Self {
                program,
                libraries: PathBuf::new(),
            });
        match installed {
            Some(installed) => Ok(installed),
            None => Self::unpacked().await.with_context(|| {
                format!("no PgBouncer for the tests: install pgbouncer, or set {VARIABLE} to one")
            }),
        }
    }

    async fn unpacked() -> Result<Self> {
        let entry = cache::entry("pgbouncer", async |folder: &Path| {
            let folder = folder.to_owned();
            tokio::task::spawn_blocking(move || unpack(&folder)).await?
        })
        .await?;
        let mut folders = fs::read_dir(entry.join("usr/lib"))?.flatten();
        Ok(Self {
            program: entry.join("usr/sbin/pgbouncer"),
            libraries: folders
                .find(is_triplet)
                .map(|folder| folder.path())
                .unwrap_or_default(),
        })
    }
}

/// Whether a folder of `usr/lib` is that of the machine's libraries, as `x86_64-linux-gnu`.
fn is_triplet(folder: &fs::DirEntry) -> bool {
    folder.file_name().to_string_lossy().contains("-linux-")
}

/// Downloads PgBouncer's package and those of the libraries it needs and this machine lacks, and
/// unpacks them all.
fn unpack(folder: &Path) -> Result<()> {
    let download = |package: &str| {
        let mut command = Command::new("apt-get");
        run(command.args(["download", package]).current_dir(folder))
    };
    if download("pgbouncer").is_err() {
        run(Command::new("apt-get").arg("update"))?;
        download("pgbouncer")?;
    }
    let depends = run(Command::new("apt-cache").args(["depends", "pgbouncer"]))?;
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    for library in libraries(&depends) {
        if run(Command::new("dpkg").args(["--status", library])).is_err() {
            download(library)?;
        }
    }
    for file in fs::read_dir(folder)?.flatten() {
        let file = file.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg").arg("--extract").arg(&file).arg(folder))?;
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// The libraries in the answer of `apt-cache depends`.
fn libraries(depends: &str) -> impl Iterator<Item = &str> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|package| package.starts_with("lib"))
}

fn run(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("running {name}"))?;
    ensure!(
        output.status.success(),
        "{name} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_package_s_dependencies_only_the_libraries_are_fetched() {
        let depends = "pgbouncer\n  PreDepends: init-system-helpers\n  Depends: lsb-base\n    \
                       sysvinit-utils\n  Depends: libc-ares2\n  Suggests: libfoo\n";
        assert_eq!(libraries(depends).collect::<Vec<_>>(), ["libc-ares2"]);
    }
}
