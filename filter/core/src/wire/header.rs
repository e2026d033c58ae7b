//! A header line as the gateway writes it, and what `retry-after` may say.

use std::borrow::Cow;

/// A header's name and value.
pub type HeaderLine = (&'static str, Cow<'static, str>);

/// Whether a provider's `retry-after` is one: seconds, or a date (RFC 9110, 10.2.3). Anything else could say anything.
pub fn is_retry_after(value: &[u8]) -> bool {
    let is_digits = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit);
    match value {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [
            day @ ..,
            b',',
            b' ',
            d1,
            d2,
            b' ',
            m1,
            m2,
            m3,
            b' ',
            y1,
            y2,
            y3,
            y4,
            b' ',
            h1,
            h2,
            b':',
            n1,
            n2,
            b':',
            s1,
            s2,
            b' ',
            b'G',
            b'M',
            b'T',
        ] => {
            day.len() == 3
                && [day, &[*m1, *m2, *m3]].iter().all(|name| name.iter().all(u8::is_ascii_alphabetic))
                && is_digits(&[*d1, *d2, *y1, *y2, *y3, *y4, *h1, *h2, *n1, *n2, *s1, *s2])
        }
        seconds => (1..=10).contains(&seconds.len()) && is_digits(seconds),
    }
}
