//! Lengths of time in Envoy's configuration: how they are written, and the one that the listener and its routes share.

/// How long a request may be silent, in milliseconds, unless its route says otherwise. A model that thinks, or answers
/// in one piece, can be silent for longer than Envoy's five minutes. OpenAI's clients give up after ten.
pub const IDLE_MS: u64 = 900_000;

/// Milliseconds as protobuf's JSON writes a duration.
pub fn seconds(ms: u64) -> String {
    format!("{}.{:03}s", ms / 1000, ms % 1000)
}
