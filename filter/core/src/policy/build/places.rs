//! Whose the places of a model are, when the tenants and their tiers are known.

use crate::ids::ModelId;
use crate::policy::{Model, Tenant, Tier};

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
