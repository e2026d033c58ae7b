//! Prints tables for people and lines for scripts.

use crate::burst::{Burst, STREAMS};
use crate::envoy::Variant;
use crate::load::{Cost, Plan, Times, paired};
use crate::scenario::Scenario;
use crate::statistics::{Quartiles, percentile, quartiles};
use std::path::Path;

/// Prints what is measured, and how.
pub fn print_setting(module: &Path, bytes: u64, plan: &Plan) {
    let name = module.file_name().unwrap_or_default().to_string_lossy();
    let Plan { starts, rounds, round, .. } = plan;
    println!(
        "{name}: {bytes} bytes. {starts} starts, {rounds} interleaved rounds of {} ms each; Envoy with one worker.",
        round.as_millis()
    );
}

/// Prints the head of the table of CPU times.
pub fn print_cpu_heading() {
    println!(
        "\nCPU time of Envoy per request, in µs: median [quartiles]; pointsman and carry as ratios to bare in the \
         same round"
    );
    println!("{:<24}{:>24}{:>10}{:>10}{:>26}{:>20}{:>20}", "", "bare", "no log", "noop", "pointsman", "carry", "ratio");
}

/// Prints the row of one scenario. Returns the line for scripts.
pub fn print_cpu(scenario: &Scenario, costs: &[Cost]) -> String {
    let of = |variant| costs.iter().find(|c| c.variant == variant).map(|c| quartiles(&c.per_request));
    let spread =
        |variant| of(variant).map_or_else(String::new, |q| format!("{:.1} [{:.1} {:.1}]", q.median, q.low, q.high));
    let median = |variant| of(variant).map_or(f64::NAN, |q| q.median);
    let ratios = |variant| quartiles(&paired(costs, variant, Variant::Bare, |one, bare| one / bare));
    let told = |q: Quartiles| format!("{:.2} [{:.2} {:.2}]", q.median, q.low, q.high);
    let ratio = ratios(Variant::Pointsman);
    println!(
        "{:<24}{:>24}{:>10.1}{:>10.1}{:>26}{:>20}{:>20}",
        scenario.name,
        spread(Variant::Bare),
        median(Variant::BareNoLog),
        median(Variant::Noop),
        spread(Variant::Pointsman),
        told(ratios(Variant::Carry)),
        told(ratio),
    );
    format!("ratio {} {:.2}", scenario.name, ratio.median)
}

/// Prints the head of the table of latencies.
pub fn print_latency_heading() {
    println!("\nLatency with one request at a time, in µs: p50 / p99 to the first and to the last byte of the body");
    println!(
        "{:<24}{:<12}{:>12}{:>12}{:>12}{:>12}{:>8}",
        "", "", "first p50", "first p99", "last p50", "last p99", "reads"
    );
}

/// Prints the rows of one scenario.
pub fn print_latency(scenario: &Scenario, times: &[Times]) {
    for Times { variant, first_byte, last_byte, reads } in times {
        println!(
            "{:<24}{:<12}{:>12.0}{:>12.0}{:>12.0}{:>12.0}{:>8.0}",
            scenario.name,
            variant.name(),
            percentile(first_byte, 0.5),
            percentile(first_byte, 0.99),
            percentile(last_byte, 0.5),
            percentile(last_byte, 0.99),
            percentile(reads, 0.5),
        );
    }
}

/// Prints the table of bursts.
pub fn print_burst(bursts: &[Burst]) {
    println!("\n{STREAMS} streams that begin at once, in µs: p50 / p99 to the first and to the last byte of the body");
    println!("{:<12}{:>12}{:>12}{:>12}{:>12}{:>10}", "", "first p50", "first p99", "last p50", "last p99", "ratio");
    let bare = bursts.iter().find(|b| b.variant == Variant::Bare).map_or(f64::NAN, |b| percentile(&b.first, 0.5));
    for Burst { variant, first, last } in bursts {
        println!(
            "{:<12}{:>12.0}{:>12.0}{:>12.0}{:>12.0}{:>10.2}",
            variant.name(),
            percentile(first, 0.5),
            percentile(first, 0.99),
            percentile(last, 0.5),
            percentile(last, 0.99),
            percentile(first, 0.5) / bare,
        );
    }
}
