//! Durations in Envoy's configuration: their format, and the idle timeout that the listener and its routes share.

/// How long a request may be idle, in milliseconds, unless its route sets another limit. A model that reasons, or
/// answers in one piece, can be silent for longer than Envoy's default of five minutes. OpenAI's clients give up after
/// ten.
pub const IDLE_MS: u64 = 900_000;

/// Formats milliseconds as a duration in protobuf's JSON format.
pub fn seconds(ms: u64) -> String {
    format!("{}.{:03}s", ms / 1000, ms % 1000)
}
