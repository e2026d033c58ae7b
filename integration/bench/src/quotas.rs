//! Measures what quotas cost: the same requests without limits, with budgets, with every kind of limit, and with
//! 100,000 tenants that have every kind of limit.

use crate::Result;
use crate::envoy::{Envoy, Variant};
use crate::load::{Cost, Plan, Target, measure_cpu};
use crate::scenario::{self, Scenario};
use crate::statistics::quartiles;
use std::time::Duration;

/// The number of tenants in the policy of [`Variant::Tenants`].
pub const TENANTS: usize = 100_000;

/// The minimum number of starts for measuring what a check costs. Two Envoys with the same configuration differ by
/// several microseconds for as long as they run, which is more than a check costs.
const STARTS: usize = 8;

/// Starts the Envoys one after the other with `start`, measures, and prints the results.
///
/// # Errors
/// If an Envoy does not start, or answers wrongly.
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
        // The memory of two more workers, each with a VM and its policy.
        let settled = |workers| -> Result<u64> {
            let envoy = start(variant, workers)?;
            std::thread::sleep(Duration::from_secs(3));
            envoy.resident_bytes()
        };
        let (one, three) = (settled(1)?, settled(3)?);
        let each = three.saturating_sub(one) as f64 / 2.0 / f64::from(1 << 20);
        println!("{:<16}{each:>36.0} MiB for each further worker", variant.name());
    }
    checks(&start, plan)?;
    println!("\nCPU time of Envoy per request, in µs: median [quartiles]; above that without limits");
    for scenario in scenario::all().into_iter().filter(|s| ["chat_2k", "chat_100k"].contains(&s.name)) {
        measure(&envoys, &scenario, plan)?;
    }
    Ok(())
}

/// Measures what limits cost a request that is estimated, reserved and settled, and a cache hit, which needs only a
/// check. Each time all Envoys are restarted and compared with the two of the same start that have no limits, so a
/// machine that is slow for a while is slow for all of them. The results are also printed as shares of bare Envoy,
/// because machines differ.
fn checks(start: &impl Fn(Variant, u32) -> Result<Envoy>, plan: &Plan) -> Result<()> {
    const VARIANTS: [Variant; 5] =
        [Variant::Bare, Variant::Pointsman, Variant::Budgets, Variant::Limited, Variant::Pointsman];
    let starts = if plan.rounds == 1 { 1 } else { plan.starts.max(STARTS) };
    let wanted = ["chat_2k", "cache_hit_2k"];
    let mut tables: Vec<(Scenario, Table)> = scenario::all()
        .into_iter()
        .filter(|scenario| wanted.contains(&scenario.name))
        .map(|scenario| (scenario, ["bare", "pointsman", "budgets", "limited"].map(|name| (name, vec![], vec![]))))
        .collect();
    for _ in 0..starts {
        let envoys = VARIANTS.map(|variant| start(variant, 1)).into_iter().collect::<Result<Vec<Envoy>>>()?;
        for (scenario, table) in &mut tables {
            add(table, &measure_cpu(&mut Target::open(&envoys, scenario)?, scenario, plan)?)?;
        }
    }
    for (scenario, table) in &tables {
        println!(
            "\nCPU time of Envoy per request of {}, in µs: mean over {starts} starts of each Envoy; \
             above that without limits, \
             with its standard error, and in shares of bare",
            scenario.name
        );
        let bare = table.first().map_or(f64::NAN, |(_, cost, _)| mean(cost).0);
        for (name, cost, more) in table {
            let ((cost, _), (more, error)) = (mean(cost), mean(more));
            println!("{name:<16}{cost:>9.1}{more:>+10.1} ±{error:.1}{:>+10.2} ±{:.2}", more / bare, error / bare);
        }
    }
    Ok(())
}

/// For each variant: its name and, for each start, its cost and how far that is above the gateway without limits.
type Table = [(&'static str, Vec<f64>, Vec<f64>); 4];

/// Adds the costs of one start.
fn add(table: &mut Table, costs: &[Cost]) -> Result<()> {
    let [bare, one, budgets, limited, other] = costs else { return Err("a variant was not measured".into()) };
    let both = one.per_request.iter().zip(&other.per_request);
    let without: Vec<f64> = both.map(|(one, other)| f64::midpoint(*one, *other)).collect();
    let median = |sample: &[f64]| quartiles(sample).median;
    for ((_, cost, more), measured) in
        table.iter_mut().zip([&bare.per_request, &without, &budgets.per_request, &limited.per_request])
    {
        cost.push(median(measured));
        more.push(median(&measured.iter().zip(&without).map(|(one, other)| one - other).collect::<Vec<_>>()));
    }
    Ok(())
}

/// Returns the mean of a sample and the standard error of the mean.
fn mean(sample: &[f64]) -> (f64, f64) {
    let n = sample.len() as f64;
    let mean = sample.iter().sum::<f64>() / n;
    let variance = sample.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, (variance / n).sqrt())
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
