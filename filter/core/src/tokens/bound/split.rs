//! Cuts text into the pieces that the tokenizers' patterns make.
//!
//! First into chunks, at places where every pattern cuts, whatever comes before and after. Then each chunk into pieces,
//! by the rules of a family.

use super::class::{Class, Classes, decode};

/// The longest chunk that is cut into pieces, in characters. Longer ones count one token per byte.
const MAX_CHUNK: usize = 2048;

/// Which pattern cuts a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Of `cl100k_base`, Llama 3 and Qwen.
    Cl100k,
    /// Of `o200k_base`.
    O200k,
}

/// Returns the length of the word that a chunk begins with, possibly after a space: lower-case ASCII letters, of which
/// the first may be in upper case. Every pattern makes it one piece. Returns 0 if there is no such word.
pub(super) fn word(text: &[u8]) -> usize {
    let space = usize::from(text.first() == Some(&b' '));
    let Some([first, rest @ ..]) = text.get(space..) else { return 0 };
    if !first.is_ascii_alphabetic() {
        return 0;
    }
    let letters = rest.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    let is_whole =
        rest.get(letters).is_none_or(|next| next.is_ascii() && !next.is_ascii_alphabetic() && *next != b'\'');
    if is_whole { space + 1 + letters } else { 0 }
}

/// The characters of a chunk.
#[derive(Default)]
pub(super) struct Chunk {
    /// Where each character starts.
    starts: Vec<u32>,
    classes: Vec<Class>,
    /// How many tokens the chunk counts if its pieces are not known.
    most: u64,
    is_known: bool,
}

impl Chunk {
    /// Reads the chunk that a text begins with. Returns its length in bytes.
    pub fn take(&mut self, classes: &Classes, text: &[u8]) -> usize {
        self.starts.clear();
        self.classes.clear();
        self.most = 0;
        self.is_known = true;
        let (mut at, mut before) = (0, None);
        while let Some([next, ..]) = text.get(at..) {
            let (character, length) = decode(text.get(at..).unwrap_or_default());
            let class = character.map_or(Class::Unknown, |character| classes.of(character));
            if before.is_some_and(|before| is_cut(before, class, *next)) {
                break;
            }
            self.most += match class {
                Class::Unknown if character.is_none() => 3,
                Class::Expanding if length < 4 => 2 * length as u64,
                Class::Expanding => 3 * length as u64,
                _ => length as u64,
            };
            let moves = class == Class::Movable && before == Some(Class::Movable);
            self.is_known &= class.is_known() && !moves && self.classes.len() < MAX_CHUNK;
            if self.is_known {
                self.starts.push(at as u32);
                self.classes.push(class);
            }
            (at, before) = (at + length, Some(class));
        }
        self.starts.push(at as u32);
        at
    }

    /// Returns the tokens of a chunk whose pieces are not known.
    pub fn unknown(&self) -> Option<u64> {
        (!self.is_known).then_some(self.most)
    }

    fn class(&self, at: usize) -> Option<Class> {
        self.classes.get(at).copied()
    }

    fn start(&self, at: usize) -> usize {
        self.starts.get(at).map_or(0, |start| *start as usize)
    }

    /// Counts the characters from `at` on that `is` holds for.
    fn run(&self, at: usize, is: impl Fn(Class) -> bool) -> usize {
        self.classes.get(at..).unwrap_or_default().iter().take_while(|class| is(**class)).count()
    }

    /// Counts the tokens of the chunk, whose text is `bytes`. `is_last`: the text ends with it. `tokens`: counts those
    /// of a piece.
    pub fn count(&self, family: Family, bytes: &[u8], is_last: bool, tokens: impl Fn(&[u8]) -> u64) -> u64 {
        let piece = |from: usize, to: usize| tokens(bytes.get(self.start(from)..self.start(to)).unwrap_or_default());
        let (mut at, mut sum) = (0, 0);
        while at < self.classes.len() {
            // Qwen makes each digit a token.
            let digits = self.run(at, |class| class == Class::Number);
            if digits > 0 {
                sum += (self.start(at + digits) - self.start(at)) as u64;
                at += digits;
                continue;
            }
            let word = match family {
                Family::Cl100k => self.cl100k_word(at, bytes),
                Family::O200k => self.o200k_word(at, bytes),
            };
            let end = match word {
                0 => at + self.signs(at, family, bytes),
                word => at + word,
            };
            if end > at {
                sum += piece(at, end);
                at = end;
                continue;
            }
            let white = at + self.run(at, Class::is_white);
            let lines = (at..white).rev().find(|at| self.class(*at) == Some(Class::Newline)).map_or(at, |at| at + 1);
            let is_end = is_last && white == self.classes.len();
            let parts = |end: usize| if end == at { 0 } else { piece(at, end) };
            if is_end {
                // Some patterns make all white space at the end one piece.
                sum += piece(at, white).max(parts(lines) + if lines < white { piece(lines, white) } else { 0 });
                at = white;
                continue;
            }
            let end = match (lines > at, white - at) {
                (true, _) => lines,
                // The last one belongs to the piece that follows.
                (false, count @ 2..) => at + count - 1,
                (false, _) => at + 1,
            };
            sum += piece(at, end);
            at = end;
        }
        sum
    }

    /// `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+`
    fn cl100k_word(&self, at: usize, bytes: &[u8]) -> usize {
        match self.contraction(at, bytes) {
            0 => {
                let prefix = self.prefix(at);
                match self.run(at + prefix, Class::is_letter) {
                    0 => 0,
                    letters => prefix + letters,
                }
            }
            contraction => contraction,
        }
    }

    /// `P?[UM]*[LM]+C?|P?[UM]+[LM]*C?`, where P is neither line break nor letter nor number, U an upper-case letter, L
    /// a lower-case one, M a mark or letter without case, and C a contraction.
    fn o200k_word(&self, at: usize, bytes: &[u8]) -> usize {
        let is_caseless = |class: Class| class == Class::Letter || class.is_mark();
        let is_upper = |class: Class| class == Class::Upper || is_caseless(class);
        let is_lower = |class: Class| class == Class::Lower || is_caseless(class);
        let prefix = self.prefix(at);
        let tries = [at + prefix, at];
        let tries = tries.get(..=prefix).unwrap_or_default();
        let lower = |start: &usize| {
            let end = start + self.run(*start, is_upper);
            match self.run(end, is_lower) {
                // The last caseless character can be the first of the second set.
                0 => (*start..end).rev().find(|at| self.class(*at).is_some_and(is_caseless)).map(|at| at + 1),
                lower => Some(end + lower),
            }
        };
        let upper = |start: &usize| match self.run(*start, is_upper) {
            0 => None,
            upper => Some(start + upper + self.run(start + upper, is_lower)),
        };
        match tries.iter().find_map(lower).or_else(|| tries.iter().find_map(upper)) {
            Some(end) => end - at + self.contraction(end, bytes),
            None => 0,
        }
    }

    /// Whether the character at `at` can be the one before a word's letters: 1 or 0.
    fn prefix(&self, at: usize) -> usize {
        let can = |class: Class| !class.is_letter() && !matches!(class, Class::Newline | Class::Number);
        usize::from(self.class(at).is_some_and(can))
    }

    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*`, for `o200k_base` with `/` among the line breaks.
    fn signs(&self, at: usize, family: Family, bytes: &[u8]) -> usize {
        let is_sign = |class: Class| class == Class::Sign || class.is_mark();
        let space = usize::from(bytes.get(self.start(at)) == Some(&b' '));
        match self.run(at + space, is_sign) {
            0 => 0,
            signs => {
                let mut end = at + space + signs;
                let is_break = |at: usize| {
                    let is_slash = || bytes.get(self.start(at)) == Some(&b'/');
                    self.class(at).is_some_and(|class| {
                        class == Class::Newline || family == Family::O200k && class == Class::Sign && is_slash()
                    })
                };
                while is_break(end) {
                    end += 1;
                }
                end - at
            }
        }
    }

    /// `'(?i:[sdmt]|ll|ve|re)`
    fn contraction(&self, at: usize, bytes: &[u8]) -> usize {
        match bytes.get(self.start(at)..) {
            Some([b'\'', b's' | b'd' | b'm' | b't' | b'S' | b'D' | b'M' | b'T', ..]) => 2,
            Some([b'\'', first, second, ..])
                if matches!([first | 0x20, second | 0x20], [b'l', b'l'] | [b'v', b'e'] | [b'r', b'e']) =>
            {
                3
            }
            _ => 0,
        }
    }
}

/// Whether every pattern cuts between characters of these classes. `next`: the first byte of the second one.
fn is_cut(before: Class, after: Class, next: u8) -> bool {
    if !after.is_known() {
        return false;
    }
    match before {
        // A contraction can follow a letter.
        Class::Upper | Class::Lower | Class::Letter => !after.is_letter() && !after.is_mark() && next != b'\'',
        Class::Number => after != Class::Number,
        Class::Sign | Class::Mark | Class::Movable => after == Class::Space,
        Class::Newline => after.is_letter() || after == Class::Number || after == Class::Sign && next != b'/',
        Class::Space | Class::Unknown | Class::Expanding => false,
    }
}
