//! Numbers and texts as they are shown.

use std::time::Duration;

/// `4.2 ms`, `184 ms`, `2.1 s`: three digits are enough to compare.
pub fn short(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    if millis < 99.95 {
        format!("{millis:.1} ms")
    } else if millis < 9_999.5 {
        format!("{millis:.0} ms")
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

/// `1,234,567`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`
pub fn counted(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{} {what}s", grouped(number)),
    }
}

/// Without what would move the cursor: the text may be anybody's.
pub fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_readable() {
        let texts = [4_200, 184_000, 12_100_000].map(|micros| short(Duration::from_micros(micros)));
        assert_eq!(texts, ["4.2 ms", "184 ms", "12.1 s"]);
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(
            [(0, "row"), (1, "row"), (1234, "key")].map(|(n, what)| counted(n, what)),
            ["0 rows", "1 row", "1,234 keys"]
        );
    }
}
