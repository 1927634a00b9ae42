//! SIGTERM and Ctrl-C: the first asks for a clean stop, the second ends the process.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Exit status of a process that a second signal ended (128 + SIGINT, as shells count).
const INTERRUPTED: i32 = 130;

/// Becomes true with the first signal.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signal() -> std::io::Result<watch::Receiver<bool>> {
    let (stop, stopping) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for attempt in 0.. {
            tokio::select! {
                // Receiving a signal keeps nothing that matters: each only counts.
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if attempt > 0 {
                tracing::warn!("second signal, exiting at once");
                std::process::exit(INTERRUPTED);
            }
            tracing::info!("stopping: waiting for what is in flight");
            // With nobody listening there is nothing to stop.
            let _ = stop.send(true);
        }
    });
    Ok(stopping)
}
