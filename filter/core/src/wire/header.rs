//! A header line that the gateway writes, and the valid forms of `retry-after`.

use std::borrow::Cow;

/// A header's name and value.
pub type HeaderLine = (&'static str, Cow<'static, str>);

/// Returns whether a provider's `retry-after` is valid: seconds, or a date (RFC 9110, 10.2.3). Any other value could
/// contain arbitrary text.
pub fn is_retry_after(value: &[u8]) -> bool {
    let is_seconds = (1..=10).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let is_date = |text: &str| text.trim() == text && httpdate::parse_http_date(text).is_ok();
    is_seconds || std::str::from_utf8(value).is_ok_and(is_date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date_and_nothing_else() {
        let dates = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"];
        for wait in ["0", "30", "1000000000"].iter().chain(&dates) {
            assert!(is_retry_after(wait.as_bytes()), "{wait}");
        }
        for other in [
            "",
            "soon",
            "-1",
            "1.5",
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
}
