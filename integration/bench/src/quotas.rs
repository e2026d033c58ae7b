//! What quotas cost: the same requests without limits, with every kind of limit, and with 100,000 tenants that have them all.

use crate::Result;
use crate::envoy::{Envoy, Variant};
use crate::load::{Plan, Target, measure_cpu};
use crate::scenario::{self, Scenario};
use crate::statistics::quartiles;
use std::time::Duration;

/// Tenants of the policy of [`Variant::Tenants`].
pub const TENANTS: usize = 100_000;

/// Starts the Envoys one after the other by `start`, which tells how long that took, and measures.
///
/// # Errors
/// What did not start, or answered wrongly.
pub fn run(start: impl Fn(Variant, u32) -> Result<Envoy>, plan: &Plan) -> Result<()> {
    println!("\n{:<16}{:>16}{:>20}{:>22}", "", "start, s", "resident, MiB", "above bare, MiB");
    let mut envoys = Vec::new();
    let mut without = 0.0;
    for variant in [Variant::Bare, Variant::Pointsman, Variant::Limited, Variant::Tenants] {
        let envoy = start(variant, 1)?;
        let resident = envoy.resident_bytes()? as f64 / f64::from(1 << 20);
        if variant == Variant::Bare {
            without = resident;
        }
        println!("{:<16}{:>16.2}{resident:>20.0}{:>22.0}", variant.name(), envoy.start_s, resident - without);
        envoys.push(envoy);
    }
    for variant in [Variant::Pointsman, Variant::Tenants] {
        // What two workers more hold, which is a VM and its policy each.
        let settled = |workers| -> Result<u64> {
            let envoy = start(variant, workers)?;
            std::thread::sleep(Duration::from_secs(3));
            envoy.resident_bytes()
        };
        let (one, three) = (settled(1)?, settled(3)?);
        let each = three.saturating_sub(one) as f64 / 2.0 / f64::from(1 << 20);
        println!("{:<16}{each:>36.0} MiB for each further worker", variant.name());
    }
    println!("\nCPU time of Envoy per request, in µs: median [quartiles]; above that without limits");
    for scenario in scenario::all().into_iter().filter(|s| ["chat_2k", "chat_100k"].contains(&s.name)) {
        measure(&envoys, &scenario, plan)?;
    }
    Ok(())
}

fn measure(envoys: &[Envoy], scenario: &Scenario, plan: &Plan) -> Result<()> {
    let mut targets = Target::open(envoys, scenario)?;
    let costs = measure_cpu(&mut targets, scenario, &plan.for_scenario(scenario))?;
    let of = |variant| costs.iter().find(|c| c.variant == variant).map(|c| quartiles(&c.per_request));
    let without = of(Variant::Pointsman).map_or(f64::NAN, |q| q.median);
    for cost in &costs {
        let q = quartiles(&cost.per_request);
        let (name, more) = (cost.variant.name(), q.median - without);
        println!("{:<12}{name:<16}{:>9.1} [{:.1} {:.1}]{more:>+10.1}", scenario.name, q.median, q.low, q.high);
    }
    Ok(())
}
