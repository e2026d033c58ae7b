//! How many parts an answer may have that is put together.

/// The most choices, calls of a choice, and members of an object. Each event looks for its own among them, so the time
/// for a stream would grow with the square of their number. OpenAI allows 128 choices and 128 tools.
pub(super) const MAX_PARTS: usize = 512;

/// Returns what an additional part counts, in bytes: `bytes`, or too many if there are [`MAX_PARTS`] already.
pub(super) fn size(parts: usize, bytes: usize) -> usize {
    if parts < MAX_PARTS { bytes } else { usize::MAX / 4 }
}
