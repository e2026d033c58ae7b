//! The usage object of Anthropic's Messages.
//!
//! `input_tokens` excludes what the prompt cache served or stored. A stream counts its input in `message_start`, and
//! its output in each `message_delta`, where counts are those of the whole answer so far. Some servers count the input
//! in the last `message_delta` only.

use crate::service_tier::ServedTier;
use crate::usage::ReportedUsage;
use crate::wire::json::{InvalidJson, Kind, Scanner, unquote};

/// The counts of an answer so far; `None` where none has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    output: Option<u64>,
    /// The service tier that served.
    pub tier: Option<ServedTier>,
}

impl Counts {
    /// Reads one more usage object. A count that it has replaces the one before.
    ///
    /// # Errors
    /// If it is not valid JSON.
    pub fn read(&mut self, s: &mut Scanner) -> Result<(), InvalidJson> {
        if s.peek()? != Kind::Object {
            return s.value().map(drop);
        }
        s.object(|s, key| {
            let into = match s.bytes(&key) {
                b"\"input_tokens\"" => &mut self.input,
                b"\"cache_read_input_tokens\"" => &mut self.cache_read,
                b"\"cache_creation_input_tokens\"" => &mut self.cache_write,
                b"\"output_tokens\"" => &mut self.output,
                b"\"service_tier\"" => {
                    let value = s.value()?;
                    let tier = unquote(s.bytes(&value.span)).and_then(|tier| ServedTier::named(&tier));
                    self.tier = tier.or(self.tier);
                    return Ok(());
                }
                _ => return s.value().map(drop),
            };
            tokens(s, into)
        })
    }

    /// Returns the usage; `None` if nothing has been counted.
    pub fn reported(&self) -> Option<ReportedUsage> {
        if self.input.is_none() && self.output.is_none() {
            return None;
        }
        let (cached_input, cache_write) = (self.cache_read.unwrap_or(0), self.cache_write.unwrap_or(0));
        // A prompt has tokens, so a count of 0 with nothing from the cache is no count.
        let input = self.input.map(|input| input.saturating_add(cached_input).saturating_add(cache_write));
        Some(ReportedUsage {
            input: input.filter(|input| *input > 0),
            cached_input,
            cache_write,
            output: self.output.unwrap_or(0),
            ..ReportedUsage::default()
        })
    }
}

/// Reads a token count, clamped to between 0 and one billion, so that nothing wraps and a broken provider cannot charge
/// without bound. Null and values that are not numbers leave `into` unchanged.
fn tokens(s: &mut Scanner, into: &mut Option<u64>) -> Result<(), InvalidJson> {
    const MAX: u64 = 1_000_000_000;
    let value = s.value()?;
    if value.kind == Kind::Number {
        let text = std::str::from_utf8(s.bytes(&value.span)).unwrap_or_default();
        // `as` saturates: a negative number or NaN becomes 0.
        *into = Some(text.parse::<u64>().unwrap_or_else(|_| text.parse::<f64>().unwrap_or(0.0) as u64).min(MAX));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn after(all: &[Value]) -> Counts {
        let mut counts = Counts::default();
        for usage in all {
            counts.read(&mut Scanner::lenient(usage.to_string().as_bytes(), 64)).unwrap();
        }
        counts
    }

    #[test]
    fn what_the_prompt_cache_did_is_beside_the_input() {
        let usage = json!({"input_tokens": 10, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 70,
            "output_tokens": 5, "service_tier": "priority"});
        let counts = after(&[usage]);
        let read = counts.reported().unwrap();
        assert_eq!((read.input, read.cached_input, read.cache_write, read.output), (Some(100), 70, 20, 5));
        assert_eq!(counts.tier.map(|tier| tier.name().to_owned()), Some("priority".to_owned()));
    }

    #[test]
    fn later_counts_replace_earlier_ones_and_are_never_added() {
        let start = json!({"input_tokens": 10, "cache_read_input_tokens": 70, "output_tokens": 1});
        let read = |all: &[Value]| after(all).reported().map(|usage| (usage.input, usage.output));
        assert_eq!(read(&[start.clone(), json!({"output_tokens": 9})]), Some((Some(80), 9)));
        assert_eq!(
            read(&[start.clone(), json!({"output_tokens": 9}), json!({"output_tokens": 12})]),
            Some((Some(80), 12))
        );
        let whole = json!({"input_tokens": 11, "cache_read_input_tokens": 71, "output_tokens": 9});
        assert_eq!(read(&[start, whole.clone()]), Some((Some(82), 9)));
        // A server that counts the input at the end.
        assert_eq!(read(&[json!({"input_tokens": 0, "output_tokens": 0}), whole]), Some((Some(82), 9)));
        assert_eq!(read(&[json!({"input_tokens": 0, "output_tokens": 0})]), Some((None, 0)));
    }

    #[test]
    fn absurd_counts_neither_wrap_nor_charge_without_bound() {
        let read = |count: &str| {
            let usage = format!("{{\"input_tokens\":{count},\"output_tokens\":{count}}}");
            let mut counts = Counts::default();
            counts.read(&mut Scanner::lenient(usage.as_bytes(), 64)).unwrap();
            counts.reported().map(|usage| usage.output)
        };
        assert_eq!(read("1e30"), Some(1_000_000_000));
        assert_eq!(read("-5"), Some(0));
        assert_eq!(read("\"7\""), None);
        assert_eq!(read("null"), None);
        assert_eq!(after(&[json!(null), json!([1])]).reported(), None);
    }
}
