//! The relay as a process: start, kill, stop, freeze, and what it logged.

use std::path::Path;
use std::process::Command;

use std::time::{Duration, Instant};

use outboxd::local::Sandbox;
use rustix::process::{Pid, Signal, kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_outboxd");
const LOG: &str = "relay.log";

/// Names a defect for the relay to have.
const FAULT: &str = "OUTBOXD_FAULT";

/// What a relay logs when the outbox is its own.
pub const OWNS: &str = "owning the outbox";

/// How long a clean stop may take: the relay's own deadline is 20 s, and the machine is shared.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// How long anything of the log may take to appear: it only bounds a hang.
const LOG_PATIENCE: Duration = Duration::from_secs(60);

/// One place to run outboxd in, with its settings. Its log goes on over restarts, and is printed if the
/// test fails.
#[derive(Debug)]
pub struct Relay {
    name: &'static str,
    sandbox: Sandbox,
    settings: Vec<(String, String)>,
    variables: Vec<(String, String)>,
}

impl Relay {
    /// `settings` are options and their values, as for `--set`.
    pub fn new(name: &'static str, settings: Vec<(String, String)>) -> Relay {
        Relay {
            name,
            sandbox: Sandbox::create(name, None, Signal::KILL).expect("a directory for the relay"),
            settings,
            variables: Vec::new(),
        }
    }

    /// Has a defect at one row from the next start on, as `OUTBOXD_FAULT` says; or none any more.
    pub fn set_fault(&mut self, fault: Option<String>) {
        self.variables.retain(|(name, _)| name != FAULT);
        self.variables
            .extend(fault.map(|fault| (FAULT.to_owned(), fault)));
    }

    /// Sets a variable of its environment, from the next start on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Leaves an option to its environment or its default, from the next start on.
    pub fn unset(&mut self, option: &str) {
        self.settings.retain(|(name, _)| name != option);
    }

    /// Changes an option, from the next start on.
    pub fn set(&mut self, option: &str, value: &str) {
        self.settings.push((option.to_owned(), value.to_owned()));
    }

    /// Runs `outboxd migrate` to its end.
    pub async fn migrate(&mut self) {
        self.spawn("migrate", &[]);
        let status = self.wait(STOP_PATIENCE).await;
        assert_eq!(status, Some(0), "outboxd migrate failed");
    }

    /// As [`migrate`](Self::migrate), with what a relay of this role needs.
    pub async fn migrate_for(&mut self, role: &str) {
        self.spawn("migrate", &["--relay-role", role]);
        let status = self.wait(STOP_PATIENCE).await;
        assert_eq!(status, Some(0), "outboxd migrate failed");
    }

    /// Runs `outboxd migrate --inbox` to its end.
    pub async fn migrate_inbox(&mut self) {
        self.spawn("migrate", &["--inbox"]);
        let status = self.wait(STOP_PATIENCE).await;
        assert_eq!(status, Some(0), "outboxd migrate --inbox failed");
    }

    /// Starts `outboxd run`.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts `outboxd run` with these arguments.
    pub fn start_with(&mut self, arguments: &[&str]) {
        self.spawn("run", arguments);
    }

    /// Another command of the program with the same settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = super::command::command(arguments);
        command.envs(self.variables.iter().cloned());
        for (option, value) in &self.settings {
            command.arg("--set").arg(format!("{option}={value}"));
        }
        command
    }

    /// SIGTERM, whatever comes of it.
    pub fn terminate(&mut self) {
        self.assert_running();
        self.signal(Signal::TERM);
    }

    /// SIGKILL: what a crash or the kernel's out-of-memory killer does.
    pub async fn kill(&mut self) {
        self.assert_running();
        let killed = self.sandbox.end(Signal::KILL, STOP_PATIENCE).await;
        killed.expect("killing the relay");
    }

    /// SIGTERM, and exit status 0 within the deadline.
    pub async fn stop(&mut self) {
        self.assert_running();
        self.signal(Signal::TERM);
        let status = self.wait(STOP_PATIENCE).await;
        assert_eq!(status, Some(0), "{}: a clean stop exits with 0", self.name);
    }

    /// SIGSTOP: what a paused virtual machine does.
    pub fn freeze(&mut self) {
        self.assert_running();
        self.signal(Signal::STOP);
    }

    /// SIGCONT after [`Relay::freeze`].
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Waits for the end of the process; its exit status, none if a signal ended it.
    pub async fn wait(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.sandbox.exit_status() {
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "{}: did not end in {patience:?}",
                self.name
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.sandbox.exit_status().is_some()
    }

    /// The most memory that was resident since its start, in MiB.
    pub fn peak_memory_mib(&mut self) -> f64 {
        let pid = self.sandbox.pid().expect("the relay runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kib.expect("its peak of memory") / 1024.0
    }

    /// Panics when the process has ended by itself.
    pub fn assert_running(&mut self) {
        let status = self.sandbox.exit_status();
        assert!(status.is_none(), "{}: ended with {status:?}", self.name);
    }

    /// Everything it has logged, one JSON object a line.
    pub fn log(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.sandbox.directory().join(LOG));
        log.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// How many lines of the log contain `text`.
    pub fn logged(&self, text: &str) -> usize {
        self.log().iter().filter(|line| line.contains(text)).count()
    }

    /// Waits until the log has more than `before` lines with `text`.
    pub async fn logs_more(&mut self, text: &str, before: usize) {
        let deadline = Instant::now() + LOG_PATIENCE;
        while self.logged(text) <= before {
            self.assert_running();
            assert!(
                Instant::now() < deadline,
                "{}: never logged {text:?}",
                self.name
            );
            tokio::time::sleep(POLL).await;
        }
    }

    fn spawn(&mut self, verb: &str, arguments: &[&str]) {
        let mut command = self.sandbox.command(Path::new(PROGRAM));
        for (name, _) in std::env::vars_os() {
            // A configuration of whoever runs the tests is not the tests'.
            if name.to_string_lossy().starts_with("OUTBOXD_") {
                command.env_remove(name);
            }
        }
        command.envs(self.variables.iter().cloned());
        command.arg(verb).args(arguments);
        for (option, value) in &self.settings {
            command.arg("--set").arg(format!("{option}={value}"));
        }
        self.sandbox.run(command, LOG).expect("starting the relay");
    }

    fn signal(&mut self, signal: Signal) {
        let pid = self
            .sandbox
            .pid()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.expect("the relay runs");
        kill_process(pid, signal).expect("sending the relay a signal");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let skipped = log.len().saturating_sub(60);
            eprintln!("--- the last lines of the log of {}:", self.name);
            for line in &log[skipped..] {
                eprintln!("{line}");
            }
        }
    }
}
