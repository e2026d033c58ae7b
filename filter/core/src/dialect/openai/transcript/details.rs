//! OpenRouter's `reasoning_details`, whose entries come in pieces.
//!
//! Pieces of one type and `index` are one entry: its texts are joined, and the rest is set once. Providers check the
//! signature of an entry against its whole text, so a client could not send the pieces back. This is what OpenRouter's
//! clients do. Source: OpenRouter's documentation, "Reasoning Tokens".

use crate::dialect::answer::{NotKept, TOO_LONG};
use crate::dialect::openai::transcript::members::{Change, Members, separate};
use crate::dialect::openai::transcript::parts_limit::MAX_PARTS;
use crate::wire::json::{InvalidJson, Kind, Scanner, unquote};

/// The entries so far, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Details {
    entries: Vec<Entry>,
    /// Whether an entry without an index has come: nothing says whether another one continues it.
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    index: Option<String>,
    kind: String,
    members: Members,
}

/// Members whose pieces are joined.
const TEXTS: [&str; 2] = ["text", "summary"];

/// Approximate overhead of an entry besides its members, in bytes.
const FRAME: usize = 64;

/// A member of a piece: its name, its kind, and its value as it is written.
type Member = (String, Kind, String);

impl Details {
    /// Adds the list of one delta, as it is written.
    ///
    /// # Errors
    /// [`NotKept`] if nothing says which entry a piece belongs to, or if two pieces contradict each other.
    pub(super) fn delta(&mut self, json: &str, bytes: &mut usize) -> Result<(), NotKept> {
        let pieces = read(json).ok_or(NotKept("shape"))?;
        let is_whole = pieces.iter().any(|piece| value(piece, "index").is_none());
        if self.is_closed && !pieces.is_empty() || is_whole && !self.entries.is_empty() {
            return Err(NotKept("shape"));
        }
        self.is_closed |= is_whole;
        pieces.into_iter().try_for_each(|piece| self.piece(&piece, bytes))
    }

    fn piece(&mut self, piece: &[Member], bytes: &mut usize) -> Result<(), NotKept> {
        let index = value(piece, "index").map(str::to_owned);
        let kind = value(piece, "type").unwrap_or_default();
        let is_same =
            |entry: &Entry| index.is_some() && entry.index == index && (kind.is_empty() || entry.kind == kind);
        let at = self.entries.iter().rposition(is_same);
        if at.is_none() && self.entries.len() >= MAX_PARTS {
            return Err(NotKept(TOO_LONG));
        }
        if at.is_none() {
            *bytes = bytes.saturating_add(FRAME);
            self.entries.push(Entry { index, kind: kind.to_owned(), members: Members::default() });
        }
        let entry = match at {
            Some(at) => self.entries.get_mut(at),
            None => self.entries.last_mut(),
        };
        let entry = entry.ok_or(NotKept("shape"))?;
        for (name, kind, json) in piece {
            let is_text = TEXTS.contains(&&**name) && matches!(kind, Kind::String | Kind::Null);
            let change = match is_text {
                true => entry.members.append(name, *kind, json, bytes),
                false => entry.members.set(name, *kind, json, bytes),
            };
            if change == Change::Replaced {
                return Err(NotKept("shape"));
            }
        }
        Ok(())
    }

    /// Returns whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Writes the list.
    pub(super) fn write(&self, out: &mut String) {
        out.push('[');
        for entry in &self.entries {
            separate(out);
            out.push('{');
            entry.members.write_others(&[], out);
            out.push('}');
        }
        out.push(']');
    }
}

/// Returns the value of a piece's member, as it is written, unless it is null.
fn value<'a>(piece: &'a [Member], wanted: &str) -> Option<&'a str> {
    piece.iter().find(|(name, kind, _)| name == wanted && *kind != Kind::Null).map(|(_, _, json)| &**json)
}

/// Reads a list of objects. A member that comes twice makes it ambiguous.
fn read(json: &str) -> Option<Vec<Vec<Member>>> {
    let (mut all, mut is_clear) = (Vec::new(), true);
    let mut scanner = Scanner::lenient(json.as_bytes(), u32::MAX);
    let read = scanner.array(|s, _| {
        let mut members: Vec<Member> = Vec::new();
        if s.peek()? != Kind::Object {
            is_clear = false;
            return s.value().map(drop);
        }
        s.object(|s, key| {
            let value = s.value()?;
            let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
            match (unquote(s.bytes(&key)), text(s.bytes(&value.span))) {
                (Some(name), Some(json))
                    if members.len() < MAX_PARTS && !members.iter().any(|(other, ..)| **other == *name) =>
                {
                    members.push((name.into_owned(), value.kind, json));
                }
                _ => is_clear = false,
            }
            Ok::<_, InvalidJson>(())
        })?;
        all.push(members);
        Ok(())
    });
    read.ok().filter(|()| is_clear).map(|()| all)
}
