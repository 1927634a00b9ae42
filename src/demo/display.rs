//! Where the demo is shown: a screen that is drawn again and again, or plain lines.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::time::{Interval, MissedTickBehavior};

use super::hints::Hints;
use super::log::DemoLog;
use super::view::{self, Snapshot, Theme};

/// How often the screen is drawn: smooth for the eye, and next to nothing for the processor.
const FRAME: Duration = Duration::from_millis(100);

/// How often a plain line is written.
const LINE: Duration = Duration::from_secs(1);

/// Whether the terminal is in our hands.
static SCREEN_IS_OPEN: AtomicBool = AtomicBool::new(false);

/// What the one who watches wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    GoOn,
    Stop,
}

/// The demo's output.
pub struct Display {
    log: DemoLog,
    theme: Theme,
    is_terminal: bool,
    screen: Option<Screen>,
    timer: Interval,
    /// Standard output is gone (`| head`): nothing more is written, and nothing is said about it.
    is_closed: bool,
}

struct Screen {
    terminal: DefaultTerminal,
    hints: Hints,
}

impl Display {
    pub fn new(log: DemoLog) -> Display {
        // A terminal in name only (a pipe from it, or `dumb`) cannot be drawn on.
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_terminal = io::stdout().is_terminal() && io::stdin().is_terminal() && !is_dumb;
        let has_colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Display {
            log,
            theme: Theme { has_colors },
            is_terminal,
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
            SCREEN_IS_OPEN.store(true, Ordering::SeqCst);
            // Its panic hook gives the terminal back before the message is written.
            let terminal = ratatui::try_init().inspect_err(|_| restore_terminal())?;
            self.screen = Some(Screen {
                terminal,
                hints: hints.clone(),
            });
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
            Some(screen) => {
                let log = self.log.last();
                let view = view::View {
                    snapshot,
                    hints: &screen.hints,
                    log: log.as_deref(),
                    theme: self.theme,
                };
                let drawn = screen.terminal.draw(|frame| view.render(frame));
                match drawn.and_then(|_| wish()) {
                    Ok(wish) => wish,
                    // The terminal is gone.
                    Err(_) => Wish::Stop,
                }
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
        if self.screen.take().is_some() {
            restore_terminal();
        }
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

/// Gives the terminal back if the screen is open.
pub fn restore_terminal() {
    if SCREEN_IS_OPEN.swap(false, Ordering::SeqCst) {
        // Best effort: the terminal may be gone.
        let _ = ratatui::try_restore();
    }
}

fn timer(period: Duration) -> Interval {
    let mut timer = tokio::time::interval(period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
    timer
}

/// What was typed since the last time. In raw mode Ctrl-C is a key.
fn wish() -> io::Result<Wish> {
    let mut wish = Wish::GoOn;
    while event::poll(Duration::ZERO)? {
        let Event::Key(key) = event::read()? else {
            continue;
        };
        let interrupts =
            key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        let quits = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
        if key.kind == KeyEventKind::Press && (interrupts || quits) {
            wish = Wish::Stop;
        }
    }
    Ok(wish)
}
