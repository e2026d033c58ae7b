//! A caller's text, as it may be repeated.

/// Cuts a caller's text to 100 characters, to bound what is sent back to the caller.
pub(crate) fn shorten(text: &str) -> &str {
    text.char_indices().nth(100).map_or(text, |(end, _)| text.get(..end).unwrap_or_default())
}
