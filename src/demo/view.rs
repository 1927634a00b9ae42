//! What the demo looks like: values in, text out.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};

use super::Phase;
use super::books::{Shown, Totals};
use super::envelope_text::{self, Piece};
use super::figures::{LatencyFigures, Series};
use super::hints::{BY_HAND, Hints, MOCK_CLIENTS};
use crate::terminal::{Graph, PANEL_ROWS, Panel, Theme, draw_panel, grouped, plain, short};

/// Bars of a graph: more than the widest terminal shows.
const BARS: usize = 400;

/// What a series looks like.
pub fn graph(series: &Series) -> Graph {
    Graph {
        bars: series.last(BARS),
        per_second: series.rate(),
    }
}

/// How the demo stands.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub phase: Phase,
    pub elapsed: Duration,
    pub totals: Totals,
    pub on_the_way: usize,
    pub rows_in: Graph,
    pub events_out: Graph,
    /// Of the last events, and of all.
    pub recent: Option<LatencyFigures>,
    pub overall: Option<LatencyFigures>,
    pub shown: Option<Shown>,
}

/// One picture of the demo.
#[derive(Debug)]
pub struct View<'a> {
    pub snapshot: &'a Snapshot,
    pub hints: &'a Hints,
    /// The relay's last warning.
    pub log: Option<&'a str>,
    pub theme: Theme,
}

impl View<'_> {
    pub fn render(&self, frame: &mut Frame<'_>) {
        let hints = self.hint_lines();
        // The hints are lines to copy and have no borders at their sides.
        let hint_rows = u16::try_from(hints.len()).unwrap_or(u16::MAX);
        let [header, panels, middle, event, below] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(PANEL_ROWS),
            Constraint::Length(1),
            Constraint::Min(3),
            Constraint::Length(hint_rows),
        ])
        .areas(frame.area());
        let [left, right] =
            Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)])
                .areas(panels);
        self.header(frame, header);
        self.rows_in(frame, left);
        self.events_out(frame, right);
        frame.render_widget(Paragraph::new(self.middle_line()), middle);
        self.event(frame, event);
        frame.render_widget(Paragraph::new(hints), below);
    }

    fn header(&self, frame: &mut Frame<'_>, area: Rect) {
        let state = match self.snapshot.phase {
            Phase::Running => "q or Ctrl-C ends it",
            Phase::Draining => "ending: waiting for what is on its way",
        };
        let left = Line::from(vec![
            Span::styled(" outboxd demo ", self.theme.strong(Color::Cyan)),
            Span::raw(" "),
            Span::styled(state, self.theme.dim()),
        ]);
        let seconds = self.snapshot.elapsed.as_secs();
        let clock = format!("{}:{:02} ", seconds / 60, seconds % 60);
        frame.render_widget(left, area);
        frame.render_widget(Line::raw(clock).right_aligned(), area);
    }

    fn rows_in(&self, frame: &mut Frame<'_>, area: Rect) {
        let totals = &self.snapshot.totals;
        let rolled_back = format!("{} rolled back", grouped(totals.rolled_back));
        draw_panel(
            self.theme,
            frame,
            area,
            Panel {
                title: " Postgres: rows in ".to_owned(),
                count: grouped(totals.committed + totals.by_hand.rows),
                unit: "committed",
                graph: &self.snapshot.rows_in,
                color: Color::Blue,
                rest: vec![
                    Span::styled(rolled_back, self.theme.color(Color::Yellow)),
                    by_hand(totals.by_hand.rows),
                ],
            },
        );
    }

    fn events_out(&self, frame: &mut Frame<'_>, area: Rect) {
        let totals = &self.snapshot.totals;
        let leaked = format!("{} of the rolled back", grouped(totals.leaked));
        let color = if totals.leaked == 0 {
            Color::Green
        } else {
            Color::Red
        };
        draw_panel(
            self.theme,
            frame,
            area,
            Panel {
                title: " Kafka: events out ".to_owned(),
                count: grouped(totals.arrived + totals.by_hand_arrived),
                unit: "arrived",
                graph: &self.snapshot.events_out,
                color: Color::Green,
                rest: vec![
                    Span::styled(leaked, self.theme.color(color)),
                    by_hand(totals.by_hand_arrived),
                ],
            },
        );
    }

    fn middle_line(&self) -> Line<'static> {
        let snapshot = self.snapshot;
        let mut spans = vec![Span::styled(" INSERT to consumer ", self.theme.dim())];
        match snapshot.recent {
            None => spans.push(Span::raw("…")),
            Some(latency) => {
                for (name, value) in [("p50", latency.p50), ("p99", latency.p99)] {
                    spans.push(Span::styled(format!(" {name} "), self.theme.dim()));
                    spans.push(Span::styled(
                        short(value),
                        Style::new().add_modifier(Modifier::BOLD),
                    ));
                }
            }
        }
        let setting = format!(" (poll_interval {})", self.hints.poll_interval);
        spans.push(Span::styled(setting, self.theme.dim()));
        spans.push(Span::styled("   on the way ", self.theme.dim()));
        spans.push(Span::raw(grouped(snapshot.on_the_way as u64)));
        if snapshot.totals.repeated > 0 {
            spans.push(Span::styled("   repeated ", self.theme.dim()));
            spans.push(Span::raw(grouped(snapshot.totals.repeated)));
        }
        Line::from(spans)
    }

    fn event(&self, frame: &mut Frame<'_>, area: Rect) {
        let title = match &self.snapshot.shown {
            None => " waiting for the first event ".to_owned(),
            Some(shown) => {
                let event = &shown.event;
                let whose = if shown.by_hand { "your event: " } else { "" };
                format!(
                    " {whose}{} [{}] offset {}, key {} ",
                    event.topic,
                    event.partition,
                    event.offset,
                    plain(&event.key)
                )
            }
        };
        let color = match &self.snapshot.shown {
            Some(shown) if shown.by_hand => Color::Magenta,
            _ => Color::Cyan,
        };
        let block = Block::new()
            .borders(Borders::TOP | Borders::BOTTOM)
            .border_style(self.theme.dim())
            .title(Span::styled(title, self.theme.strong(color)))
            .title_bottom(Span::styled(
                format!(" {BY_HAND} "),
                self.theme.strong(Color::Magenta),
            ));
        let inner = block.inner(area);
        frame.render_widget(block, area);
        let Some(shown) = &self.snapshot.shown else {
            return;
        };
        let inner = Rect {
            x: inner.x + 1,
            width: inner.width.saturating_sub(2),
            ..inner
        };
        let (width, height) = (inner.width.into(), inner.height.into());
        let text: Vec<Line<'_>> = envelope_text::lines(&shown.event.value, width, height)
            .iter()
            .map(|line| line.iter().map(|piece| self.piece(piece)).collect())
            .collect();
        frame.render_widget(Paragraph::new(text), inner);
    }

    fn piece(&self, piece: &Piece) -> Span<'static> {
        let style = match piece {
            Piece::Mark(_) => self.theme.dim(),
            Piece::Name(_) => self.theme.color(Color::Cyan),
            Piece::Value(_) => Style::new(),
        };
        Span::styled(plain(piece.text()), style)
    }

    fn hint_lines(&self) -> Vec<Line<'_>> {
        let named = |name: &'static str, text: &str| {
            Line::from(vec![
                Span::styled(format!(" {name} "), self.theme.color(Color::Cyan)),
                Span::raw(text.to_owned()),
            ])
        };
        let note = |text| Line::styled(format!("       {text}"), self.theme.dim());
        let mut lines: Vec<Line<'_>> = self.hints.insert.iter().map(Line::raw).collect();
        lines.push(named(
            "kafka",
            &format!("{}  {}", self.hints.kafka, self.hints.topics),
        ));
        if self.hints.is_mock {
            lines.extend(MOCK_CLIENTS.map(note));
        }
        match self.log {
            Some(log) => lines.push(Line::styled(plain(log), self.theme.color(Color::Yellow))),
            None => lines.push(named("metrics", &self.hints.metrics)),
        }
        lines
    }
}

fn by_hand(count: u64) -> Span<'static> {
    match count {
        0 => Span::raw(""),
        count => Span::raw(format!(", {} by hand", grouped(count))),
    }
}

/// The line that is written once a second where there is no terminal.
pub fn plain_line(snapshot: &Snapshot) -> String {
    let totals = &snapshot.totals;
    let latency = match snapshot.recent {
        Some(latency) => format!("p50 {}, p99 {}", short(latency.p50), short(latency.p99)),
        None => "no event yet".to_owned(),
    };
    let ending = match snapshot.phase {
        Phase::Running => "",
        Phase::Draining => "; ending",
    };
    format!(
        "{:>4} s  rows in {} ({:.1}/s)  events out {} ({:.1}/s)  {latency}  {}{ending}",
        snapshot.elapsed.as_secs(),
        totals.committed + totals.by_hand.rows,
        snapshot.rows_in.per_second,
        totals.arrived + totals.by_hand_arrived,
        snapshot.events_out.per_second,
        rolled_back(totals),
    )
}

/// The last line.
pub fn summary(snapshot: &Snapshot) -> String {
    let totals = &snapshot.totals;
    let latency = match snapshot.overall {
        Some(latency) => format!(
            "; p50 {}, p99 {}, max {}",
            short(latency.p50),
            short(latency.p99),
            short(latency.max)
        ),
        None => String::new(),
    };
    format!(
        "done: {} rows in, {} events out, {}{latency}",
        totals.committed + totals.by_hand.rows,
        totals.arrived + totals.by_hand_arrived,
        rolled_back(totals),
    )
}

fn rolled_back(totals: &Totals) -> String {
    format!(
        "{} rolled back ({} of them out)",
        totals.rolled_back, totals.leaked
    )
}
