//! Signals: the first asks the demo to end, the second ends the process at once.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Exit status of a process that a second signal ended (128 + SIGINT, as shells count).
const INTERRUPTED: i32 = 130;

/// Asks for the end, from anywhere.
#[derive(Debug, Clone)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    /// Asked by SIGINT, SIGTERM, and SIGHUP (the terminal was closed).
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signal() -> io::Result<Stop> {
        let stop = Stop(Arc::new(watch::Sender::new(false)));
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let asked = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // Receiving a signal keeps nothing that matters: each only counts.
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                asked.ask();
            }
        });
        Ok(stop)
    }

    /// The first call asks; the second ends the process. The guard of the local Postgres ends that as
    /// well, and removes its directory.
    pub fn ask(&self) {
        if self.0.send_replace(true) {
            crate::terminal::restore();
            std::process::exit(INTERRUPTED);
        }
    }

    /// Waits until somebody asks. Cancel-safe: it is a flag.
    pub async fn asked(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.subscribe().wait_for(|asked| *asked).await;
    }
}
