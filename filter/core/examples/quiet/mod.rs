//! An observer of an exchange in which nothing failed.

use pointsman_core::exchange::Observer;
use pointsman_core::outcome::outcome::Outcome;
use pointsman_core::routing::begun::Begun;

/// No attempt failed, and Envoy sent no reply of its own.
pub struct Quiet;

impl Observer for Quiet {
    fn code_details(&self) -> String {
        String::new()
    }
    fn response_code(&self) -> u16 {
        200
    }
    fn last_attempt(&self) -> Option<(usize, u32)> {
        None
    }
    fn failed_attempts(&self) -> Vec<(usize, Outcome)> {
        Vec::new()
    }
    fn attempts(&self) -> Vec<Begun> {
        Vec::new()
    }
    fn has_connection(&self) -> bool {
        true
    }
    fn now_ms(&self) -> u64 {
        0
    }
}
