//! What of a stream's chunk goes on: the chunk itself, without a copy, as long as nothing is removed or added.

/// The part of a chunk to forward: the chunk itself while nothing is removed or added.
pub(super) struct Passthrough<'a> {
    chunk: &'a [u8],
    whole: usize,
    out: Option<Vec<u8>>,
}

impl<'a> Passthrough<'a> {
    /// Starts with nothing of `chunk`. `is_behind`: whether bytes of earlier chunks go first.
    pub(super) fn new(chunk: &'a [u8], is_behind: bool) -> Self {
        Self { chunk, whole: 0, out: is_behind.then(|| Vec::with_capacity(chunk.len() + 256)) }
    }

    /// Forwards these bytes.
    pub(super) fn keep(&mut self, event: &[u8]) {
        match &mut self.out {
            Some(out) => out.extend_from_slice(event),
            None => self.whole += event.len(),
        }
    }

    /// Forwards other bytes than the chunk's from here on: those that are added to the result.
    pub(super) fn leave_out(&mut self) -> &mut Vec<u8> {
        let so_far = self.chunk.get(..self.whole).unwrap_or_default();
        self.out.get_or_insert_with(|| so_far.to_vec())
    }

    /// Returns what replaces the chunk; `None` if all of it passes.
    pub(super) fn finish(self) -> Option<Vec<u8>> {
        match self.out {
            Some(out) => Some(out),
            None if self.whole == self.chunk.len() => None,
            None => Some(self.chunk.get(..self.whole).unwrap_or_default().to_vec()),
        }
    }
}
