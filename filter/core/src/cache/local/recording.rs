//! What the streams that a worker records take together.
//!
//! Each of them is bounded by the longest answer that is kept; this bounds them all, however many are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes of all streams that one worker records under one policy.
#[derive(Debug, Clone)]
pub struct Recordings {
    held: Arc<AtomicUsize>,
    most: usize,
}

/// What one stream takes of it, until it is dropped.
#[derive(Debug)]
pub struct Share {
    all: Recordings,
    bytes: usize,
}

/// Bytes of text that all streams of a worker take at the most.
pub const MOST_BYTES: usize = 16 << 20;

/// Why a stream is recorded no further, in a word: the reason of the miss, too.
pub const FULL: &str = "recordings_full";

impl Recordings {
    /// None, of which all together may have so many bytes.
    pub fn new(most: usize) -> Self {
        Self { held: Arc::default(), most }
    }

    /// The share of one more stream.
    pub fn share(&self) -> Share {
        Share { all: self.clone(), bytes: 0 }
    }
}

impl Default for Recordings {
    fn default() -> Self {
        Self::new(MOST_BYTES)
    }
}

impl Share {
    /// The stream has so many bytes by now. `false` where there is no room for them: then it has no more than before.
    pub fn set(&mut self, bytes: usize) -> bool {
        let (held, most) = (&self.all.held, self.all.most);
        let more = bytes.saturating_sub(self.bytes);
        // A worker is one thread: nobody comes between these two.
        if more > 0 && held.load(Ordering::Relaxed).saturating_add(more) > most {
            return false;
        }
        held.fetch_add(more, Ordering::Relaxed);
        held.fetch_sub(self.bytes.saturating_sub(bytes), Ordering::Relaxed);
        self.bytes = bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_what_there_is_and_no_more_and_who_ends_gives_it_back() {
        let all = Recordings::new(100);
        let (mut one, mut other) = (all.share(), all.share());
        assert!(one.set(60) && other.set(40));
        assert!(!one.set(61) && !other.set(41));
        assert!(one.set(50) && other.set(50) && !other.set(51));
        drop(one);
        assert!(other.set(100) && !all.share().set(1) && all.share().set(0));
        drop(other);
        assert_eq!(all.held.load(Ordering::Relaxed), 0);
    }
}
