//! The last responses of each provider, which a request can continue or ask for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The maximum number of responses kept.
const MAX_RESPONSES: usize = 1024;
/// The maximum total size of their documents, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// The responses, oldest first. Only the listener that made one knows it.
#[derive(Debug, Default)]
pub struct Store {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    responses: VecDeque<Arc<Response>>,
    bytes: usize,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// The listener that made it.
    pub place: usize,
    /// Its id.
    pub id: String,
    /// Its document.
    pub document: String,
    /// The tokens of the conversation up to its end.
    pub tokens: u64,
}

impl Store {
    /// Keeps a response, and forgets the oldest ones if there are too many.
    pub fn keep(&self, response: Response) {
        let mut kept = self.locked();
        kept.bytes += response.document.len();
        kept.responses.push_back(Arc::new(response));
        while kept.responses.len() > MAX_RESPONSES || kept.bytes > MAX_BYTES {
            let Some(oldest) = kept.responses.pop_front() else { break };
            kept.bytes -= oldest.document.len();
        }
    }

    /// Returns a response that this listener made.
    pub fn find(&self, place: usize, id: &str) -> Option<Arc<Response>> {
        let kept = self.locked();
        kept.responses.iter().find(|response| response.place == place && response.id == id).cloned()
    }

    /// Forgets a response.
    pub fn forget(&self, place: usize, id: &str) {
        let mut kept = self.locked();
        if let Some(at) = kept.responses.iter().position(|response| response.place == place && response.id == id)
            && let Some(response) = kept.responses.remove(at)
        {
            kept.bytes -= response.document.len();
        }
    }

    fn locked(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(number: usize, document: String) -> Response {
        Response { place: 0, id: number.to_string(), document, tokens: 1 }
    }

    #[test]
    fn only_the_provider_that_made_it_knows_it() {
        let store = Store::default();
        store.keep(response(1, "{}".to_owned()));
        assert!(store.find(0, "1").is_some());
        assert!(store.find(1, "1").is_none());
        store.forget(1, "1");
        assert!(store.find(0, "1").is_some());
        store.forget(0, "1");
        assert!(store.find(0, "1").is_none());
    }

    #[test]
    fn the_store_is_bounded_by_number_and_by_bytes() {
        let store = Store::default();
        (0..MAX_RESPONSES + 1).for_each(|number| store.keep(response(number, String::new())));
        assert!(store.find(0, "0").is_none() && store.find(0, "1").is_some());
        (0..3).for_each(|number| store.keep(response(number, "x".repeat(MAX_BYTES / 2))));
        assert_eq!(store.locked().bytes, MAX_BYTES);
    }
}
