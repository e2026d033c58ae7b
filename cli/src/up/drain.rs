//! Lets the requests in flight end before Envoy is stopped.

use super::admin::Admin;
use super::envoy::Process;
use super::say::say;
use crate::render::listener;
use std::time::{Duration, Instant};

/// The pause between two looks at Envoy.
const LOOK: Duration = Duration::from_millis(50);
/// Redis has every settlement if no request has gone to it for this long: the module sends one every 20 ms, and tries
/// again after 200 ms.
const SETTLED: Duration = Duration::from_millis(500);

/// Has Envoy close its listener, then waits until no request is in flight and, if `awaits_redis`, every settlement has
/// been sent. Ends after `limit`, or as soon as `at_once` is true.
pub fn drain(process: &mut Process, admin: &Admin, awaits_redis: bool, limit: Duration, at_once: &dyn Fn() -> bool) {
    let start = Instant::now();
    let (mut is_draining, mut has_said) = (false, false);
    let mut in_flight = None;
    let mut upstream = None;
    let mut quiet_since = Instant::now();
    while start.elapsed() < limit {
        if process.ended().is_some() {
            return;
        }
        is_draining = is_draining || admin.drain();
        in_flight = requests_in_flight(admin);
        if is_draining && !has_said && in_flight.is_some_and(|count| count > 0) {
            has_said = true;
            say(format_args!(
                "draining: {}; waiting for up to {} s. Another signal stops at once",
                requests(in_flight),
                limit.as_secs()
            ));
        }
        let before = std::mem::replace(&mut upstream, awaits_redis.then(|| upstream_requests(admin)).flatten());
        let is_settled = match upstream {
            _ if !awaits_redis => true,
            Some((0, _)) if before == upstream => quiet_since.elapsed() >= SETTLED,
            _ => {
                quiet_since = Instant::now();
                false
            }
        };
        if in_flight != Some(0) {
            quiet_since = Instant::now();
        } else if is_draining && is_settled {
            return;
        }
        if at_once() {
            break;
        }
        std::thread::sleep(LOOK);
    }
    if in_flight != Some(0) && !limit.is_zero() {
        say(format_args!("stopping: {} cut off", requests(in_flight)));
    }
}

fn requests(count: Option<u64>) -> String {
    match count {
        Some(1) => "1 request in flight".to_owned(),
        Some(count) => format!("{count} requests in flight"),
        None => "an unknown number of requests in flight".to_owned(),
    }
}

fn requests_in_flight(admin: &Admin) -> Option<u64> {
    admin.stats(&format!("http.{}.downstream_rq_", listener::NAME))?.get("active").copied()
}

/// Returns how many requests to all clusters are in flight, and how many there have been.
fn upstream_requests(admin: &Admin) -> Option<(u64, u64)> {
    let stats = admin.stats("cluster.")?;
    let sum = |end: &str| stats.iter().filter(|(name, _)| name.ends_with(end)).map(|(_, value)| value).sum();
    Some((sum(".upstream_rq_active"), sum(".upstream_rq_total")))
}
