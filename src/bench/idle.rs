//! `bench idle`: what waiting for events costs.

use std::time::{Duration, Instant};

use super::BenchError;
use super::relay::RelayProcess;
use super::report::IdleReport;
use super::workspace::Workspace;

/// How long to wait.
#[derive(Debug, Clone)]
pub struct IdleOptions {
    pub duration: Duration,
}

/// From owning the outbox until the polls have backed off and the first connections are made.
const WARM_UP: Duration = Duration::from_secs(3);

/// Watches a relay on an empty outbox.
///
/// # Errors
/// When something could not be measured.
pub async fn idle(workspace: &Workspace, options: &IdleOptions) -> Result<IdleReport, BenchError> {
    let mut stage = workspace.stage().await?;
    let (mut relay, _) = RelayProcess::start(&mut stage).await?;
    let wait = |time| async move {
        tokio::time::sleep(time).await;
        Ok(())
    };
    relay.unless_it_ends(wait(WARM_UP)).await?;
    let before = relay.usage()?;
    let started = Instant::now();
    relay.unless_it_ends(wait(options.duration)).await?;
    let after = relay.usage()?;
    let seconds = started.elapsed().as_secs_f64();
    let clean_stop = relay.stop().await?;
    Ok(IdleReport {
        seconds,
        poll_interval_ms: stage.outbox.poll_interval.as_secs_f64() * 1e3,
        cpu_percent: 100.0 * (after.cpu_seconds - before.cpu_seconds) / seconds,
        peak_memory_bytes: after.peak_memory_bytes,
        clean_stop,
    })
}
