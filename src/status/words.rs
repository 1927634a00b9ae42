//! Times as people read them.

use std::time::Duration;

use jiff::Timestamp;

/// ` since 2026-01-02T03:04:05Z (3m 2s)`: a time of a report whose own time is `now`.
pub fn since(time: &str, now: &str) -> String {
    match (time.parse::<Timestamp>(), now.parse::<Timestamp>()) {
        (Ok(time), Ok(now)) => {
            let passed = now.duration_since(time).as_secs_f64();
            format!(" since {time:.0} ({})", duration(passed))
        }
        _ => format!(" since {time}"),
    }
}

/// `3m 2s`, to the second; below a minute to the tenth. What is negative, by clocks that differ, is none.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    if seconds < 60.0 {
        return format!("{seconds:.1}s");
    }
    // Years fit a u64; what does not is shown as what does.
    let duration = Duration::from_secs(seconds as u64);
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_with_how_long_ago_they_were() {
        let now = "2026-01-02T03:04:05.5Z";
        let said = since("2026-01-02T03:01:03.123456Z", now);
        assert_eq!(said, " since 2026-01-02T03:01:03Z (3m 2s)");
        assert_eq!(since("soon", now), " since soon");
        assert_eq!(
            [-3.0, 0.25, 59.0, 3_725.9].map(duration),
            ["0.0s", "0.2s", "59.0s", "1h 2m 5s"]
        );
    }
}
