//! The memory for long answers that a worker holds: one tenant never has more than its share.

use crate::cache::local::recording::RecordingBudget;
use crate::ids::TenantId;
use crate::policy::Policy;
use std::collections::BTreeMap;

/// Most bytes of all copies of long answers, and of all answers that are being assembled from streams, that a worker
/// holds. The usage of further long ones is estimated; further ones are not assembled.
const COPIES: usize = 64 << 20;

/// The budget, by tenant.
#[derive(Debug)]
pub struct Copies {
    all: RecordingBudget,
    share: usize,
    /// Of the tenants that have ever held any of it.
    tenants: BTreeMap<TenantId, RecordingBudget>,
}

impl Copies {
    /// Creates the budget of a worker under this policy.
    pub fn new(policy: &Policy) -> Self {
        Self::with(COPIES, policy.copy_share(COPIES))
    }

    fn with(bytes: usize, share: usize) -> Self {
        Self { all: RecordingBudget::new(bytes), share, tenants: BTreeMap::new() }
    }

    /// Returns the budget of one tenant.
    pub fn of(&mut self, tenant: TenantId) -> RecordingBudget {
        self.tenants.entry(tenant).or_insert_with(|| self.all.part(self.share)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_holds_its_share_and_leaves_the_rest_to_others() {
        let mut copies = Copies::with(100, 60);
        let (one, other) = (TenantId(7), TenantId(0));
        let first = copies.of(one).reserve(40);
        assert!(first.is_some() && copies.of(one).reserve(21).is_none());
        let second = copies.of(other).reserve(60);
        assert!(second.is_some() && copies.of(one).reserve(1).is_none(), "all of it is taken");
        drop(first);
        assert!(copies.of(other).reserve(1).is_none() && copies.of(one).reserve(40).is_some());
    }

    #[test]
    fn half_unless_the_policy_says_otherwise_and_all_of_it_for_the_only_tenant() {
        let mut document = crate::fixture::document();
        let mut share = |max_share: Option<f64>| {
            if let Some(share) = max_share {
                document["response"] = serde_json::json!({"max_share": share});
            }
            crate::policy::parse::from_value(&document).unwrap().1.copy_share(COPIES)
        };
        assert_eq!([share(None), share(Some(0.25))], [COPIES / 2, COPIES / 4]);
        let tenants = document["tenants"].as_object_mut().unwrap();
        tenants.retain(|name, _| name == "acme");
        assert_eq!(crate::policy::parse::from_value(&document).unwrap().1.copy_share(COPIES), COPIES);
    }
}
