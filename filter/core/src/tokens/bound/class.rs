//! The classes of characters that the tokenizers' patterns distinguish.

/// What a pattern can do with a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Its class depends on the version of Unicode or on the implementation, or normalization can change it.
    Unknown,
    /// Also unknown, and normalization makes it longer.
    Expanding,
    /// An upper-case or title-case letter.
    Upper,
    /// A lower-case letter.
    Lower,
    /// A letter without case.
    Letter,
    /// A combining mark that keeps its place.
    Mark,
    /// A combining mark that normalization can move past another one.
    Movable,
    Number,
    /// White space within a line.
    Space,
    /// A line feed or carriage return.
    Newline,
    /// Anything else.
    Sign,
}

impl Class {
    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Expanding,
            2 => Self::Upper,
            3 => Self::Lower,
            4 => Self::Letter,
            5 => Self::Mark,
            6 => Self::Movable,
            7 => Self::Number,
            8 => Self::Space,
            9 => Self::Newline,
            10 => Self::Sign,
            _ => Self::Unknown,
        }
    }

    /// Whether this is a letter.
    pub fn is_letter(self) -> bool {
        matches!(self, Self::Upper | Self::Lower | Self::Letter)
    }

    pub fn is_mark(self) -> bool {
        matches!(self, Self::Mark | Self::Movable)
    }

    pub fn is_known(self) -> bool {
        !matches!(self, Self::Unknown | Self::Expanding)
    }

    pub fn is_white(self) -> bool {
        matches!(self, Self::Space | Self::Newline)
    }
}

/// The classes of the first two planes of Unicode: the number of the page of each 256 characters, then the pages, with
/// four bits per character.
pub(super) struct Classes<'t> {
    pages: &'t [u8],
    codes: &'t [u8],
}

impl<'t> Classes<'t> {
    /// Reads the generated table.
    pub fn new(table: &'t [u8]) -> Self {
        let (pages, codes) = table.split_at_checked(512).unwrap_or_default();
        Self { pages, codes }
    }

    /// Returns the class of a character.
    pub fn of(&self, character: u32) -> Class {
        let character = character as usize;
        let code = || {
            let page = usize::from(*self.pages.get(character >> 8)?);
            let pair = self.codes.get(page * 128 + (character & 0xff) / 2)?;
            Some(if character & 1 == 0 { pair & 15 } else { pair >> 4 })
        };
        Class::from_code(code().unwrap_or(0))
    }
}

/// Decodes the first character of a UTF-8 text. Returns it and its length. A byte that is no part of a character
/// returns `None` with the length 1.
pub(super) fn decode(text: &[u8]) -> (Option<u32>, usize) {
    let Some(first) = text.first() else { return (None, 0) };
    let (length, high) = match first {
        0..0x80 => return (Some(u32::from(*first)), 1),
        0xc2..0xe0 => (2, u32::from(first & 0x1f)),
        0xe0..0xf0 => (3, u32::from(first & 0x0f)),
        0xf0..0xf5 => (4, u32::from(first & 0x07)),
        _ => return (None, 1),
    };
    let Some(rest) = text.get(1..length).filter(|rest| rest.iter().all(|byte| byte & 0xc0 == 0x80)) else {
        return (None, 1);
    };
    (Some(rest.iter().fold(high, |high, byte| high << 6 | u32::from(byte & 0x3f))), length)
}
