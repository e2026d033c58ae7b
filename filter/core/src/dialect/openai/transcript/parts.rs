//! The parts of a recorded event, found by where they stand.

use crate::dialect::answer::NotKept;
use crate::dialect::openai::read::{Part, Place};
use crate::wire::json::{Span, unquote};
use std::borrow::Cow;

/// The parts of a chunk, a choice or a tool call, and the data that they refer to.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) data: &'a [u8],
    pub(super) parts: &'a [Part],
}

impl<'a> Parts<'a> {
    /// Rejects ambiguous input: a duplicate member, or a value other than an object where a choice or a tool call is
    /// expected.
    pub(super) fn check(self) -> Result<(), NotKept> {
        let (mut choice, mut call) = (0usize, 0usize);
        let mut names = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            match part.place {
                Place::Strange => return Err(NotKept("shape")),
                Place::NewChoice => choice += 1,
                Place::NewCall => call += 1,
                // A member that follows a choice or a call may belong to an enclosing object.
                Place::Chunk => names.push((0, 0, part.place, self.name(part)?)),
                Place::Call | Place::CallFunction => names.push((choice, call, part.place, self.name(part)?)),
                _ => names.push((choice, 0, part.place, self.name(part)?)),
            }
        }
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return Err(NotKept("shape"));
        }
        Ok(())
    }

    pub(super) fn of(self, place: Place) -> impl Iterator<Item = &'a Part> {
        self.parts.iter().filter(move |part| part.place == place)
    }

    /// Returns the parts after each start of a choice or a call, up to the next start.
    pub(super) fn split(self, start: Place) -> impl Iterator<Item = Parts<'a>> {
        self.parts.split(move |part| part.place == start).skip(1).map(move |parts| Parts { parts, ..self })
    }

    /// Returns a member's name, with escapes decoded.
    pub(super) fn name(self, part: &Part) -> Result<Cow<'a, str>, NotKept> {
        self.data.get(part.name.clone()).and_then(unquote).ok_or(NotKept("shape"))
    }

    /// Returns a member's value as raw JSON.
    pub(super) fn json(self, part: &Part) -> Result<&'a str, NotKept> {
        Some(self.at(&part.value)).filter(|text| !text.is_empty()).ok_or(NotKept("shape"))
    }

    fn at(self, span: &Span) -> &'a str {
        self.data.get(span.clone()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// Returns the `index` of a choice or a call: `None` if it has no index, `Some(None)` if the index is invalid.
    pub(super) fn index(self, place: Place) -> Result<Option<Option<u64>>, NotKept> {
        for part in self.of(place) {
            if self.name(part)? == "index" {
                return Ok(Some(self.json(part)?.parse().ok()));
            }
        }
        Ok(None)
    }
}
