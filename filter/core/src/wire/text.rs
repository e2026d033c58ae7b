//! Text of a caller, as it may be repeated.

/// What a caller sent is shown back to it, but not without bound.
pub(crate) fn shorten(text: &str) -> &str {
    text.char_indices().nth(100).map_or(text, |(end, _)| text.get(..end).unwrap_or_default())
}
