//! The live view: reports in, a screen out.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Color;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::report::{OutboxReport, Report};
use super::text;
use super::words::duration;
use crate::terminal::{Graph, PANEL_ROWS, Panel, Theme, draw_panel, grouped, plain};

/// Bars that are kept: more than the widest terminal shows.
const BARS: usize = 400;

/// Lines of what is stuck, at most: half of a small terminal.
const STUCK_ROWS: usize = 10;

/// What was reported of each outbox, one bar a report.
#[derive(Debug, Default)]
pub struct History {
    outboxes: BTreeMap<String, Bars>,
}

#[derive(Debug, Default)]
struct Bars {
    /// Of the last report.
    published: Option<(u64, Instant)>,
    /// A second.
    rates: VecDeque<u64>,
    pending: VecDeque<u64>,
}

impl History {
    pub fn add(&mut self, report: &Report, now: Instant) {
        for outbox in &report.outboxes {
            let bars = self.outboxes.entry(outbox.name.clone()).or_default();
            bars.add(outbox, now);
        }
    }
}

impl Bars {
    fn add(&mut self, outbox: &OutboxReport, now: Instant) {
        let before = self.published.take();
        self.published = outbox.published.map(|published| (published, now));
        let rate = match (before, self.published) {
            // Less than before: the relay was started anew.
            (Some((before, then)), Some((published, now))) if published >= before => {
                let seconds = now.saturating_duration_since(then).as_secs_f64();
                (published - before) as f64 / seconds.max(1e-3)
            }
            _ => 0.0,
        };
        push(&mut self.rates, rate.round() as u64);
        let pending = outbox.pending_rows.unwrap_or(0).unsigned_abs();
        push(&mut self.pending, pending);
    }
}

fn push(bars: &mut VecDeque<u64>, bar: u64) {
    bars.push_back(bar);
    if bars.len() > BARS {
        bars.pop_front();
    }
}

/// One picture.
#[derive(Debug)]
pub struct View<'a> {
    /// Nothing: none has come yet.
    pub report: Option<&'a Report>,
    pub history: &'a History,
    /// Why no newer report has come.
    pub problem: Option<&'a str>,
    pub theme: Theme,
}

impl View<'_> {
    pub fn render(&self, frame: &mut Frame<'_>) {
        let stuck = self.stuck();
        let stuck_rows = u16::try_from(stuck.len()).unwrap_or(u16::MAX);
        let [header, stuck_area, outboxes] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(stuck_rows),
            Constraint::Fill(1),
        ])
        .areas(frame.area());
        self.header(frame, header);
        frame.render_widget(Paragraph::new(stuck), stuck_area);
        self.outboxes(frame, outboxes);
    }

    fn header(&self, frame: &mut Frame<'_>, area: Rect) {
        let said = match (self.problem, self.report) {
            (Some(problem), _) => Span::styled(plain(problem), self.theme.color(Color::Red)),
            (None, Some(report)) => {
                let services = text::services(report);
                let said = match &report.relay {
                    Some(relay) => {
                        format!("up {}; {services}", duration(relay.up_seconds as f64))
                    }
                    None => format!("no relay answers; {services}"),
                };
                Span::styled(said, self.theme.dim())
            }
            (None, None) => Span::styled("asking…", self.theme.dim()),
        };
        let title = Span::styled(" outboxd status ", self.theme.strong(Color::Cyan));
        frame.render_widget(Line::from(vec![title, said]), area);
        let clock = self.report.and_then(|report| report.at.get(11..19));
        let clock = format!(" {} ", clock.unwrap_or_default());
        frame.render_widget(Line::raw(clock).right_aligned(), area);
    }

    fn stuck(&self) -> Vec<Line<'static>> {
        let Some(report) = self.report else {
            return Vec::new();
        };
        if report.stuck.is_empty() {
            let nothing = Span::styled(" nothing is stuck", self.theme.color(Color::Green));
            return vec![Line::from(nothing)];
        }
        let all = text::stuck_lines(report).map(|line| format!(" {line}"));
        let mut lines: Vec<String> = all.collect();
        let more = lines.len().saturating_sub(STUCK_ROWS);
        lines.truncate(STUCK_ROWS);
        if more > 0 {
            lines.push(format!(" and {more} more: outboxd status"));
        }
        let red = self.theme.color(Color::Red);
        let lines = lines.into_iter();
        lines.map(|line| Line::styled(line, red)).collect()
    }

    fn outboxes(&self, frame: &mut Frame<'_>, area: Rect) {
        let all = self.report.map_or(&[][..], |report| &report.outboxes);
        let fits = usize::from(area.height / PANEL_ROWS).max(1);
        let rows = vec![Constraint::Length(PANEL_ROWS); fits];
        for (outbox, row) in all.iter().zip(Layout::vertical(rows).split(area).iter()) {
            let [left, right] =
                Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)])
                    .areas(*row);
            self.published(frame, left, outbox);
            self.pending(frame, right, outbox);
        }
    }

    fn published(&self, frame: &mut Frame<'_>, area: Rect, outbox: &OutboxReport) {
        let bars = self.bars(&outbox.name, |bars| &bars.rates);
        let count = outbox.published.map(grouped);
        let panel = Panel {
            title: format!(" {} ", outbox.name),
            count: count.unwrap_or_else(|| "?".to_owned()),
            unit: "published",
            graph: &Graph {
                bars,
                per_second: outbox.per_second.unwrap_or(0.0),
            },
            color: Color::Green,
            rest: vec![Span::raw(format!("owner {}", text::owner(outbox)))],
        };
        draw_panel(self.theme, frame, area, panel);
    }

    fn pending(&self, frame: &mut Frame<'_>, area: Rect, outbox: &OutboxReport) {
        let bars = self.bars(&outbox.name, |bars| &bars.pending);
        // What it grew by a second, over the reports of the last ten.
        let grown = match (bars.len().checked_sub(11), bars.last()) {
            (Some(first), Some(last)) => (*last as f64 - bars[first] as f64) / 10.0,
            _ => 0.0,
        };
        let rows = outbox.pending_rows.map(i64::unsigned_abs);
        let mut rest = vec![format!("held {}", text::held(outbox))];
        let oldest = outbox.oldest_pending_seconds.filter(|_| rows != Some(0));
        rest.extend(oldest.map(|age| format!("oldest {}", duration(age))));
        rest.extend(outbox.parked.rows.map(|rows| format!("parked {rows}")));
        let panel = Panel {
            title: " pending ".to_owned(),
            count: rows.map_or_else(|| "?".to_owned(), grouped),
            unit: "pending",
            graph: &Graph {
                bars,
                per_second: grown,
            },
            color: Color::Yellow,
            rest: vec![Span::raw(rest.join(", "))],
        };
        draw_panel(self.theme, frame, area, panel);
    }

    fn bars(&self, outbox: &str, of: impl Fn(&Bars) -> &VecDeque<u64>) -> Vec<u64> {
        let bars = self.history.outboxes.get(outbox).map(of);
        bars.map_or_else(Vec::new, |bars| bars.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    /// A report that a relay could make.
    fn report(published: u64, pending: i64, outboxes: usize) -> Report {
        let up = json!({"state": "up", "since": null, "reason": null});
        let outbox = |number: usize| {
            json!({
                "name": format!("orders{number}"), "table": "public.orders",
                "owner": {"who": "thisRelay", "id": null, "leaseSeconds": null},
                "health": {"isReady": true, "text": "ready, owned here"},
                "published": published, "perSecond": 12.5, "pendingRows": pending,
                "oldestPendingSeconds": 61.0, "lateRows": 0,
                "window": {"rows": 1, "bytes": 1, "inFlight": 1, "unmarked": 0},
                "held": {"rows": 7, "keyCount": 2, "topicCount": 1, "keys": [], "topics": []},
                "parked": {"rows": 3, "last": null}, "paused": [], "bypassed": [], "lastError": null,
            })
        };
        let report = json!({
            "at": "2026-01-02T03:04:05.678Z", "saidBy": "relay",
            "relay": {"id": "0192", "version": "0.1.0", "upSeconds": 61},
            "services": {"postgres": up.clone(), "kafka": up},
            "stuck": [{"outbox": "orders0", "what": "topic x cannot be\u{1b}[2J used"}],
            "outboxes": (0..outboxes).map(outbox).collect::<Vec<_>>(),
        });
        serde_json::from_value(report).expect("a report")
    }

    fn drawn(view: &View<'_>, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        let drawn = terminal.draw(|frame| view.render(frame));
        drawn.expect("drawing to memory");
        terminal.backend().to_string()
    }

    fn view<'a>(report: Option<&'a Report>, history: &'a History) -> View<'a> {
        View {
            report,
            history,
            problem: None,
            theme: Theme { has_colors: true },
        }
    }

    #[test]
    fn what_is_stuck_stands_above_the_graphs_and_all_of_it_fits_a_small_terminal() {
        let (start, mut history) = (Instant::now(), History::default());
        for second in 0..12 {
            let report = report(100 * second, 1_000 + 50 * second as i64, 1);
            history.add(&report, start + Duration::from_secs(second));
        }
        let report = report(1_234, 1_600, 1);
        let text = drawn(&view(Some(&report), &history), 80, 24);
        for part in [
            "outboxd status",
            "up 1m 1s; postgres up, kafka up",
            "03:04:05",
            "orders0: topic x cannot be [2J used",
            "1,234 published",
            "12.5/s",
            "owner this relay",
            "1,600 pending",
            "50.0/s",
            "held 2 keys, 1 topic, oldest 1m 1s, p",
            "█",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        let bars = &history.outboxes["orders0"];
        assert!(
            bars.rates.iter().skip(1).all(|rate| *rate == 100),
            "{bars:?}"
        );
    }

    #[test]
    fn a_relay_that_was_started_anew_has_no_negative_rate() {
        let (start, mut history) = (Instant::now(), History::default());
        history.add(&report(500, 0, 1), start);
        history.add(&report(3, 0, 1), start + Duration::from_secs(1));
        assert_eq!(history.outboxes["orders0"].rates, [0, 0]);
    }

    #[test]
    fn a_terminal_of_any_size_is_drawn_on_whatever_is_known() {
        let history = History::default();
        let many = report(1, 1, 9);
        for (width, height) in [(1, 1), (20, 5), (79, 23), (300, 100)] {
            drawn(&view(None, &history), width, height);
            drawn(&view(Some(&many), &history), width, height);
        }
        let alone = View {
            problem: Some("no relay answers"),
            ..view(None, &history)
        };
        assert!(drawn(&alone, 80, 24).contains("no relay answers"));
    }
}
