use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use uuid::Uuid;

use super::Phase;
use super::books::{Books, ByHand, Received};
use super::figures::LatencyFigures;
use super::hints::{BY_HAND, Hints};
use super::view::{Snapshot, View, plain_line, summary};
use crate::terminal::{Graph, Theme};

/// The event with the most fields: nothing that the shop sends needs more room.
fn longest_event() -> Received {
    let envelope = r#"{"envelopeVersion":1,"eventId":"01a1fdd2-0bba-76d8-8fd3-0df730ea42d6","eventType":"payment.authorized","eventVersion":"1","timestamp":"2026-11-21T11:16:03.642646Z","source":"outboxd-demo","correlationId":"checkout-rysepurr","causationId":"01a1fdd2-0bba-76d8-8fd3-0df730ea42d6","aggregateType":"payment","aggregateId":"pay_oiqtys","data":{"orderId":"ord_oiqtys","amountCents":37595,"method":"card"}}"#;
    Received {
        event_id: Some(Uuid::now_v7()),
        is_sample: true,
        topic: "outboxd-demo-payment-events".to_owned(),
        partition: 2,
        offset: 1_234_567,
        key: "pay_oiqtys".to_owned(),
        value: envelope.to_owned(),
    }
}

fn snapshot(event: Option<Received>) -> Snapshot {
    let now = Instant::now();
    let mut books = Books::new(now);
    for _ in 0..3 {
        let id = Uuid::now_v7();
        books.inserted(id, now);
        books.rolled_back(id);
    }
    if let Some(event) = event {
        let id = event.event_id.expect("an id");
        books.inserted(id, now);
        books.committed(id, now);
        books.received(event, now);
    }
    books.count_by_hand(ByHand { rows: 2, unsent: 0 }, now);
    let mut totals = books.totals().clone();
    totals.committed = 1_234_567;
    totals.arrived = 1_234_560;
    let latency = LatencyFigures {
        p50: Duration::from_micros(4_200),
        p99: Duration::from_micros(9_100),
        max: Duration::from_millis(184),
    };
    let graph = Graph {
        bars: (0..400).map(|bar| bar % 9).collect(),
        per_second: 1000.0,
    };
    Snapshot {
        phase: Phase::Running,
        elapsed: Duration::from_secs(3_723),
        totals,
        on_the_way: 7,
        rows_in: graph.clone(),
        events_out: graph,
        recent: Some(latency),
        overall: Some(latency),
        shown: books.shown().cloned(),
    }
}

fn hints() -> Hints {
    Hints::for_services(
        "postgres://postgres@127.0.0.1:31999/postgres",
        "127.0.0.1:65535",
        "public",
        &["order-events".to_owned(), "payment-events".to_owned()],
        true,
        Some(([127, 0, 0, 1], 31_999).into()),
    )
}

fn render(
    snapshot: &Snapshot,
    log: Option<&str>,
    width: u16,
    height: u16,
) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    let view = View {
        snapshot,
        hints: &hints(),
        log,
        theme: Theme { has_colors: true },
    };
    terminal
        .draw(|frame| view.render(frame))
        .expect("drawing to memory");
    terminal
}

fn text(terminal: &Terminal<TestBackend>) -> String {
    terminal.backend().to_string()
}

#[test]
fn everything_there_is_to_know_fits_into_80_columns_and_24_rows() {
    let text = text(&render(&snapshot(Some(longest_event())), None, 80, 24));

    for part in [
        "outboxd demo",
        "62:03",
        "Postgres: rows in",
        "1,234,569 committed",
        "1000.0/s",
        "3 rolled back, 2 by hand",
        "Kafka: events out",
        "1,234,560 arrived",
        "0 of the rolled back",
        "█",
        "p50 4.2 ms",
        "p99 9.1 ms",
        "poll_interval 10ms",
        "on the way 7",
        "outboxd-demo-payment-events [2] offset 1234567, key pay_oiqtys",
        r#"{ "envelopeVersion": 1, "eventId": "01a1fdd2"#,
        r#""causationId": "01a1fdd2-0bba-76d8-8fd3-0df730ea42d6","#,
        r#""method":"card"} }"#,
        BY_HAND,
        "http://127.0.0.1:31999/metrics",
        "127.0.0.1:65535  order-events, payment-events",
        "kafka-python 3",
        "--kafka HOST:PORT",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    for line in hints().insert {
        assert!(text.contains(&line), "{line} is cut:\n{text}");
    }
}

#[test]
fn with_more_room_every_field_of_the_event_has_a_line_of_its_own() {
    let text = text(&render(&snapshot(Some(longest_event())), None, 120, 40));
    assert!(
        text.contains(r#"   "eventType": "payment.authorized","#),
        "{text}"
    );
    assert!(text.contains(r#"     "method": "card""#), "{text}");
}

#[test]
fn a_terminal_of_any_size_is_drawn_on() {
    for (width, height) in [(1, 1), (20, 5), (79, 23), (300, 100)] {
        render(
            &snapshot(Some(longest_event())),
            Some("WARN"),
            width,
            height,
        );
        render(&snapshot(None), None, width, height);
    }
}

#[test]
fn a_warning_of_the_relay_is_shown_without_what_it_could_do_to_the_terminal() {
    let log = "WARN kafka is \u{1b}[31m down";
    let text = text(&render(&snapshot(None), Some(log), 80, 24));
    assert!(text.contains("WARN kafka is  [31m down"), "{text}");
    assert!(text.contains("waiting for the first event"), "{text}");
}

#[test]
fn without_colors_nothing_is_colored() {
    let snapshot = snapshot(Some(longest_event()));
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
    let view = View {
        snapshot: &snapshot,
        hints: &hints(),
        log: Some("WARN"),
        theme: Theme { has_colors: false },
    };
    terminal
        .draw(|frame| view.render(frame))
        .expect("drawing to memory");
    let cells = terminal.backend().buffer().content();
    assert!(
        cells
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
}

#[test]
fn plain_lines_say_how_it_stands() {
    let snapshot = snapshot(Some(longest_event()));
    assert_eq!(
        plain_line(&snapshot),
        "3723 s  rows in 1234569 (1000.0/s)  events out 1234560 (1000.0/s)  p50 4.2 ms, p99 9.1 ms  \
         3 rolled back (0 of them out)"
    );
    assert_eq!(
        summary(&snapshot),
        "done: 1234569 rows in, 1234560 events out, 3 rolled back (0 of them out); p50 4.2 ms, \
         p99 9.1 ms, max 184 ms"
    );
}
