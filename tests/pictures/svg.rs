//! A terminal's screen as SVG: dark on a page of either colour.
//!
//! Every run of characters is given its place and its width, and the bars of graphs are drawn, so that whatever font
//! the reader's machine has, columns stay columns. (`anstyle-svg` lays out line by line, and graphs drift apart
//! where a font lacks their characters.)

use std::fmt::Write;

use vt100::{Cell, Color, Screen};

/// Pixels of a character and of the border.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 17.0;
const BORDER: f64 = 14.0;
/// From the top of a line to what its letters stand on.
const BASE: f64 = 13.0;

const BACKGROUND: &str = "#161b22";
const FOREGROUND: &str = "#d0d7de";

/// Black, red, green, yellow, blue, magenta, cyan, white; then the bright ones.
const PALETTE: [&str; 16] = [
    "#484f58", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#b1bac4",
    "#6e7681", "#ffa198", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#f0f6fc",
];

/// What the screen shows.
pub fn of(screen: &Screen) -> String {
    let (rows, columns) = screen.size();
    let (rows, columns) = (rows.get(), columns.get());
    let width = f64::from(columns) * WIDTH + 2.0 * BORDER;
    let height = f64::from(rows) * HEIGHT + 2.0 * BORDER;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" fill=\"{FOREGROUND}\" font-size=\"14\" font-family=\"ui-monospace, \
         SFMono-Regular, Menlo, Consolas, 'Liberation Mono', 'DejaVu Sans Mono', monospace\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n"
    );
    for row in 0..rows {
        let mut column = 0;
        while let Some(run) = Run::at(screen, row, column) {
            column += run.columns;
            run.draw(&mut svg);
        }
    }
    svg + "</svg>\n"
}

/// Neighbours in a line that look alike.
struct Run {
    row: u16,
    column: u16,
    columns: u16,
    style: String,
    /// How many eighths of the line's height are filled, of the characters of graphs.
    bar: Option<u32>,
    text: String,
}

impl Run {
    fn at(screen: &Screen, row: u16, column: u16) -> Option<Run> {
        let first = screen.cell(row, column)?;
        let mut run = Run {
            row,
            column,
            columns: 0,
            style: style(first),
            bar: bar(first),
            text: String::new(),
        };
        while let Some(cell) = screen.cell(row, column + run.columns) {
            if style(cell) != run.style || bar(cell) != run.bar {
                break;
            }
            let contents = cell.contents();
            run.text
                .push_str(if contents.is_empty() { " " } else { contents });
            run.columns += 1;
        }
        Some(run)
    }

    fn draw(&self, svg: &mut String) {
        let style = &self.style;
        let text = self.text.trim();
        if text.is_empty() {
            return;
        }
        let blanks = self.text.chars().take_while(|c| *c == ' ').count();
        let x = BORDER + (f64::from(self.column) + blanks as f64) * WIDTH;
        let y = BORDER + f64::from(self.row) * HEIGHT;
        let width = text.chars().count() as f64 * WIDTH;
        let _ = match self.bar {
            Some(eighths) => {
                let height = HEIGHT * f64::from(eighths) / 8.0;
                let y = y + HEIGHT - height;
                writeln!(
                    svg,
                    r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"{style}/>"#
                )
            }
            None => {
                // Blanks that no renderer takes for one.
                let text = text.replace(' ', "\u{a0}");
                let text = text.replace('&', "&amp;").replace('<', "&lt;");
                let y = y + BASE;
                writeln!(
                    svg,
                    r#"<text x="{x:.1}" y="{y:.1}" textLength="{width:.1}"{style}>{text}</text>"#
                )
            }
        };
    }
}

fn style(cell: &Cell) -> String {
    let mut style = match cell.fgcolor() {
        Color::Default => String::new(),
        Color::Idx(index) => format!(r#" fill="{}""#, PALETTE[usize::from(index)]),
        Color::Rgb(r, g, b) => format!(r##" fill="#{r:02x}{g:02x}{b:02x}""##),
    };
    if cell.bold() {
        style.push_str(r#" font-weight="bold""#);
    }
    style
}

/// U+2581 to U+2588, from one eighth to all of them.
fn bar(cell: &Cell) -> Option<u32> {
    let bar = u32::from(cell.contents().chars().next()?);
    (0x2581..=0x2588).contains(&bar).then(|| bar - 0x2580)
}
