//! The answers to health checks, per listener.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

/// The health of every listener.
#[derive(Debug)]
pub struct Health {
    listeners: Vec<(AtomicU16, AtomicU64)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    listener: Option<usize>,
    status: u16,
}

impl Health {
    /// Creates the state in which every listener is healthy.
    pub fn new(listeners: usize) -> Self {
        Self { listeners: (0..listeners).map(|_| (AtomicU16::new(200), AtomicU64::new(0))).collect() }
    }

    /// Sets the status of one listener or of all. An error says what is wrong with the request.
    pub fn set(&self, body: &[u8]) -> Result<(), String> {
        let Written { listener, status } = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if !(200..600).contains(&status) {
            return Err(format!("status: {status} is not between 200 and 599"));
        }
        if let Some(index) = listener.filter(|&index| index >= self.listeners.len()) {
            return Err(format!("listener: there is no {index}, only 0 to {}", self.listeners.len().saturating_sub(1)));
        }
        for (index, (current, _)) in self.listeners.iter().enumerate() {
            if listener.is_none_or(|listener| listener == index) {
                current.store(status, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Returns the status with which to answer one check, and counts the check.
    pub fn check(&self, listener: usize) -> StatusCode {
        let Some((status, checks)) = self.listeners.get(listener) else { return StatusCode::OK };
        checks.fetch_add(1, Ordering::Relaxed);
        StatusCode::from_u16(status.load(Ordering::Acquire)).unwrap_or(StatusCode::OK)
    }

    /// Returns every listener's status and how many checks it answered.
    pub fn list(&self) -> Value {
        let listeners = self.listeners.iter();
        listeners
            .map(|(status, checks)| {
                json!({"status": status.load(Ordering::Acquire), "checks": checks.load(Ordering::Relaxed)})
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_listener_can_be_ill() {
        let health = Health::new(2);
        health.set(br#"{"listener":1,"status":503}"#).unwrap();
        assert_eq!((health.check(0).as_u16(), health.check(1).as_u16()), (200, 503));
        health.set(br#"{"status":200}"#).unwrap();
        assert_eq!(health.check(1).as_u16(), 200);
        assert_eq!(health.list()[1]["checks"], 2);
    }

    #[test]
    fn nonsense_is_refused() {
        let health = Health::new(1);
        assert_eq!(health.set(br#"{"listener":1,"status":503}"#).unwrap_err(), "listener: there is no 1, only 0 to 0");
        assert!(health.set(br#"{"status":1}"#).unwrap_err().starts_with("status: 1"));
    }
}
