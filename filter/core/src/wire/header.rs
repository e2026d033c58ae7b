//! A header line that the gateway writes, and the valid forms of `retry-after`.

use std::borrow::Cow;

/// A header's name and value.
pub type HeaderLine = (&'static str, Cow<'static, str>);

/// How long a provider asks to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// So many milliseconds.
    Ms(u64),
    /// Until a date.
    Date,
}

impl RetryAfter {
    /// Reads `retry-after` (seconds, or a date; RFC 9110, 10.2.3) and `retry-after-ms`, which OpenAI and Azure send and
    /// their clients prefer. Both may have decimals: clients read them as numbers. Each is empty if absent. Returns
    /// `None` if neither is valid.
    pub fn read(retry_after: &[u8], retry_after_ms: &[u8]) -> Option<Self> {
        let ms = decimal(retry_after_ms).map(|ms| Self::Ms(ms.div_ceil(1000)));
        ms.or_else(|| decimal(retry_after).map(Self::Ms)).or_else(|| is_date(retry_after).then_some(Self::Date))
    }

    /// Returns the milliseconds; `None` for a date.
    pub fn ms(self) -> Option<u64> {
        match self {
            Self::Ms(ms) => Some(ms),
            Self::Date => None,
        }
    }
}

/// Returns whether a provider's `retry-after` is valid: seconds, or a date (RFC 9110, 10.2.3). Any other value could
/// contain arbitrary text.
pub fn is_retry_after(value: &[u8]) -> bool {
    is_decimal(value) || is_date(value)
}

/// Returns whether a provider's `retry-after-ms` is valid.
pub fn is_retry_after_ms(value: &[u8]) -> bool {
    is_decimal(value)
}

fn is_date(value: &[u8]) -> bool {
    let is_date = |text: &str| text.trim() == text && httpdate::parse_http_date(text).is_ok();
    std::str::from_utf8(value).is_ok_and(is_date)
}

/// Returns whether a value has up to ten digits and, after a point, up to ten more.
fn is_decimal(value: &[u8]) -> bool {
    decimal(value).is_some()
}

/// Reads a decimal number in thousandths, rounded up.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = |part: &[u8]| (1..=10).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
    let mut parts = value.splitn(2, |b| *b == b'.');
    let (whole, fraction) = (parts.next()?, parts.next());
    if !digits(whole) || !fraction.is_none_or(digits) {
        return None;
    }
    let number = |part: &[u8]| std::str::from_utf8(part).ok()?.parse::<u64>().ok();
    let fraction = fraction.unwrap_or_default();
    let (thousandths, rest) = fraction.split_at_checked(3).unwrap_or((fraction, b""));
    let scale = 10_u64.pow(3 - u32::try_from(thousandths.len()).unwrap_or(3));
    let thousandths = if thousandths.is_empty() { 0 } else { number(thousandths)? * scale };
    Some(number(whole)? * 1000 + thousandths + u64::from(rest.iter().any(|b| *b != b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date_and_nothing_else() {
        let dates = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"];
        for wait in ["0", "30", "1000000000", "0.5", "1.5", "20.000"].iter().chain(&dates) {
            assert!(is_retry_after(wait.as_bytes()), "{wait}");
        }
        for other in [
            "",
            "soon",
            "-1",
            "1.",
            ".5",
            "1.5s",
            "1e3",
            "1.5.2",
            "1.12345678901",
            "12345678901",
            "Sun, 06 Nov 1994 08:49:37 GMT sk-secret",
            " Sun, 06 Nov 1994 08:49:37 GMT",
            "Xyz, 06 Nov 1994 08:49:37 GMT",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 36 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 28:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
        ] {
            assert!(!is_retry_after(other.as_bytes()), "{other}");
        }
        assert!(!is_retry_after(b"Sun, 06 Nov 1994 08:49:37 GMT\xff"));
    }
    #[test]
    fn a_wait_is_read_to_the_millisecond() {
        let read = |retry_after: &str, ms: &str| RetryAfter::read(retry_after.as_bytes(), ms.as_bytes());
        for (retry_after, ms, wait) in [
            ("3", "", 3000),
            ("0.5", "", 500),
            ("1.0005", "", 1001),
            ("0", "", 0),
            ("", "1500", 1500),
            ("", "20.5", 21),
            // Clients prefer the more exact one.
            ("2", "1500", 1500),
            ("2", "soon", 2000),
        ] {
            assert_eq!(read(retry_after, ms), Some(RetryAfter::Ms(wait)), "{retry_after} {ms}");
        }
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT", ""), Some(RetryAfter::Date));
        assert_eq!(read("", "Sun, 06 Nov 1994 08:49:37 GMT"), None);
        assert_eq!((read("", ""), read("soon", "6m0s")), (None, None));
        assert_eq!(RetryAfter::Date.ms(), None);
    }
}
