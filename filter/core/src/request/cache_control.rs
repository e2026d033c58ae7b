//! A caller's `Cache-Control` (RFC 9111, section 5.2.1).

/// The supported directives; others are ignored, as the RFC requires.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// `no-cache`: ask the model again. Its answer is stored.
    pub no_cache: bool,
    /// `no-store`: neither answer from the cache nor store the answer.
    pub no_store: bool,
    /// `max-age`: the greatest accepted age of a cached answer, in seconds.
    pub max_age: Option<u64>,
}

impl CacheControl {
    /// Adds the directives of one more header line. The smallest age counts. An age that is not a number counts as 0,
    /// so that a directive which is not understood never leads to an old answer.
    pub fn and(mut self, line: &[u8]) -> Self {
        for directive in line.split(|b| *b == b',') {
            let mut parts = directive.splitn(2, |b| *b == b'=');
            let name = parts.next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
            let value = parts.next().unwrap_or_default().trim_ascii();
            match name.as_slice() {
                b"no-cache" => self.no_cache = true,
                b"no-store" => self.no_store = true,
                b"max-age" => {
                    let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
                    let age = seconds(value);
                    self.max_age = Some(self.max_age.map_or(age, |other| other.min(age)));
                }
                _ => {}
            }
        }
        self
    }
}

fn seconds(value: &[u8]) -> u64 {
    match value.iter().all(u8::is_ascii_digit) && !value.is_empty() {
        // An age that does not fit the number exceeds that of any answer.
        true => std::str::from_utf8(value).ok().map_or(0, |digits| digits.parse().unwrap_or(u64::MAX)),
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_callers_send() {
        let read = |line: &str| CacheControl::default().and(line.as_bytes());
        assert_eq!(read("no-cache"), CacheControl { no_cache: true, ..Default::default() });
        assert_eq!(read("No-Store , foo=bar"), CacheControl { no_store: true, ..Default::default() });
        assert_eq!(read("max-age=60").max_age, Some(60));
        assert_eq!(read("max-age = \"60\"").max_age, Some(60));
        assert_eq!(read("max-age=60, max-age=5").max_age, Some(5));
        assert_eq!(read("max-age=99999999999999999999999").max_age, Some(u64::MAX));
        for broken in ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=x"] {
            assert_eq!(read(broken).max_age, Some(0), "{broken}");
        }
        assert_eq!(read(""), CacheControl::default());
        assert_eq!(
            read("max-age=9").and(b"no-cache"),
            CacheControl { no_cache: true, no_store: false, max_age: Some(9) }
        );
    }
}
