//! Response headers: which of the provider's headers reach the caller, and which ones the gateway adds.

use crate::host::{HeaderMap, Host, Map};
use pointsman_core::request::head::response_header_passes;
use pointsman_core::wire::header::{HeaderLine, is_retry_after, is_retry_after_ms};

const MAP: Map = Map::ResponseHeaders;

/// From this number of headers on, replacing the whole map is cheaper than setting them one by one.
const MANY: usize = 10;

/// The headers as received.
pub struct ResponseHeaders<M> {
    came: M,
    skips_model_stage: bool,
    /// Whether a header has been changed since.
    is_changed: bool,
}

impl<M: HeaderMap> ResponseHeaders<M> {
    /// Wraps the headers. `skips_model_stage`: whether the request bypassed the model stage.
    pub fn new(came: M, skips_model_stage: bool) -> Self {
        Self { came, skips_model_stage, is_changed: false }
    }

    /// Removes the headers that do not reach the caller.
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

    /// Adds the gateway's headers. Call it once, after [`ResponseHeaders::remove_foreign`].
    pub fn give(&self, host: &impl Host, own: &[HeaderLine]) {
        if own.len() >= MANY && !self.is_changed && !own.iter().any(|(name, _)| self.passes(name.as_bytes())) {
            let own = own.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            let all: Vec<_> = self.came.iter().filter(|header| self.stays(*header)).chain(own).collect();
            return host.set_headers(MAP, &all);
        }
        for (name, value) in own {
            match self.passes(name.as_bytes()) {
                true => host.set_header(MAP, name, value),
                // A header that does not pass has been removed already.
                false => host.add_header(MAP, name, value),
            }
        }
    }

    fn stays(&self, (name, value): (&[u8], &[u8])) -> bool {
        self.passes(name)
            && match name {
                b"retry-after" => is_retry_after(value),
                b"retry-after-ms" => is_retry_after_ms(value),
                _ => true,
            }
    }

    fn passes(&self, name: &[u8]) -> bool {
        response_header_passes(name, self.skips_model_stage)
    }
}
