//! The whole terminal, drawn on again and again.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, Frame};

use super::is_dumb;

/// Whether the terminal is in our hands.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// What the one who watches wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    GoOn,
    Stop,
}

/// Whether there is a terminal to draw on. One in name only (a pipe from it, or `dumb`) is none.
pub fn can_be_drawn_on() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal() && !is_dumb()
}

/// The terminal, given back when it is dropped.
pub struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it refuses.
    pub fn open() -> io::Result<Screen> {
        IS_OPEN.store(true, Ordering::SeqCst);
        // Its panic hook gives the terminal back before the message is written.
        let terminal = ratatui::try_init().inspect_err(|_| restore())?;
        Ok(Screen { terminal })
    }

    /// Draws, and says what the one who watches wants.
    pub fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> Wish {
        let drawn = self.terminal.draw(render);
        match drawn.and_then(|_| wish()) {
            Ok(wish) => wish,
            // The terminal is gone.
            Err(_) => Wish::Stop,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back if it is in our hands.
pub fn restore() {
    if IS_OPEN.swap(false, Ordering::SeqCst) {
        // Best effort: the terminal may be gone.
        let _ = ratatui::try_restore();
    }
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
