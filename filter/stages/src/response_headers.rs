//! A response's headers: what of the provider's goes on to the caller, and what the gateway says besides.

use crate::host::{HeaderMap, Host, Map};
use pointsman_core::request::head::response_header_passes;
use pointsman_core::wire::header::HeaderLine;
use pointsman_core::wire::header::is_retry_after;

const MAP: Map = Map::ResponseHeaders;

/// So many headers are many: from there on it is cheaper to give them all at once than one by one.
const MANY: usize = 10;

/// The headers as they came.
pub struct ResponseHeaders<M> {
    came: M,
    skips_model_stage: bool,
    /// Whether one of them has been changed since.
    is_changed: bool,
}

impl<M: HeaderMap> ResponseHeaders<M> {
    /// `skips_model_stage`: whether the request went without a model stage.
    pub fn new(came: M, skips_model_stage: bool) -> Self {
        Self { came, skips_model_stage, is_changed: false }
    }

    /// Takes away what does not go on to the caller.
    pub fn remove_foreign(&self, host: &impl Host) {
        for (name, _) in self.came.iter().filter(|header| !self.stays(*header)) {
            host.remove_header(MAP, name);
        }
    }

    /// Changes a header that passes.
    pub fn change(&mut self, host: &impl Host, name: &str, value: &str) {
        host.set_header(MAP, name, value);
        self.is_changed = true;
    }

    /// Gives the response these headers, once, after [`ResponseHeaders::remove_foreign`].
    pub fn give(&self, host: &impl Host, own: &[HeaderLine]) {
        if own.len() >= MANY && !self.is_changed && !own.iter().any(|(name, _)| self.passes(name.as_bytes())) {
            let own = own.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            let all: Vec<_> = self.came.iter().filter(|header| self.stays(*header)).chain(own).collect();
            return host.set_headers(MAP, &all);
        }
        for (name, value) in own {
            match self.passes(name.as_bytes()) {
                true => host.set_header(MAP, name, value),
                // What does not pass has been removed already.
                false => host.add_header(MAP, name, value),
            }
        }
    }

    fn stays(&self, (name, value): (&[u8], &[u8])) -> bool {
        self.passes(name) && (name != b"retry-after" || is_retry_after(value))
    }

    fn passes(&self, name: &[u8]) -> bool {
        response_header_passes(name, self.skips_model_stage)
    }
}
