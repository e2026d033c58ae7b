//! A steady rate of requests while the access log is small and while it is large: does its size show in the latency?

use crate::Result;
use crate::client::Connection;
use crate::envoy::{Envoy, Variant};
use crate::scenario::Scenario;
use crate::statistics::percentile;
use std::time::{Duration, Instant};

/// The time between two requests: 500 per second.
const INTERVAL: Duration = Duration::from_millis(2);

/// Requests of one turn of one Envoy: one second.
const TURN: u32 = 500;

/// The variants, in the order in which they take turns.
const VARIANTS: [Variant; 5] = [Variant::Bare, Variant::BareNoLog, Variant::Noop, Variant::Carry, Variant::Pointsman];

/// Prints the latency at 500 requests a second. `turns`: seconds per Envoy. `log_mib`: the size of the access logs at
/// the start.
pub fn run(start: impl Fn(Variant) -> Result<Envoy>, scenario: &Scenario, turns: usize, log_mib: u64) -> Result<()> {
    let envoys = VARIANTS.into_iter().map(start).collect::<Result<Vec<_>>>()?;
    let mut connections = envoys.iter().map(|e| Connection::open(e.port)).collect::<Result<Vec<_>>>()?;
    let requests = scenario.requests();
    let request = requests.first().map(Vec::as_slice).unwrap_or_default();
    let mut all: Vec<Vec<f64>> = envoys.iter().map(|_| Vec::new()).collect();
    for turn in 0..=turns {
        for ((connection, envoy), times) in connections.iter_mut().zip(&envoys).zip(&mut all) {
            let latencies = one_turn(connection, request).map_err(|e| format!("{}: {e}", envoy.variant.name()))?;
            // The first turn warms up.
            if turn > 0 {
                times.extend(latencies);
            }
        }
    }
    println!("\n500 requests a second ({}), access logs of {log_mib} MiB at the start: latency in µs", scenario.name);
    println!("{:<12}{:>10}{:>10}{:>10}{:>10}", "", "p50", "p99", "p99.9", "max");
    for (envoy, times) in envoys.iter().zip(&all) {
        let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|p| percentile(times, p));
        println!("{:<12}{p50:>10.0}{p99:>10.0}{p999:>10.0}{max:>10.0}", envoy.variant.name());
    }
    Ok(())
}

/// Sends the requests of one turn. A latency counts from when its request was due, so a late answer also delays those
/// after it.
fn one_turn(connection: &mut Connection, request: &[u8]) -> Result<Vec<f64>> {
    let start = Instant::now();
    let mut latencies = Vec::with_capacity(TURN as usize);
    for i in 0..TURN {
        let due = start + INTERVAL * i;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // A sleep is never exact: what it oversleeps is not the Envoy's.
        let sent = Instant::now().min(due + INTERVAL);
        connection.send(request)?;
        let received = connection.receive(false)?;
        latencies.push(received.last_byte.saturating_duration_since(sent).as_nanos() as f64 / 1000.0);
    }
    Ok(latencies)
}
