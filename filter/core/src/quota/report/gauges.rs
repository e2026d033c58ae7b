//! The gauges of what tenants have left: how often they are set, and that a new day or month updates them without a
//! request.

use crate::ids::TenantId;
use crate::policy::Policy;
use crate::policy::calendar::Zone;
use crate::policy::limits::ANONYMOUS;
use crate::quota::counters::Crossed;
use crate::quota::local;
use crate::quota::reservation::{Ask, Scope, Settled};
use crate::quota::store::Store;
use crate::quota::window::{Moment, WindowStatus};
use crate::telemetry::metrics::Metric;
use std::collections::{BTreeSet, HashMap};

/// How long after midnight a day counts as begun, in milliseconds: the clocks of Redis and this Envoy may differ.
const LATE_MS: u64 = 10_000;

/// Detects that a new day has begun.
#[derive(Debug, Default)]
pub struct DayRollover {
    until_ms: u64,
}

impl DayRollover {
    /// Returns whether a new day has begun since the last call. The first call returns false.
    pub fn has_changed(&mut self, zone: &Zone, now_ms: u64) -> bool {
        if now_ms < self.until_ms {
            return false;
        }
        let is_first = self.until_ms == 0;
        // A month ends when a day ends.
        self.until_ms = zone.day(now_ms).ends_ms.saturating_add(LATE_MS);
        !is_first
    }
}

/// When one worker sets the gauges of a tenant: immediately if it has not done so for a while, otherwise a little
/// later. Without this, a busy tenant would pay for it with every request. Tenants are identified by name, because
/// gauges outlive a policy.
#[derive(Debug, Default)]
pub struct GaugeThrottle(HashMap<Box<str>, Set>);

#[derive(Debug, Clone, Copy)]
struct Set {
    at_ms: u64,
    is_due: bool,
}

/// The minimum time between two updates of a tenant's gauges, in milliseconds.
pub const THROTTLE_MS: u64 = 1000;

/// Maximum number of tenants that `GaugeThrottle::due` returns per call. Each costs a read of its record, and
/// requests wait meanwhile.
const MAX_AT_ONCE: usize = 2000;

impl GaugeThrottle {
    /// Returns whether to set a gauge of this tenant now, after its windows have changed. All gauges with the same
    /// `now_ms` are set.
    pub fn should_set(&mut self, tenant: &str, now_ms: u64) -> bool {
        match self.0.get_mut(tenant) {
            Some(set) if set.at_ms != now_ms && now_ms.abs_diff(set.at_ms) < THROTTLE_MS => {
                set.is_due = true;
                false
            }
            Some(set) => {
                *set = Set { at_ms: now_ms, is_due: false };
                true
            }
            None => {
                self.0.insert(tenant.into(), Set { at_ms: now_ms, is_due: false });
                true
            }
        }
    }

    /// Records that the tenant has gauges, so that `set_all` includes it. Changes nothing for a known tenant.
    pub fn note(&mut self, tenant: &str, now_ms: u64) {
        if !self.0.contains_key(tenant) {
            self.0.insert(tenant.into(), Set { at_ms: now_ms, is_due: false });
        }
    }

    /// Makes the gauges of every known tenant due: the policy has changed, or a new day has begun.
    pub fn set_all(&mut self) {
        self.0.values_mut().for_each(|set| set.is_due = true);
    }

    /// Returns the tenants whose gauges are due, and marks them as set. Of very many it returns some, and the others on
    /// later calls.
    pub fn due(&mut self, now_ms: u64) -> BTreeSet<Box<str>> {
        let due = self.0.iter_mut().filter(|(_, set)| set.is_due).take(MAX_AT_ONCE);
        due.map(|(tenant, set)| {
            *set = Set { at_ms: now_ms, is_due: false };
            tenant.clone()
        })
        .collect()
    }
}

/// Reads from the local store what a tenant has left, as gauges.
pub fn look(policy: &Policy, tenant: TenantId, store: &mut dyn Store) -> Vec<(Metric, u64)> {
    let Some(limits) = policy.quota_of(tenant) else { return Vec::new() };
    let moment = Moment::new(&policy.counting.zone, store.now_ms());
    let name = &*policy.tenant(tenant).name;
    let ask = Ask {
        tenant: name,
        user: &ANONYMOUS,
        models: &[],
        lease_ms: None,
        adds_up: false,
        stop_at_degrade_threshold: false,
        is_rough: false,
    };
    gauges(tenant, &local::look(store, limits, &ask, &moment))
}

/// Returns the gauges of a tenant from its window statuses.
pub(crate) fn gauges(tenant: TenantId, statuses: &[(Scope, WindowStatus)]) -> Vec<(Metric, u64)> {
    let own = statuses.iter().filter(|(scope, _)| *scope == Scope::Tenant);
    remaining(tenant, own.map(|(_, status)| status)).collect()
}

/// Returns the log lines for shares that were reached.
pub(crate) fn lines(tenant: &str, crossed: &[Crossed]) -> Vec<String> {
    let line = |c: &Crossed| {
        format!("pointsman: tenant {tenant} has used {}.{}% of {}", c.share / 10, c.share % 10, c.window.name())
    };
    crossed.iter().map(line).collect()
}

/// Adds the metrics of a settlement to `all`.
pub(crate) fn count(tenant: TenantId, settled: &Settled, all: &mut Vec<(Metric, u64)>) {
    for crossed in &settled.crossed {
        all.push((Metric::QuotaAlerts { tenant, window: crossed.window.name(), share: crossed.share }, 1));
    }
    all.extend(remaining(tenant, settled.statuses.iter()));
}

/// Returns the gauges of a tenant's daily and monthly windows.
pub(crate) fn remaining<'a>(
    tenant: TenantId,
    statuses: impl Iterator<Item = &'a WindowStatus>,
) -> impl Iterator<Item = (Metric, u64)> {
    let of_calendar = statuses.filter(|status| status.window.is_calendar());
    of_calendar.map(move |status| (Metric::QuotaRemaining { tenant, window: status.window.name() }, status.remaining()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::fixture::{START, Shared, policy};
    use serde_json::json;

    #[test]
    fn a_day_is_new_once_a_little_after_its_midnight() {
        let (zone, mut days, day) = (Zone::fixed(0), DayRollover::default(), 86_400_000);
        assert!(!days.has_changed(&zone, START + 5));
        for n in 1..4 {
            assert!(!days.has_changed(&zone, START + n * day + LATE_MS - 1), "{n}");
            assert!(days.has_changed(&zone, START + n * day + LATE_MS + 3), "{n}");
            assert!(!days.has_changed(&zone, START + n * day + LATE_MS + 4), "{n}");
        }
        // After several days without a call, only one new day is reported.
        assert!(days.has_changed(&zone, START + 20 * day));
        assert!(!days.has_changed(&zone, START + 20 * day + 1));
    }

    #[test]
    fn gauges_are_set_at_once_and_then_once_in_a_while() {
        let (mut throttle, one, two) = (GaugeThrottle::default(), "one", "two");
        let due = |throttle: &mut GaugeThrottle, now_ms| {
            throttle.due(now_ms).into_iter().map(String::from).collect::<Vec<_>>()
        };
        assert!(throttle.should_set(one, START) && throttle.should_set(one, START), "each of its gauges");
        assert!(due(&mut throttle, START).is_empty());
        assert!(
            !throttle.should_set(one, START + 1)
                && !throttle.should_set(one, START + 999)
                && throttle.should_set(two, START + 999)
        );
        assert_eq!(due(&mut throttle, START + 999), [one]);
        assert!(due(&mut throttle, START + 999).is_empty());
        assert!(!throttle.should_set(one, START + 1998) && throttle.should_set(two, START + 1999));
        // A gauge that was set in the meantime is not due again. A clock that went back does not delay anything.
        assert!(throttle.should_set(one, START + 1999));
        assert!(due(&mut throttle, START + 1999).is_empty());
        assert!(throttle.should_set(one, START - 5000));
        throttle.set_all();
        throttle.note("three", START);
        assert_eq!(due(&mut throttle, START), [one, two]);
        throttle.set_all();
        assert_eq!(due(&mut throttle, START), [one, "three", two]);
        let many = 2 * MAX_AT_ONCE + 1;
        (0..many).for_each(|n| throttle.note(&n.to_string(), START));
        throttle.set_all();
        let of_each: Vec<usize> = (0..4).map(|_| due(&mut throttle, START).len()).collect();
        assert_eq!(of_each, [MAX_AT_ONCE, MAX_AT_ONCE, 4, 0]);
    }

    #[test]
    fn what_is_left_is_all_again_when_the_day_is_new() {
        let policy = policy(&json!({"tokens_per_day": 100, "budget_usd_per_month": 1, "requests_per_minute": 5}), 16);
        let tenant = policy.find_tenant("acme").unwrap();
        let limits = policy.quota_of(tenant).unwrap();
        let mut store = Shared { now_ms: START, ..Shared::default() };
        let model = policy.find_model("small").unwrap();
        let amount = crate::quota::window::Amount::new(60, 400_000);
        let models = [(model, amount)];
        let ask = Ask {
            tenant: "acme",
            user: &ANONYMOUS,
            models: &models,
            lease_ms: Some(1),
            adds_up: false,
            stop_at_degrade_threshold: false,
            is_rough: false,
        };
        let moment = Moment::new(&policy.counting.zone, START);
        let grant = local::reserve(&mut store, limits, &ask, &moment).unwrap();
        let charge = [crate::quota::reservation::Charge { model, used: amount }];
        local::settle(&mut store, limits, &grant.reservation, &charge, &moment);
        let left =
            |store: &mut Shared| look(&policy, tenant, store).iter().map(|(_, value)| *value).collect::<Vec<_>>();
        assert_eq!(left(&mut store), [40, 600_000]);
        store.now_ms += 86_400_000;
        assert_eq!(left(&mut store), [100, 600_000], "the month goes on");
        store.now_ms += 86_400_000;
        assert_eq!(left(&mut store), [100, 1_000_000]);
    }
}
