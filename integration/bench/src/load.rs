//! Traffic in short interleaved rounds: while one Envoy is under load, the others are idle.

use crate::Result;
use crate::client::Connection;
use crate::envoy::{Envoy, Variant};
use crate::scenario::Scenario;
use std::time::{Duration, Instant};

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often to start all Envoys. Two Envoys with the same configuration differ by several microseconds for as
    /// long as they run.
    pub starts: usize,
    /// Rounds per variant and start.
    pub rounds: usize,
    /// The minimum length of a round.
    pub round: Duration,
    /// How long to send traffic before the first round, so that code is compiled and buffers have grown.
    pub warm_up: Duration,
    /// How many requests to measure latency with, per variant.
    pub latencies: usize,
}

impl Plan {
    /// Returns the plan for this many starts and rounds.
    pub fn new(starts: usize, rounds: usize, quick: bool) -> Self {
        let ms = Duration::from_millis;
        match quick {
            true => Self { starts: 1, rounds: 1, round: ms(50), warm_up: ms(10), latencies: 20 },
            // Short rounds, because the speed of a shared machine changes from second to second.
            false => Self { starts, rounds, round: ms(100), warm_up: ms(600), latencies: 1000 },
        }
    }

    /// Halves the rounds of a scenario that is only informational.
    pub fn for_scenario(self, scenario: &Scenario) -> Self {
        if scenario.information { Self { rounds: self.rounds.div_ceil(2), ..self } } else { self }
    }
}

/// One Envoy and the connections to it.
pub struct Target<'a> {
    envoy: &'a Envoy,
    connections: Vec<Connection>,
    /// Requests sent so far.
    sent: usize,
}

impl<'a> Target<'a> {
    /// Opens as many connections to each Envoy as the scenario uses.
    pub fn open(envoys: &'a [Envoy], scenario: &Scenario) -> Result<Vec<Self>> {
        envoys.iter().map(|envoy| Self::new(envoy, scenario.connections)).collect()
    }

    /// Opens one connection to each Envoy.
    pub fn open_single(envoys: &'a [Envoy]) -> Result<Vec<Self>> {
        envoys.iter().map(|envoy| Self::new(envoy, 1)).collect()
    }

    fn new(envoy: &'a Envoy, count: usize) -> Result<Self> {
        let open = |_| Connection::open(envoy.port);
        Ok(Self { envoy, connections: (0..count).map(open).collect::<Result<_>>()?, sent: 0 })
    }

    fn named(&self, scenario: &Scenario, error: String) -> String {
        format!("{}, {}: {error}", scenario.name, self.envoy.variant.name())
    }

    /// Sends traffic for at least `length`, and each request at least once.
    fn warm_up(&mut self, requests: &[Vec<u8>], is_stream: bool, length: Duration) -> Result<()> {
        let (end, all) = (Instant::now() + length, self.sent + requests.len());
        while self.sent < all || Instant::now() < end {
            self.load(requests, is_stream, length.min(Duration::from_millis(200)))?;
        }
        Ok(())
    }

    /// Keeps every connection busy for at least `length`, then lets the last requests finish. Returns the number of
    /// requests.
    fn load(&mut self, requests: &[Vec<u8>], is_stream: bool, length: Duration) -> Result<usize> {
        let mut count = 0;
        let end = Instant::now() + length;
        // Continue where the last round ended, so that no request is repeated before all others have been sent.
        let first = self.sent;
        let mut turn = requests.iter().cycle().skip(first % requests.len().max(1));
        let mut next = || turn.next().map(Vec::as_slice).unwrap_or_default();
        for connection in &mut self.connections {
            connection.send(next())?;
        }
        // The connections take turns, so one thread keeps all of them busy without polling. After `end` no connection
        // gets a new request, and each receives its last answer in its next turn.
        let mut busy = vec![true; self.connections.len()];
        while busy.contains(&true) {
            for (connection, busy) in self.connections.iter_mut().zip(&mut busy).filter(|(_, busy)| **busy) {
                connection.receive(is_stream)?;
                count += 1;
                *busy = Instant::now() < end;
                if *busy {
                    connection.send(next())?;
                }
            }
        }
        self.sent += count;
        Ok(count)
    }
}

/// The cost of one variant.
#[derive(Debug, Clone)]
pub struct Cost {
    /// The variant.
    pub variant: Variant,
    /// CPU time per request in each round, in microseconds, minus the CPU time of the idle Envoy.
    pub per_request: Vec<f64>,
}

/// Adds the rounds of one more start to the costs of each scenario's variants.
pub fn joined(mut all: Vec<Vec<Cost>>, more: Vec<Vec<Cost>>) -> Vec<Vec<Cost>> {
    if all.is_empty() {
        return more;
    }
    for (cost, more) in all.iter_mut().flatten().zip(more.into_iter().flatten()) {
        cost.per_request.extend(more.per_request);
    }
    all
}

/// Compares the cost of one variant with the cost of another, round by round.
pub fn paired(costs: &[Cost], one: Variant, other: Variant, compare: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let of = |variant| costs.iter().find(|cost| cost.variant == variant).map_or(&[][..], |cost| &cost.per_request);
    of(one).iter().zip(of(other)).map(|(one, other)| compare(*one, *other)).collect()
}

/// Measures the CPU time per request of each target.
pub fn measure_cpu(targets: &mut [Target], scenario: &Scenario, plan: &Plan) -> Result<Vec<Cost>> {
    let requests = scenario.requests();
    for target in targets.iter_mut() {
        target.warm_up(&requests, scenario.stream, plan.warm_up).map_err(|e| target.named(scenario, e))?;
    }
    let mut busy: Vec<Vec<Sample>> = targets.iter().map(|_| Vec::new()).collect();
    let mut idle: Vec<Vec<f64>> = targets.iter().map(|_| Vec::new()).collect();
    for round in 0..plan.rounds {
        // All Envoys idle at the same time. What they use then is subtracted.
        let before = targets.iter().map(|t| t.envoy.cpu_ns()).collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        std::thread::sleep(plan.round);
        for ((target, before), idle) in targets.iter().zip(before).zip(&mut idle) {
            idle.push((target.envoy.cpu_ns()? - before) as f64 / start.elapsed().as_nanos() as f64);
        }
        // Each round starts with a different variant.
        for turn in 0..targets.len() {
            let at = (round + turn) % targets.len();
            if let (Some(target), Some(busy)) = (targets.get_mut(at), busy.get_mut(at)) {
                busy.push(Sample::take(target, &requests, scenario, plan.round)?);
            }
        }
    }
    Ok(targets
        .iter()
        .zip(busy)
        .zip(idle)
        .map(|((target, busy), idle)| cost(target.envoy.variant, &busy, &idle))
        .collect())
}

/// One round of one variant.
struct Sample {
    cpu_ns: f64,
    elapsed_ns: f64,
    requests: usize,
}

impl Sample {
    fn take(target: &mut Target, requests: &[Vec<u8>], scenario: &Scenario, length: Duration) -> Result<Self> {
        let before = target.envoy.cpu_ns()?;
        let start = Instant::now();
        let requests = target.load(requests, scenario.stream, length).map_err(|e| target.named(scenario, e))?;
        // What Envoy does after the last byte (logs, clean-up) belongs to the requests.
        std::thread::sleep(Duration::from_millis(3));
        let elapsed_ns = start.elapsed().as_nanos() as f64;
        Ok(Self { cpu_ns: (target.envoy.cpu_ns()? - before) as f64, elapsed_ns, requests })
    }
}

fn cost(variant: Variant, busy: &[Sample], idle: &[f64]) -> Cost {
    let idle = crate::statistics::percentile(idle, 0.5);
    let per_request = |s: &Sample| (s.cpu_ns - idle * s.elapsed_ns) / s.requests as f64 / 1000.0;
    Cost { variant, per_request: busy.iter().map(per_request).collect() }
}

/// The latencies of one variant, with one request at a time.
#[derive(Debug)]
pub struct Times {
    /// The variant.
    pub variant: Variant,
    /// Times to the first byte of the body, in microseconds.
    pub first_byte: Vec<f64>,
    /// Times to the last byte, in microseconds.
    pub last_byte: Vec<f64>,
    /// Reads per answer. For a stream, they show whether the chunks arrived one by one.
    pub reads: Vec<f64>,
}

/// Measures latency with one request at a time, in short interleaved turns.
pub fn measure_latency(targets: &mut [Target], scenario: &Scenario, plan: &Plan) -> Result<Vec<Times>> {
    // A stream takes at least 200 ms.
    let (count, turn) = if scenario.stream { (plan.latencies.div_ceil(50), 1) } else { (plan.latencies, 25) };
    let requests = scenario.requests();
    let mut turns = requests.iter().cycle();
    let mut all: Vec<Times> = targets
        .iter()
        .map(|t| Times { variant: t.envoy.variant, first_byte: Vec::new(), last_byte: Vec::new(), reads: Vec::new() })
        .collect();
    for _ in 0..count.div_ceil(turn) {
        for (target, times) in targets.iter_mut().zip(&mut all) {
            for _ in 0..turn {
                for connection in &mut target.connections {
                    let request = turns.next().map(Vec::as_slice).unwrap_or_default();
                    let start = Instant::now();
                    connection.send(request)?;
                    let received = connection.receive(scenario.stream)?;
                    let micros = |at: Instant| at.duration_since(start).as_nanos() as f64 / 1000.0;
                    times.first_byte.push(micros(received.first_byte));
                    times.last_byte.push(micros(received.last_byte));
                    times.reads.push(received.reads as f64);
                }
            }
        }
    }
    Ok(all)
}
