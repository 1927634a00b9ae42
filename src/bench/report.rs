//! What was measured, for people and as JSON.

use std::fmt::{self, Display};
use std::time::Duration;

use bytesize::ByteSize;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::consumer::Verdict;
use super::limits::Limits;
use super::spread::Spread;
use super::start::StartReport;

/// A result of any benchmark.
#[derive(Debug, Serialize)]
#[serde(tag = "bench", rename_all = "lowercase")]
pub enum Report {
    Drain(DrainReport),
    Latency(LatencyReport),
    Idle(IdleReport),
    Start(StartReport),
    Envelope(EnvelopeReport),
}

/// Of `bench drain`.
#[derive(Debug, Serialize)]
pub struct DrainReport {
    pub rows: usize,
    /// What stays unsent before them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aside: Option<String>,
    pub payload_bytes: usize,
    pub keys: usize,
    pub partitions: i32,
    pub seed: u64,
    pub on_sent: &'static str,
    pub envelope: &'static str,
    pub rows_per_second: Spread,
    pub chain_rows_per_second: Spread,
    pub ratio: Spread,
    pub runs: Vec<DrainRun>,
}

/// One backlog and the limits measured right before it.
#[derive(Debug, Serialize)]
pub struct DrainRun {
    pub limits: Limits,
    pub relay: Relayed,
    /// The relay's rate by the chain limit.
    pub ratio: f64,
}

/// What the relay did with one backlog.
#[derive(Debug, Serialize)]
pub struct Relayed {
    pub rows_per_second: f64,
    /// From taking the lease to the last mark.
    pub seconds: f64,
    /// From the start of the process to taking the lease.
    pub start_seconds: f64,
    /// From taking the lease to the first row's mark: what stays before the backlog is looked at then.
    pub first_seconds: f64,
    /// From there to the last mark: of a backlog that is much larger than the window.
    pub flowing_rows_per_second: f64,
    /// Of one core, while it drained.
    pub cpu_percent: f64,
    /// From its start on.
    pub cpu_seconds: f64,
    pub peak_memory_bytes: u64,
    /// It said that nothing was left unsettled when it was stopped.
    pub clean_stop: bool,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Of `bench latency`.
#[derive(Debug, Serialize)]
pub struct LatencyReport {
    pub events: usize,
    pub writers: usize,
    /// Before each event; nothing: the load was paced.
    pub pause_seconds: Option<f64>,
    pub payload_bytes: usize,
    pub on_sent: &'static str,
    pub poll_interval_ms: f64,
    pub events_per_second: f64,
    pub insert_to_commit: Percentiles,
    /// From the commit's answer to the consumer's, 0 when the consumer was first.
    pub commit_to_consumed: Percentiles,
    pub insert_to_consumed: Percentiles,
    /// How late the inserts were by their schedule.
    pub behind_schedule: Percentiles,
    pub cpu_percent: f64,
    pub peak_memory_bytes: u64,
    pub clean_stop: bool,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Of `bench idle`.
#[derive(Debug, Serialize)]
pub struct IdleReport {
    pub seconds: f64,
    pub poll_interval_ms: f64,
    pub cpu_percent: f64,
    pub peak_memory_bytes: u64,
    pub clean_stop: bool,
}

/// Of `bench envelope`.
#[derive(Debug, Serialize)]
pub struct EnvelopeReport {
    pub payload_bytes: usize,
    pub seed: u64,
    pub runs: usize,
    pub formats: Vec<EnvelopeRun>,
}

/// One format on one core.
#[derive(Debug, Serialize)]
pub struct EnvelopeRun {
    pub envelope: &'static str,
    /// What an average message takes in memory: key, value, headers.
    pub message_bytes: usize,
    pub rows_per_second: Spread,
    /// The finished messages copied: what the memory allows.
    pub copies_per_second: Spread,
}

/// A distribution of durations, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// The histogram's range in microseconds, which is also its unit: longer ones count as an hour.
const MOST_MICROS: u64 = 3_600_000_000;

impl Percentiles {
    pub fn of(durations: impl Iterator<Item = Duration>) -> Percentiles {
        // Three digits: finer than two runs are alike. The bounds are constants that it takes.
        let mut histogram = Histogram::<u64>::new_with_bounds(1, MOST_MICROS, 3)
            .unwrap_or_else(|error| unreachable!("a histogram up to one hour: {error}"));
        for duration in durations {
            let micros = u64::try_from(duration.as_micros()).unwrap_or(MOST_MICROS);
            histogram.saturating_record(micros);
        }
        let ms = |micros: u64| micros as f64 / 1e3;
        Percentiles {
            p50_ms: ms(histogram.value_at_quantile(0.50)),
            p95_ms: ms(histogram.value_at_quantile(0.95)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            max_ms: ms(histogram.max()),
        }
    }
}

impl Report {
    /// What the relay did that it must not, each in a sentence; none for a good result.
    pub fn faults(&self) -> Vec<String> {
        match self {
            Report::Drain(report) => report
                .runs
                .iter()
                .flat_map(|run| faults(&run.relay.verdict, run.relay.clean_stop))
                .collect(),
            Report::Latency(report) => faults(&report.verdict, report.clean_stop),
            Report::Idle(report) => faults(&Verdict::default(), report.clean_stop),
            Report::Start(report) => {
                let runs = report.runs.iter();
                runs.flat_map(|run| faults(&Verdict::default(), run.clean_stop))
                    .collect()
            }
            Report::Envelope(_) => Vec::new(),
        }
    }
}

/// Nothing crashes here, so nothing may arrive twice either.
fn faults(verdict: &Verdict, clean_stop: bool) -> Vec<String> {
    let counted = [
        (verdict.missing, "committed events never arrived"),
        (verdict.duplicates, "events arrived again"),
        (verdict.unknown, "messages are no event of the benchmark"),
        (
            verdict.out_of_order,
            "events came after a later one of their key",
        ),
    ];
    let mut faults: Vec<String> = counted
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !clean_stop {
        faults.push("the relay did not stop cleanly".to_owned());
    }
    faults
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Drain(report) => report.fmt(f),
            Report::Latency(report) => report.fmt(f),
            Report::Idle(report) => report.fmt(f),
            Report::Start(report) => report.fmt(f),
            Report::Envelope(report) => report.fmt(f),
        }
    }
}

impl Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aside = self.aside.as_deref();
        let aside = aside
            .map(|aside| format!(" behind {aside}"))
            .unwrap_or_default();
        writeln!(
            f,
            "drain of {} rows{}, {} B of payload, {} keys, {} partitions, on_sent {}, envelope {}, seed {}\n",
            self.rows,
            aside,
            self.payload_bytes,
            self.keys,
            self.partitions,
            self.on_sent,
            self.envelope,
            self.seed
        )?;
        writeln!(
            f,
            "{:>6} {:>10} {:>10} {:>10} {:>10} {:>10} {:>7} {:>6} {:>10} {:>8} {:>8} {:>10}",
            "run",
            "read/s",
            "produce/s",
            "mark/s",
            "chain/s",
            "relay/s",
            "ratio",
            "CPU",
            "memory",
            "start",
            "first",
            "flowing/s"
        )?;
        for (number, run) in (1..).zip(&self.runs) {
            let DrainRun {
                limits,
                relay,
                ratio,
            } = run;
            writeln!(
                f,
                "{number:>6} {:>10.0} {:>10.0} {:>10.0} {:>10.0} {:>10.0} {ratio:>7.2} {:>5.0}% {:>10} {:>6.0}ms {:>6.0}ms {:>10.0}",
                limits.read,
                limits.produce,
                limits.mark,
                limits.chain,
                relay.rows_per_second,
                relay.cpu_percent,
                size(relay.peak_memory_bytes),
                relay.start_seconds * 1e3,
                relay.first_seconds * 1e3,
                relay.flowing_rows_per_second,
            )?;
        }
        let mut line = |name: &str, value: fn(&Spread) -> f64| {
            writeln!(
                f,
                "{name:>6} {:>43.0} {:>10.0} {:>7.2}",
                value(&self.chain_rows_per_second),
                value(&self.rows_per_second),
                value(&self.ratio)
            )
        };
        if self.runs.len() > 1 {
            line("median", |spread| spread.median)?;
            line("min", |spread| spread.min)?;
            line("max", |spread| spread.max)?;
        }
        writeln!(
            f,
            "\nread, produce and mark: each alone on the same rows; chain: 1 / (1/read + 1/produce + 1/mark)\n\
             relay: from taking its lease until all rows are acknowledged and marked; ratio: relay / chain\n\
             CPU: of one core; start: from the process's start to its lease, outside of the rate\n\
             first: from its lease to the first mark; flowing: from there to the last one"
        )
    }
}

impl Display for LatencyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pause_seconds {
            Some(pause) => write!(
                f,
                "latency of {} single events, each after {pause} s of quiet",
                self.events
            )?,
            None => write!(
                f,
                "latency of {} single-row transactions by {} writers, {:.0}/s",
                self.events, self.writers, self.events_per_second
            )?,
        }
        writeln!(
            f,
            ", {} B of payload, on_sent {}, poll_interval {} ms\n",
            self.payload_bytes, self.on_sent, self.poll_interval_ms
        )?;
        writeln!(
            f,
            "{:<20} {:>10} {:>10} {:>10} {:>10}",
            "ms", "p50", "p95", "p99", "max"
        )?;
        for (name, p) in [
            ("commit to consumed", &self.commit_to_consumed),
            ("insert to consumed", &self.insert_to_consumed),
            ("insert to commit", &self.insert_to_commit),
            ("behind schedule", &self.behind_schedule),
        ] {
            writeln!(
                f,
                "{name:<20} {:>10.2} {:>10.2} {:>10.2} {:>10.2}",
                p.p50_ms, p.p95_ms, p.p99_ms, p.max_ms
            )?;
        }
        writeln!(
            f,
            "\nrelay: {:.1}% of one core, at most {} of memory",
            self.cpu_percent,
            size(self.peak_memory_bytes)
        )
    }
}

impl Display for IdleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "idle for {:.0} s, poll_interval {} ms: {:.2}% of one core, at most {} of memory",
            self.seconds,
            self.poll_interval_ms,
            self.cpu_percent,
            size(self.peak_memory_bytes)
        )
    }
}

impl Display for EnvelopeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "envelopes of rows with {} B of payload by the time of one core, medians of {} runs, seed {}\n",
            self.payload_bytes, self.runs, self.seed
        )?;
        writeln!(
            f,
            "{:<20} {:>10} {:>10} {:>10} {:>10} {:>10} {:>7}",
            "envelope", "rows/s", "min", "max", "bytes", "copies/s", "ratio"
        )?;
        for format in &self.formats {
            let (rows, copies) = (&format.rows_per_second, &format.copies_per_second);
            writeln!(
                f,
                "{:<20} {:>10.0} {:>10.0} {:>10.0} {:>10} {:>10.0} {:>7.2}",
                format.envelope,
                rows.median,
                rows.min,
                rows.max,
                format.message_bytes,
                copies.median,
                rows.median / copies.median
            )?;
        }
        writeln!(
            f,
            "\nbytes: of a message in memory, with its headers; copies: finished messages, copied one by one"
        )
    }
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_durations() {
        let found = Percentiles::of((1..=100).map(Duration::from_millis));
        for (found, expected) in [
            (found.p50_ms, 50.0),
            (found.p95_ms, 95.0),
            (found.p99_ms, 99.0),
            (found.max_ms, 100.0),
        ] {
            assert!((found / expected - 1.0).abs() < 0.001, "{found} {expected}");
        }
    }

    #[test]
    fn every_fault_is_named() {
        let verdict = Verdict {
            arrived: 1,
            missing: 2,
            duplicates: 3,
            unknown: 4,
            out_of_order: 5,
        };
        let all = faults(&verdict, false);
        assert_eq!(all.len(), 5, "{all:?}");
        assert_eq!(faults(&Verdict::default(), true), Vec::<String>::new());
    }
}
