//! Searches for texts of which a tokenizer counts more than the upper bound allows.

use crate::tokenizers::Tokenizer;
use pointsman_core::tokens::bound;

/// A generator of random numbers (SplitMix64), so that a search can be repeated.
pub struct Random(pub u64);

impl Random {
    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % end as u64) as usize
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }
}

/// The worst text that was found for a tokenizer.
#[derive(Debug, Clone, Default)]
pub struct Worst {
    /// Tokens that the tokenizer counts.
    pub counted: u64,
    /// The upper bound.
    pub bound: u64,
    /// The text.
    pub text: String,
}

impl Worst {
    fn is_worse_than(&self, other: &Self) -> bool {
        self.counted * other.bound.max(1) > other.counted * self.bound.max(1)
    }
}

const WORDS: [&str; 24] = [
    "the",
    "of",
    " and",
    "don't",
    "It's",
    "we'LL",
    "getValue",
    "XMLHttpRequest",
    "HTTP/1.1",
    "//",
    "/*\n/",
    "\r\n",
    " = ",
    "();\n",
    "\t\t",
    "    ",
    "Straße",
    "người",
    "Привет",
    "東京都",
    "안녕",
    "नमस्ते",
    "مرحبا",
    "ภาษาไทย",
];

/// Characters that patterns or normalization treat in their own way.
const ODD: [char; 40] = [
    '\'',
    '’',
    '/',
    '\n',
    '\r',
    '\t',
    ' ',
    '\u{a0}',
    '\u{85}',
    '\u{3000}',
    '\u{2028}',
    '\u{1c}',
    '\0',
    '\u{17f}',
    '\u{130}',
    '\u{212a}',
    '\u{300}',
    '\u{301}',
    '\u{323}',
    '\u{338}',
    '\u{344}',
    '\u{345}',
    '\u{958}',
    '\u{93c}',
    '\u{fb2c}',
    '\u{2adc}',
    '\u{1d160}',
    '\u{1d15e}',
    '\u{1100}',
    '\u{1161}',
    '\u{11a8}',
    '\u{e31}',
    '\u{e38}',
    '\u{e48}',
    '\u{200d}',
    '\u{fe0f}',
    '\u{1f600}',
    '\u{f71}',
    '\u{f73}',
    '\u{1e9b}',
];

/// The kinds of pieces.
const KINDS: usize = 13;

const LETTERS: [char; 52] = [
    'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w',
    'x', 'y', 'z', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S', 'T',
    'U', 'V', 'W', 'X', 'Y', 'Z',
];

/// A search of many rounds for the worst ratio of a tokenizer's count to the bound.
pub struct Search<'t> {
    tokenizer: &'t Tokenizer,
    /// Its tokens that are text.
    tokens: Vec<String>,
    random: Random,
}

impl<'t> Search<'t> {
    /// Prepares a search.
    pub fn new(tokenizer: &'t Tokenizer, seed: u64) -> Self {
        let tokens = tokenizer.tokens(1 << 20).into_iter().filter_map(|token| String::from_utf8(token).ok());
        Self { tokenizer, tokens: tokens.collect(), random: Random(seed) }
    }

    /// Climbs from `starts` random texts of at least `length` characters, `steps` steps each. Returns the worst text.
    pub fn run(&mut self, length: usize, starts: usize, steps: usize) -> Worst {
        let mut worst = Worst::default();
        for _ in 0..starts {
            let text = self.text(length);
            let mut best = self.judge(text);
            for _ in 0..steps {
                let text = self.mutate(&best.text, length);
                let found = self.judge(text);
                if !best.is_worse_than(&found) {
                    best = found;
                }
            }
            if best.is_worse_than(&worst) {
                worst = best;
            }
        }
        worst
    }

    fn judge(&self, text: String) -> Worst {
        Worst { counted: self.tokenizer.count(&text), bound: bound::tokens(text.as_bytes()), text }
    }

    fn text(&mut self, length: usize) -> String {
        let (kind, mut text, mut count) = (self.random.below(KINDS + 1), String::new(), 0);
        while count < length {
            // The last kind mixes the others.
            let kind = if kind == KINDS { self.random.below(KINDS) } else { kind };
            let piece = self.piece(kind);
            count += piece.chars().count();
            text.push_str(&piece);
        }
        text
    }

    fn piece(&mut self, kind: usize) -> String {
        let random = &mut self.random;
        let length = 1 + random.below(12);
        let mut of = |from: &[char]| (0..length).map(|_| *random.pick(from)).collect::<String>();
        match kind {
            0 => of(&LETTERS[..26]) + " ",
            1 => of(&LETTERS) + " ",
            2 => of(&LETTERS),
            3 => of(&ODD),
            4 => of(&['0', '1', '9', '.', '-', '"', '{', '}', ':', ',', '\\', '\n', '_', ' ']),
            5 => of(&[' ', ' ', '\n', '\t', '\r', '\u{a0}', 'a', ';', '/']),
            6 => (*self.random.pick(&WORDS)).to_owned(),
            7 => self.random.pick(&self.tokens).clone(),
            8 => self.random.pick(&self.tokens).chars().rev().collect(),
            9 => {
                // Rare tokens, without what belongs to them.
                let token = &self.tokens[self.tokens.len() / 4 + self.random.below(self.tokens.len() * 3 / 4)];
                token.chars().skip(self.random.below(3)).collect()
            }
            10 => (0..length).map(|_| self.character(0x3_0000)).collect(),
            11 => (0..length).map(|_| self.character(0x3000)).collect(),
            _ => {
                let first = self.random.below(0x2_0000) & !0x7f;
                let in_block = |random: &mut Random| char::from_u32((first + random.below(0x80)) as u32);
                (0..length).filter_map(|_| in_block(&mut self.random)).collect()
            }
        }
    }

    fn character(&mut self, end: usize) -> char {
        char::from_u32(self.random.below(end) as u32).unwrap_or('\u{fffd}')
    }

    fn mutate(&mut self, text: &str, length: usize) -> String {
        let mut all: Vec<char> = text.chars().collect();
        let from = self.random.below(all.len() + 1);
        let to = (from + self.random.below(9)).min(all.len());
        match self.random.below(5) {
            0 => drop(all.drain(from..to)),
            1 => {
                let part = all[from..to].to_vec();
                let at = self.random.below(all.len() + 1);
                drop(all.splice(at..at, part));
            }
            2 if from < to => all[from..to].reverse(),
            _ => {
                let kind = self.random.below(KINDS);
                let piece: Vec<char> = self.piece(kind).chars().collect();
                drop(all.splice(from..to, piece));
            }
        }
        all.truncate(length.max(8) * 2);
        let mut text: String = all.into_iter().collect();
        if text.chars().count() < length {
            text += &self.text(length);
        }
        text
    }
}
