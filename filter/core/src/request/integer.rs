//! Whole numbers of a request: JSON has one kind of number, so `100`, `100.0` and `1e2` are the same.

use crate::request::facts::{Facts, Member};
use crate::wire::json::Kind;

/// A number of a request, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// A whole number, with its sign. A zero has none.
    Whole {
        /// Whether it is below zero.
        negative: bool,
        /// Its absolute value.
        value: u64,
    },
    /// A whole number beyond 64 bits.
    TooLarge {
        /// Whether it is below zero.
        negative: bool,
    },
    /// It has a fraction.
    Fraction,
}

/// The longest number that is read, in bytes. A longer one counts as too large, whatever it is.
const MAX_LENGTH: usize = 1024;

/// Reads a JSON number.
pub fn read(text: &[u8]) -> Number {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    if text.len() > MAX_LENGTH {
        return Number::TooLarge { negative };
    }
    let at = text.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(at);
    let point = mantissa.iter().position(|b| *b == b'.').unwrap_or(mantissa.len());
    let digits = || mantissa.iter().filter(|b| b.is_ascii_digit()).map(|b| u64::from(b - b'0'));
    // The digits from the first to the last that is not zero, and the power of ten of the last.
    let first = digits().take_while(|digit| *digit == 0).count();
    let last = digits().enumerate().filter(|(_, digit)| *digit > 0).last();
    let Some((last, _)) = last else { return Number::Whole { negative: false, value: 0 } };
    let exponent = exponent.get(1..).and_then(|e| std::str::from_utf8(e).ok()).map_or(Some(0i64), |e| e.parse().ok());
    // An exponent that is no 64-bit number is too large or, with a minus sign, too small for any text.
    let Some(exponent) = exponent else {
        return if text.contains(&b'-') { Number::Fraction } else { Number::TooLarge { negative } };
    };
    let zeros = exponent.saturating_add(point as i64).saturating_sub(last as i64 + 1);
    if zeros < 0 {
        return Number::Fraction;
    }
    let ten_times = |value: u64, digit: u64| value.checked_mul(10)?.checked_add(digit);
    let significant = digits().skip(first).take(last + 1 - first);
    // No 64-bit number has more digits than 20, so this is bounded.
    let added = std::iter::repeat_n(0, zeros.min(20) as usize);
    match significant.chain(added).try_fold(0u64, ten_times) {
        Some(value) => Number::Whole { negative, value },
        None => Number::TooLarge { negative },
    }
}

/// Returns whether an output limit means no limit, as -1 does for LM Studio and llama.cpp.
pub fn is_unlimited(text: &[u8]) -> bool {
    read(text) == Number::Whole { negative: true, value: 1 }
}

/// How a number of a request goes upstream if not as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewritten {
    /// Not at all: it asks for no output limit, which other servers refuse.
    Dropped,
    /// In digits alone: servers in Go or Rust refuse `100.0`.
    Digits {
        /// Whether a minus sign comes first.
        negative: bool,
        /// The absolute value.
        value: u64,
    },
}

/// Returns how a member goes upstream if it is a whole number that is written in another way or stands for none.
pub fn rewritten(facts: &Facts, member: &Member) -> Option<Rewritten> {
    if member.value.kind != Kind::Number || !is_integer(&member.name) {
        return None;
    }
    let text = facts.bytes(&member.value.span);
    // The common case.
    if text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let is_limit = matches!(&*member.name, "max_tokens" | "max_completion_tokens");
    match read(text) {
        Number::Whole { negative: true, value: 1 } if is_limit => Some(Rewritten::Dropped),
        Number::Whole { negative, value } if text.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) => {
            Some(Rewritten::Digits { negative, value })
        }
        _ => None,
    }
}

/// Whether OpenAI's API, or vLLM's additions to it, expect a whole number of this name.
fn is_integer(name: &str) -> bool {
    matches!(
        name,
        "max_tokens"
            | "max_completion_tokens"
            | "n"
            | "seed"
            | "top_logprobs"
            | "top_k"
            | "min_tokens"
            | "best_of"
            | "prompt_logprobs"
            | "truncate_prompt_tokens"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_whole_number_is_read_exactly() {
        let whole = |negative, value| Number::Whole { negative, value };
        for (text, number) in [
            ("100", whole(false, 100)),
            ("100.0", whole(false, 100)),
            ("1e2", whole(false, 100)),
            ("1E+2", whole(false, 100)),
            ("0.1e3", whole(false, 100)),
            ("10000e-2", whole(false, 100)),
            ("12.50e1", whole(false, 125)),
            ("0", whole(false, 0)),
            ("-0.00e9", whole(false, 0)),
            ("0e99999999999999999999", whole(false, 0)),
            ("-1", whole(true, 1)),
            ("-1.0", whole(true, 1)),
            ("-10e-1", whole(true, 1)),
            ("18446744073709551615", whole(false, u64::MAX)),
            ("1.8446744073709551615e19", whole(false, u64::MAX)),
            ("18446744073709551616", Number::TooLarge { negative: false }),
            ("-99999999999999999999", Number::TooLarge { negative: true }),
            ("1e20", Number::TooLarge { negative: false }),
            ("1e400", Number::TooLarge { negative: false }),
            ("1e99999999999999999999", Number::TooLarge { negative: false }),
            ("1e9223372036854775807", Number::TooLarge { negative: false }),
            ("1.5", Number::Fraction),
            ("100.00000000000000000001", Number::Fraction),
            ("1e-1", Number::Fraction),
            ("1e-99999999999999999999", Number::Fraction),
            ("0.1e-9223372036854775808", Number::Fraction),
            ("-0.5", Number::Fraction),
        ] {
            assert_eq!(read(text.as_bytes()), number, "{text}");
        }
    }
}
