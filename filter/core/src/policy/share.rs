//! `max_share`: how much one tenant may hold of what tenants share.

use crate::config::place::Place;
use crate::config::problem::Problem;
use crate::ids::ModelId;
use crate::policy::{Model, Tenant, Tier};

/// The share where the policy sets none.
const DEFAULT: f64 = 0.5;

/// Returns the share that the policy sets, and reports one that is out of range.
pub(super) fn checked(share: Option<f64>, place: &Place, problems: &mut Vec<Problem>) -> f64 {
    let share = share.unwrap_or(DEFAULT);
    if !(0.001..=1.0).contains(&share) {
        problems.push(Problem::new(place.name("max_share"), "must be a share from 0.001 to 1"));
    }
    share
}

/// Returns a share of `whole`, rounded up, and at least one.
pub(super) fn of(whole: u64, share: f64) -> u64 {
    // In thousandths, because 0.1 of ten would otherwise round up to two.
    let thousandths = (share.clamp(0.0, 1.0) * 1000.0).round() as u128;
    let part = (u128::from(whole) * thousandths).div_ceil(1000).max(1);
    u64::try_from(part).unwrap_or(whole)
}

/// Gives all places of a model that only one tenant may use to that tenant.
pub(super) fn give_whole(models: &mut [Model], tiers: &[Tier], tenants: &[Tenant]) {
    let mut tenants_of = vec![0_usize; tiers.len()];
    for tenant in tenants {
        if let Some(count) = tenants_of.get_mut(tenant.tier.0 as usize) {
            *count += 1;
        }
    }
    for (model, i) in models.iter_mut().zip(0..) {
        let Some(limit) = model.max_concurrent else { continue };
        let may = tiers.iter().zip(&tenants_of).filter(|(tier, _)| tier.allows(ModelId(i)));
        if may.map(|(_, count)| count).sum::<usize>() <= 1 {
            model.tenant_places = limit;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_share_is_rounded_up_and_is_never_nothing() {
        let of = |whole, share| super::of(whole, share);
        assert_eq!([of(10, 0.1), of(10, 0.5), of(9, 0.5), of(1, 0.001), of(7, 1.0)], [1, 5, 5, 1, 7]);
        assert_eq!(of(u64::MAX, 1.0), u64::MAX);
    }

    #[test]
    fn a_model_is_shared_by_the_tenants_whose_tier_allows_it() {
        let mut document = crate::fixture::document();
        for model in ["small", "big"] {
            document["models"][model]["max_concurrent"] = json!(9);
        }
        document["models"]["small"]["max_share"] = json!(0.2);
        document["tiers"] = json!({"one": {"models": ["small"]}, "two": {"models": ["small", "big"]}});
        let key = |n: u32| json!([format!("sha256:{n:064x}")]);
        document["tenants"] = json!({"a": {"tier": "one", "keys": key(1)}, "b": {"tier": "two", "keys": key(2)}});
        let places = |document: &serde_json::Value| {
            let policy = crate::policy::parse::from_value(document).unwrap().1;
            ["small", "big"].map(|name| policy.model(policy.find_model(name).unwrap()).tenant_places)
        };
        assert_eq!(places(&document), [2, 9]);
        document["tenants"]["c"] = json!({"tier": "two", "keys": key(3)});
        assert_eq!(places(&document), [2, 5]);
    }
}
