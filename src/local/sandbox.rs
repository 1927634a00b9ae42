//! A private directory and the one server that runs in it.
//!
//! Invariant: neither outlives the process that made the sandbox. Dropping it ends the server and
//! removes the directory. When the process ends without dropping it (a static, Ctrl-C, SIGKILL), a
//! small guard process does the same: it waits on a pipe whose other end only this process holds.
//! Unlike Linux's parent-death signal this needs no unsafe code, does not depend on the thread that
//! started the server, clears the directory as well, and works on every Unix.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How often an ending server is looked at.
const POLL: Duration = Duration::from_millis(10);

/// How long a server may take to end before it is killed. PostgreSQL itself gives its children
/// 5 s before it kills them in an immediate shutdown.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the guard runs, with the directory as `$1` and the signal's number as `$2`.
///
/// Each line it reads is the id of the server that now runs, empty when none does. The end of the
/// input means that the owner is gone. A zombie has ended, even where nobody collects it: the first
/// process of a container often does not.
const GUARD: &str = r#"
server=
runs() { kill -0 "$server" && ! grep -qs '^State:.*Z' "/proc/$server/status"; }
while read -r line; do server=$line; done
if [ -n "$server" ]; then
    kill -"$2" "$server"
    tries=0
    while runs && [ $((tries += 1)) -le 100 ]; do sleep 0.1; done
    kill -KILL "$server"
fi
rm -rf -- "$1"
"#;

/// An account that is not root, for servers that refuse to run as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// The account `nobody` if this process is root's, otherwise none: then servers run as
    /// whoever runs this process.
    pub fn unprivileged() -> io::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let user = Self::id("-u")?;
        let group = Self::id("-g")?;
        Ok(Some(Self { user, group }))
    }

    fn id(which: &str) -> io::Result<u32> {
        let output = Command::new("id").args([which, "nobody"]).output()?;
        let id = String::from_utf8_lossy(&output.stdout);
        id.trim()
            .parse()
            .map_err(|_| io::Error::other("this machine has no account named nobody"))
    }

    /// Makes `command` run as this account.
    pub fn runs(self, command: &mut Command) -> &mut Command {
        command.uid(self.user).gid(self.group)
    }
}

/// A temporary directory and at most one server process; both end with their owner.
#[derive(Debug)]
pub struct Sandbox {
    directory: PathBuf,
    account: Option<Account>,
    farewell: Signal,
    guard: Child,
    server: Option<Child>,
}

impl Sandbox {
    /// Makes an empty directory, owned by `account` if there is one, and its guard.
    ///
    /// `farewell` is the signal that ends the server quickly when the sandbox is dropped.
    pub fn create(name: &str, account: Option<Account>, farewell: Signal) -> io::Result<Self> {
        let unique = format!("outboxd-{name}-{:016x}", fastrand::u64(..));
        let directory = std::env::temp_dir().join(unique);
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let guard = guard(&directory, farewell).inspect_err(|_| {
            let _ = fs::remove_dir(&directory);
        })?;
        let sandbox = Self {
            directory,
            account,
            farewell,
            guard,
            server: None,
        };
        if let Some(Account { user, group }) = account {
            chown(&sandbox.directory, Some(user), Some(group))?;
        }
        Ok(sandbox)
    }

    /// The directory of the server.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file in the directory, for the account of the sandbox to read.
    pub fn write(&self, name: &str, content: &str) -> io::Result<()> {
        let path = self.directory.join(name);
        fs::write(&path, content)?;
        match self.account {
            Some(Account { user, group }) => chown(&path, Some(user), Some(group)),
            None => Ok(()),
        }
    }

    /// A command that runs `program` in the directory, as the account of the sandbox, without
    /// input and away from the terminal: Ctrl-C reaches this process, which decides what to stop.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .process_group(0);
        if let Some(account) = self.account {
            account.runs(&mut command);
        }
        command
    }

    /// Runs a program that prepares the directory, guarded as the server is, and waits for its end,
    /// at most for `patience`. What it writes is appended to `log` in the directory.
    ///
    /// Cancel safe: the program stays the sandbox's, and ends with it.
    pub async fn prepare(
        &mut self,
        command: Command,
        log: &str,
        patience: Duration,
    ) -> io::Result<ExitStatus> {
        self.run(command, log)?;
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.exit_status() {
                self.tell_guard("")?;
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.end(Signal::KILL, PATIENCE).await?;
                let message = format!("it did not end in {patience:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts the server, with what it writes appended to `log` in the directory.
    ///
    /// # Panics
    ///
    /// If a server runs already.
    pub fn run(&mut self, mut command: Command, log: &str) -> io::Result<()> {
        assert!(self.pid().is_none(), "a sandbox runs one server at a time");
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.directory.join(log))?;
        command.stdout(log.try_clone()?).stderr(log);
        let server = command.spawn()?;
        let pid = server.id();
        self.server = Some(server);
        self.tell_guard(&pid.to_string())
    }

    /// The process id of the server, if it runs.
    pub fn pid(&mut self) -> Option<u32> {
        match self.exit_status() {
            None => self.server.as_ref().map(Child::id),
            Some(_) => None,
        }
    }

    /// How the server ended, if it did since it was started.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.server.as_mut()?.try_wait().ok().flatten()
    }

    /// Sends the server a signal and waits for its end, at most for `patience`.
    ///
    /// A server that does not run has ended already. Cancel safe: the signal stays sent, and the
    /// server stays the sandbox's.
    pub async fn end(&mut self, signal: Signal, patience: Duration) -> io::Result<()> {
        self.signal(signal);
        let deadline = Instant::now() + patience;
        while self.pid().is_some() {
            if Instant::now() > deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("the server ignored {signal:?} for {patience:?}"),
                ));
            }
            tokio::time::sleep(POLL).await;
        }
        self.tell_guard("")
    }

    /// Sends a signal to the server, if it runs. Its end has not been seen, so the id is its own.
    fn signal(&mut self, signal: Signal) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    fn tell_guard(&mut self, server: &str) -> io::Result<()> {
        match &mut self.guard.stdin {
            Some(pipe) => pipe.write_all(format!("{server}\n").as_bytes()),
            None => Ok(()),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.signal(self.farewell);
        let deadline = Instant::now() + PATIENCE;
        while self.pid().is_some() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = self.tell_guard("");
        // The guard removes the directory when its input ends.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn guard(directory: &Path, farewell: Signal) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", GUARD, "outboxd-guard"])
        .arg(directory)
        .arg(farewell.as_raw().to_string())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Sandbox {
        let mut sandbox = Sandbox::create("sleeper", None, Signal::KILL).expect("a sandbox");
        let mut command = sandbox.command(Path::new("sleep"));
        command.arg("600");
        sandbox.run(command, "log").expect("starting sleep");
        sandbox
    }

    fn runs(pid: u32) -> bool {
        let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
        rustix::process::test_kill_process(pid).is_ok()
    }

    #[test]
    fn dropping_a_sandbox_ends_its_server_and_removes_its_directory() {
        let mut sandbox = sleeper();
        let pid = sandbox.pid().expect("the server runs");
        let directory = sandbox.directory().to_owned();
        assert!(runs(pid) && directory.is_dir());

        drop(sandbox);

        assert!(!runs(pid) && !directory.exists());
    }

    #[test]
    fn the_guard_ends_what_a_vanished_owner_left_behind() {
        let mut sandbox = sleeper();
        let directory = sandbox.directory().to_owned();

        // What the end of this process would do: the pipe closes, nobody is told anything.
        drop(sandbox.guard.stdin.take());

        let deadline = Instant::now() + PATIENCE;
        while sandbox.pid().is_some() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        let status = sandbox.exit_status().expect("the server has ended");
        assert!(!status.success());
        sandbox.guard.wait().expect("waiting for the guard");
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn a_server_that_has_ended_can_be_ended_again_and_replaced() {
        let mut sandbox = sleeper();

        for _ in 0..2 {
            let ended = sandbox.end(Signal::TERM, PATIENCE).await;
            ended.expect("ending the server");
            assert_eq!(sandbox.pid(), None);
        }

        let mut command = sandbox.command(Path::new("sleep"));
        command.arg("600");
        sandbox.run(command, "log").expect("starting it again");
        assert!(sandbox.pid().is_some());
    }
}
