//! The request as it goes upstream: the caller's bytes behind a short head, the only part that differs between
//! attempts.

use crate::request::facts::{Facts, Member};
use crate::wire::json::Span;

/// A request that is ready to go upstream.
#[derive(Debug, PartialEq, Eq)]
pub struct Splice {
    /// The head of each attempt, in the plan's order: from `{` to the comma before the rest.
    pub heads: Vec<Vec<u8>>,
    /// The spans of the caller's body that follow the head, to be joined by commas.
    pub rest: Vec<Span>,
    /// What follows the last of them: the closing brace, unless that span contains it.
    pub closing: Span,
}

impl Splice {
    /// Joins `heads` to the members of the body that do not move into them. Adjacent ones stay together, with the
    /// commas and white space between them.
    pub fn new(facts: &Facts, heads: Vec<Vec<u8>>, moves: impl Fn(&Member) -> bool) -> Self {
        let mut rest: Vec<Span> = Vec::with_capacity(2);
        let mut after_kept = false;
        let mut end = facts.body.iter().position(|b| *b == b'{').map_or(0, |brace| brace + 1);
        for (i, member) in facts.members.iter().enumerate() {
            let kept = !moves(member);
            match rest.last_mut() {
                Some(run) if kept && after_kept => run.end = member.value.span.end,
                _ if kept => {
                    let start = if i == 0 { end } else { after_comma(facts, end, member.key.start) };
                    rest.push(start..member.value.span.end);
                }
                _ => {}
            }
            after_kept = kept;
            end = member.value.span.end;
        }
        let mut closing = end..facts.body.len();
        if let Some(last) = rest.last_mut().filter(|last| last.end == end) {
            last.end = closing.end;
            closing = closing.end..closing.end;
        }
        Self { heads, rest, closing }
    }

    /// Returns the length in bytes of everything after the head.
    pub fn rest_len(&self) -> usize {
        self.rest.iter().map(ExactSizeIterator::len).sum::<usize>()
            + self.rest.len().saturating_sub(1)
            + self.closing.len()
    }

    /// Returns where the rest starts if it is a single span up to the end of the body. Then only a prefix of the body
    /// has to be replaced.
    pub fn prefix_only(&self, body_len: usize) -> Option<usize> {
        match self.rest.as_slice() {
            [only] if only.end == body_len => Some(only.start),
            _ => None,
        }
    }

    /// Returns the whole body of the first attempt.
    pub fn assemble(&self, body: &[u8]) -> Vec<u8> {
        let head = self.heads.first().map_or(&[][..], Vec::as_slice);
        let mut out = Vec::with_capacity(head.len() + self.rest_len());
        out.extend_from_slice(head);
        for (i, span) in self.rest.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(body.get(span.clone()).unwrap_or_default());
        }
        out.extend_from_slice(body.get(self.closing.clone()).unwrap_or_default());
        out
    }
}

fn after_comma(facts: &Facts, from: usize, to: usize) -> usize {
    let between = facts.bytes(&(from..to));
    between.iter().position(|b| *b == b',').map_or(to, |comma| from + comma + 1)
}
