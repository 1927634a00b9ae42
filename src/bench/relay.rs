//! The relay under test: `outboxd run` of this executable, in a process of its own.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;

use super::BenchError;
use super::workspace::Stage;
use crate::config::{Config, REDACTED};
use crate::secret::SecretError;

/// Lines of its log that are kept, to show when it ends by itself.
const LOG_LINES: usize = 10;

/// How long it may take until it owns its outbox.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long beyond its own deadline a clean stop may take.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Ticks of the CPU times in `/proc`: `USER_HZ`, which is part of Linux's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running relay. Dropping it kills it.
pub struct RelayProcess {
    child: Child,
    pid: Pid,
    log: Arc<Mutex<VecDeque<String>>>,
    reading: JoinHandle<()>,
    spawned_at: Instant,
    shutdown_deadline: Duration,
}

/// What a process has used since it was started, as Linux counts it.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub peak_memory_bytes: u64,
}

/// When a relay began to work.
#[derive(Debug, Clone, Copy)]
pub struct Owned {
    /// The lease was taken.
    pub at: Instant,
    /// From the start of the process to that.
    pub start_up: Duration,
}

impl RelayProcess {
    /// Starts a relay on the stage, and returns when it owns the outbox.
    ///
    /// # Errors
    /// When it cannot be started, or ends, or does not get the outbox.
    pub async fn start(stage: &mut Stage) -> Result<(RelayProcess, Owned), BenchError> {
        let mut relay = RelayProcess::spawn(&stage.config).await?;
        let lease = stage.config.relay.lease;
        let spawned_at = relay.spawned_at;
        let owned = relay
            .unless_it_ends(async {
                while spawned_at.elapsed() < START_DEADLINE {
                    let expired_for = stage.table.lease_expired_for(&mut stage.connection).await?;
                    let answered_at = Instant::now();
                    if let Some(seconds) = expired_for {
                        let ago = Duration::try_from_secs_f64(seconds + lease.as_secs_f64());
                        let at = answered_at - ago.unwrap_or_default();
                        let start_up = at.saturating_duration_since(spawned_at);
                        return Ok(Owned { at, start_up });
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Err(BenchError::Stalled {
                    awaited: "the relay to take its outbox".to_owned(),
                    seconds: START_DEADLINE.as_secs(),
                })
            })
            .await?;
        Ok((relay, owned))
    }

    /// The configuration goes through standard input and its secrets through the environment, so that
    /// neither shows in the list of processes.
    async fn spawn(config: &Config) -> Result<RelayProcess, BenchError> {
        let failed = || BenchError::process("starting the relay under test");
        let mut command = Command::new(std::env::current_exe().map_err(failed())?);
        command.args(["run", "--config", "/dev/stdin"]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OUTBOXD_") {
                command.env_remove(name);
            }
        }
        command.envs(secrets(config)?);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let spawned_at = Instant::now();
        let mut child = command.spawn().map_err(failed())?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid as i32));
        let pipes = child.stdin.take().zip(child.stderr.take());
        let (Some(pid), Some((mut stdin, stderr))) = (pid, pipes) else {
            return Err(failed()(std::io::Error::other("it has no id or no pipes")));
        };
        stdin
            .write_all(config.redacted_toml().as_bytes())
            .await
            .map_err(BenchError::process("handing the relay its configuration"))?;
        drop(stdin);
        let log = Arc::default();
        Ok(RelayProcess {
            child,
            pid,
            reading: tokio::spawn(keep_lines(stderr, Arc::clone(&log))),
            log,
            spawned_at,
            shutdown_deadline: config.relay.shutdown_deadline,
        })
    }

    /// Does `work`, unless the relay ends before it is done.
    ///
    /// # Errors
    /// The work's, or that the relay ended.
    pub async fn unless_it_ends<T>(
        &mut self,
        work: impl Future<Output = Result<T, BenchError>>,
    ) -> Result<T, BenchError> {
        let status = tokio::select! {
            biased;
            // 1. The relay has ended. `wait` loses nothing.
            status = self.child.wait() => status,
            // 2. The work is done; it is not used after it was given up.
            done = work => return done,
        };
        let status = status.map_err(BenchError::process("waiting for the relay under test"))?;
        // Its last words are in the pipe, which its end has closed.
        let _ = (&mut self.reading).await;
        let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let log = lines.iter().map(|line| format!("\n  {line}")).collect();
        Err(BenchError::RelayEnded { status, log })
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// When it is gone, or the system is not Linux.
    pub fn usage(&self) -> Result<Usage, BenchError> {
        let folder = format!("/proc/{}", self.pid);
        let read = |name: &str| {
            let path = Path::new(&folder).join(name);
            std::fs::read_to_string(&path)
                .map_err(BenchError::process(format!("reading {}", path.display())))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        let usage = parse_cpu(&stat).zip(parse_peak(&status));
        let (cpu_seconds, peak_memory_bytes) = usage.ok_or_else(|| {
            BenchError::process(format!("reading {folder}"))(std::io::ErrorKind::InvalidData.into())
        })?;
        Ok(Usage {
            cpu_seconds,
            peak_memory_bytes,
        })
    }

    /// Stops it as an operator does; true if it said that it settled everything.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub async fn stop(mut self) -> Result<bool, BenchError> {
        let failed = || BenchError::process("stopping the relay under test");
        kill_process(self.pid, Signal::TERM).map_err(|errno| failed()(errno.into()))?;
        let deadline = self.shutdown_deadline + STOP_GRACE;
        match tokio::time::timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status.map_err(failed())?.success()),
            Err(_) => Err(failed()(std::io::ErrorKind::TimedOut.into())),
        }
    }
}

/// The options that [`Config::redacted_toml`] does not show, as variables.
fn secrets(config: &Config) -> Result<Vec<(String, String)>, SecretError> {
    let mut secrets = vec![(
        "OUTBOXD_POSTGRES__URL".to_owned(),
        config.postgres.url.expose(),
    )];
    if let Some(url) = &config.postgres.direct_url {
        secrets.push(("OUTBOXD_POSTGRES__DIRECT_URL".to_owned(), url.expose()));
    }
    if let Some(token) = &config.admin.token {
        let token = token.expose().to_owned();
        secrets.push(("OUTBOXD_ADMIN__TOKEN".to_owned(), token));
    }
    if let Some(oauth) = &config.kafka.oauth {
        let secret = oauth.client_secret.current()?;
        secrets.push(("OUTBOXD_KAFKA__OAUTH__CLIENT_SECRET".to_owned(), secret));
    }
    let properties = &config.kafka.properties;
    for (name, shown) in properties.redacted() {
        if let (REDACTED, Some(value)) = (shown, properties.get(name)) {
            let name = name.to_ascii_uppercase().replace('.', "_");
            secrets.push((
                format!("OUTBOXD_KAFKA__PROPERTIES__{name}"),
                value.to_owned(),
            ));
        }
    }
    Ok(secrets)
}

async fn keep_lines(stderr: ChildStderr, log: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_LINES {
            log.pop_front();
        }
        log.push_back(line);
    }
}

/// `utime` and `stime`, fields 14 and 15 of `/proc/PID/stat` (proc_pid_stat(5)). The second field is the
/// program's name in parentheses, which may hold anything.
fn parse_cpu(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// `VmHWM` of `/proc/PID/status`, the most memory that was resident at a time.
fn parse_peak(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_times_are_found_behind_any_program_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 9 0";
        assert_eq!(parse_cpu(stat), Some(2.0));
        assert_eq!(parse_cpu("7 (x) S 1"), None);
    }

    #[test]
    fn the_peak_of_memory_is_read_in_bytes() {
        let status = "Name:\toutboxd\nVmPeak:\t  900 kB\nVmHWM:\t   21 kB\nVmRSS:\t 20 kB\n";
        assert_eq!(parse_peak(status), Some(21 * 1024));
        assert_eq!(parse_peak("Name:\tkthreadd\n"), None);
    }
}
