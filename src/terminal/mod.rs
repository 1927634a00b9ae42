//! What `demo` and `status --watch` draw with.

mod figures;
mod panel;
mod screen;

use ratatui::style::{Color, Modifier, Style};

pub use figures::{counted, grouped, plain, short};
pub use panel::{Graph, PANEL_ROWS, Panel, draw_panel};
pub use screen::{Screen, Wish, can_be_drawn_on, restore};

/// Colors, or none (`NO_COLOR`, or a terminal that has none).
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    pub has_colors: bool,
}

/// The terminal, if there is one, does nothing but write.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term == "dumb")
}

impl Theme {
    /// As the environment asks for it.
    pub fn of_environment() -> Theme {
        let are_wished = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Theme {
            has_colors: are_wished && !is_dumb(),
        }
    }

    pub fn color(self, color: Color) -> Style {
        match self.has_colors {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    pub fn dim(self) -> Style {
        self.color(Color::DarkGray)
    }

    pub fn strong(self, color: Color) -> Style {
        self.color(color).add_modifier(Modifier::BOLD)
    }
}
