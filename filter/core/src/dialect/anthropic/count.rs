//! The answer to "Count Message tokens": `{"input_tokens":N}`.

use crate::dialect::answer::WholeAnswer;
use crate::dialect::anthropic::proof;
use crate::outcome::outcome::Outcome;
use crate::routing::attempt::Failure;
use crate::tokens::TokenCounter;
use crate::usage::ReportedUsage;
use crate::wire::json::{InvalidJson, Kind, Scanner};

/// Reads a whole answer. Counting makes no tokens, and the prompt is not charged.
///
/// # Errors
/// Why the body is not a count.
pub fn answer(body: &[u8]) -> Result<WholeAnswer, Failure> {
    if !is_count(body) {
        // An error says why.
        proof::answer(body)?;
        return Err(Failure::bad_gateway(Outcome::NotACompletion));
    }
    let nothing = ReportedUsage { input: Some(0), ..ReportedUsage::default() };
    Ok(WholeAnswer { usage: Some(nothing), service_tier: None, text: TokenCounter::default() })
}

/// Returns whether a body is a count of tokens.
pub fn is_count(body: &[u8]) -> bool {
    let mut is_count = false;
    let mut scanner = Scanner::lenient(body, 64);
    let read = scanner.object(|s, key| {
        let is_tokens = s.bytes(&key) == b"\"input_tokens\"";
        is_count |= is_tokens && s.peek()? == Kind::Number;
        s.value().map(drop)?;
        Ok::<_, InvalidJson>(())
    });
    is_count && read.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_costs_nothing_and_anything_else_is_none() {
        let usage = answer(b"{\"input_tokens\": 2095}").unwrap().usage.unwrap();
        assert_eq!((usage.input, usage.output), (Some(0), 0));
        for other in
            ["{}", "{\"input_tokens\":\"1\"}", "[]", "{\"input_tokens\":1", "{\"type\":\"error\",\"error\":{}}"]
        {
            assert!(answer(other.as_bytes()).is_err(), "{other}");
        }
    }
}
