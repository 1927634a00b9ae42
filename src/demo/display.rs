//! Where the demo is shown: a screen that is drawn again and again, or plain lines.

use std::io::{self, Write};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use super::hints::Hints;
use super::log::DemoLog;
use super::view::{self, Snapshot};
use crate::terminal::{self, Screen, Theme, Wish};

/// How often the screen is drawn: smooth for the eye, and next to nothing for the processor.
const FRAME: Duration = Duration::from_millis(100);

/// How often a plain line is written.
const LINE: Duration = Duration::from_secs(1);

/// The demo's output.
pub struct Display {
    log: DemoLog,
    theme: Theme,
    is_terminal: bool,
    screen: Option<(Screen, Hints)>,
    timer: Interval,
    /// Standard output is gone (`| head`): nothing more is written, and nothing is said about it.
    is_closed: bool,
}

impl Display {
    pub fn new(log: DemoLog) -> Display {
        Display {
            log,
            theme: Theme::of_environment(),
            is_terminal: terminal::can_be_drawn_on(),
            screen: None,
            timer: timer(LINE),
            is_closed: false,
        }
    }

    /// Writes a line that stays, while no screen is open.
    pub fn say(&mut self, line: &str) {
        let mut out = io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            self.is_closed = true;
        }
    }

    /// Takes the screen, on a terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn open(&mut self, hints: &Hints) -> io::Result<()> {
        if self.is_terminal {
            self.log.keep(true);
            self.screen = Some((Screen::open()?, hints.clone()));
            self.timer = timer(FRAME);
        } else {
            self.timer = timer(LINE);
        }
        Ok(())
    }

    /// Waits for the next time to show something. Cancel-safe: a timer keeps its beat.
    pub async fn tick(&mut self) {
        self.timer.tick().await;
    }

    /// Shows how it stands, and says what the one who watches wants.
    pub fn show(&mut self, snapshot: &Snapshot) -> Wish {
        match &mut self.screen {
            Some((screen, hints)) => {
                let log = self.log.last();
                let view = view::View {
                    snapshot,
                    hints,
                    log: log.as_deref(),
                    theme: self.theme,
                };
                screen.draw(|frame| view.render(frame))
            }
            None => {
                self.say(&view::plain_line(snapshot));
                match self.is_closed {
                    true => Wish::Stop,
                    false => Wish::GoOn,
                }
            }
        }
    }

    /// Gives the screen back.
    pub fn close(&mut self) {
        self.screen = None;
        self.log.keep(false);
    }

    /// The last words.
    pub fn sum_up(&mut self, snapshot: &Snapshot, faults: &[String]) {
        self.say(&view::summary(snapshot));
        for fault in faults {
            eprintln!("outboxd: {fault}");
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.close();
    }
}

fn timer(period: Duration) -> Interval {
    let mut timer = tokio::time::interval(period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
    timer
}
