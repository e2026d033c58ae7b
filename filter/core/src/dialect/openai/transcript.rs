//! Reassembles a stream into a completion: for the cache, or for a caller that wanted a whole answer.
//!
//! Text and the arguments of calls are joined, log probabilities are appended, and what a stream says once or again and
//! again in the same way is taken as it is. This is what OpenAI's own clients do. Where they guess (an unknown member
//! that comes in pieces), the answer cannot be put together. Only of what a server says besides the answer, such as a
//! filter's findings, the last value counts; that leaves a doubt, and the cache stores nothing then.

mod blocks;
mod choice;
mod details;
mod doubts;
mod members;
mod parts;
mod parts_limit;
mod tool_calls;

use crate::cache::local::recording::{BudgetGuard, FULL, Recording};
use crate::dialect::answer::{NotKept, TOO_LONG};
use crate::dialect::openai::read::{Part, Place};
use crate::dialect::openai::transcript::choice::Choice;
use crate::dialect::openai::transcript::doubts::Doubts;
use crate::dialect::openai::transcript::members::{Change, Members, begin_member, separate};
use crate::dialect::openai::transcript::parts::Parts;
use crate::wire::json::Kind;
use serde_json::Value;

/// The completion so far.
///
/// It holds the completion's text and little else. It is bounded by the longest answer that is kept, and all streams of
/// a worker share one budget. Recording stops at either limit.
#[derive(Debug)]
pub struct Transcript {
    members: Members,
    choices: Vec<Choice>,
    /// Bytes of all texts, names and frames.
    bytes: usize,
    max_bytes: usize,
    /// Its share of the recording budget.
    budget: BudgetGuard,
    doubts: Doubts,
    unfit: Option<NotKept>,
}

/// Approximate overhead of a choice or a tool call besides its texts, in an entry and in memory, in bytes.
const FRAME: usize = 64;

impl Transcript {
    /// Creates an empty transcript.
    pub fn new(recording: Recording) -> Self {
        let Recording { max_bytes, budget, is_for_caller } = recording;
        let doubts = Doubts { is_for_cache: !is_for_caller, is_any: false };
        let (members, choices) = (Members::default(), Vec::new());
        Self { members, choices, bytes: 0, max_bytes, budget, doubts, unfit: None }
    }

    /// Adds one event, given its data and the parts read from it.
    pub fn event(&mut self, data: &[u8], parts: &[Part]) {
        if self.unfit.is_some() {
            return;
        }
        let read = self.chunk(Parts { data, parts }).and_then(|()| match self.bytes {
            bytes if bytes > self.max_bytes => Err(NotKept(TOO_LONG)),
            bytes if !self.budget.set(bytes) => Err(NotKept(FULL)),
            _ => Ok(()),
        });
        if let Err(why) = read {
            self.give_up(why);
        }
    }

    /// Forgets the answer, which cannot be put together.
    pub fn give_up(&mut self, why: NotKept) {
        (self.members, self.choices) = (Members::default(), Vec::new());
        (self.bytes, self.unfit) = (0, Some(why));
        self.budget.set(0);
    }

    /// Returns whether the answer is for the caller, and not only for the cache.
    pub fn is_for_caller(&self) -> bool {
        !self.doubts.is_for_cache
    }

    /// Returns why the answer cannot be put together, if so.
    pub fn unfit(&self) -> Option<NotKept> {
        self.unfit
    }

    /// Returns whether the stream left a doubt what the whole answer is.
    pub fn is_doubtful(&self) -> bool {
        self.doubts.is_any
    }

    /// Returns the completion for the cache, once the stream has ended properly.
    ///
    /// # Errors
    /// [`NotKept`] if it could not be reassembled.
    pub fn finish(self) -> Result<Value, NotKept> {
        let text = self.text()?;
        if !self.choices.iter().all(Choice::has_whole_calls) {
            return Err(NotKept("shape"));
        }
        serde_json::from_str(&text).map_err(|_| NotKept("shape"))
    }

    /// Returns the completion as JSON, once the stream has ended properly.
    ///
    /// # Errors
    /// [`NotKept`] if it could not be reassembled.
    pub fn text(&self) -> Result<String, NotKept> {
        if let Some(why) = self.unfit {
            return Err(why);
        }
        let mut out = String::with_capacity(self.bytes + self.bytes / 4 + 512);
        out.push('{');
        self.members.write("id", &mut out);
        begin_member("object", &mut out);
        out.push_str("\"chat.completion\"");
        self.members.write("created", &mut out);
        self.members.write("model", &mut out);
        begin_member("choices", &mut out);
        out.push('[');
        let mut choices: Vec<&Choice> = self.choices.iter().collect();
        choices.sort_by_key(|choice| choice.index);
        for choice in choices {
            separate(&mut out);
            choice.write(self.is_for_caller(), &mut out)?;
        }
        out.push(']');
        self.members.write("usage", &mut out);
        self.members.write_others(&["id", "created", "model", "usage"], &mut out);
        out.push('}');
        Ok(out)
    }

    fn chunk(&mut self, chunk: Parts) -> Result<(), NotKept> {
        chunk.check()?;
        for part in chunk.of(Place::Chunk) {
            let (name, json) = (chunk.name(part)?, chunk.json(part)?);
            match (&*name, part.kind) {
                // `obfuscation` is padding against eavesdroppers. A chunk without a usage says so.
                ("choices" | "object" | "obfuscation", _) | ("usage", Kind::Null) => {}
                // Azure's first chunk has an empty one of each.
                ("id" | "created" | "model", _) if self.members.has_value(&name) => {}
                // Groq's last one has the usage too, which is in `usage`.
                ("x_groq", _) if !self.doubts.is_for_cache && self.members.has_value(&name) => {}
                ("created", Kind::Number) if json == "0" => {}
                // The last value wins: some providers send a running usage count in every chunk.
                (name, kind) => {
                    let change = self.members.set(name, kind, json, &mut self.bytes);
                    let may_change = matches!(name, "usage" | "service_tier" | "system_fingerprint");
                    self.doubts.is_any |= change == Change::Replaced && !may_change;
                }
            }
        }
        let mut indexes = Vec::new();
        for parts in chunk.split(Place::NewChoice) {
            // Two deltas of one choice in one chunk may as well be two choices without an index.
            let index = parts.index(Place::Choice)?.map_or(Ok(0), |index| index.ok_or(NotKept("shape")))?;
            if indexes.contains(&index) {
                self.doubts.raise()?;
            }
            indexes.push(index);
            let at = self.choices.iter().position(|choice| choice.index == index);
            if at.is_none() {
                self.bytes = self.bytes.saturating_add(parts_limit::size(self.choices.len(), FRAME));
                self.choices.push(Choice::new(index));
            }
            let choice = match at {
                Some(at) => self.choices.get_mut(at),
                None => self.choices.last_mut(),
            };
            let choice = choice.ok_or(NotKept("shape"))?;
            choice.delta(parts, &mut self.members, &mut self.bytes, &mut self.doubts)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod assembly_tests;
#[cfg(test)]
mod tests;
