//! A number with its graph in a frame.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Color;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, RenderDirection, Sparkline};

use super::Theme;

/// Rows of a panel with its borders.
pub const PANEL_ROWS: u16 = 6;

/// A graph and its rate.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// The newest last.
    pub bars: Vec<u64>,
    pub per_second: f64,
}

/// What stands in a frame.
#[derive(Debug)]
pub struct Panel<'a> {
    pub title: String,
    pub count: String,
    pub unit: &'static str,
    pub graph: &'a Graph,
    pub color: Color,
    pub rest: Vec<Span<'static>>,
}

/// Draws it.
pub fn draw_panel(theme: Theme, frame: &mut Frame<'_>, area: Rect, panel: Panel<'_>) {
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(theme.dim())
        .title(Span::styled(panel.title, theme.strong(panel.color)));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [counts, graph, rest] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(inner);
    let count = Line::from(vec![
        Span::styled(format!(" {}", panel.count), theme.strong(panel.color)),
        Span::raw(format!(" {}", panel.unit)),
    ]);
    frame.render_widget(count, counts);
    let rate = format!("{:.1}/s ", panel.graph.per_second);
    frame.render_widget(Line::raw(rate).right_aligned(), counts);
    let newest_first: Vec<u64> = panel.graph.bars.iter().rev().copied().collect();
    let bars = Sparkline::default()
        .data(newest_first)
        .direction(RenderDirection::RightToLeft)
        .style(theme.color(panel.color));
    frame.render_widget(bars, graph);
    let mut line = vec![Span::raw(" ")];
    line.extend(panel.rest);
    frame.render_widget(Line::from(line), rest);
}
