//! Tracks which clusters the requests of earlier policies may still need, and until when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The clusters of earlier policies.
#[derive(Default)]
pub struct DrainingClusters {
    /// By cluster name, the time from which no request of an earlier policy can need the cluster.
    until: BTreeMap<String, Instant>,
}

impl DrainingClusters {
    /// Records that a policy with these clusters was replaced at `now`; its last request ends within `longest`. Include
    /// clusters that the next policy keeps: the policy after it may drop them before these requests have ended.
    pub fn replaced<'a>(&mut self, clusters: impl Iterator<Item = &'a String>, longest: Duration, now: Instant) {
        for name in clusters {
            let until = self.until.entry(name.clone()).or_insert(now);
            *until = (*until).max(now + longest);
        }
        self.until.retain(|_, until| now < *until);
    }

    /// Returns whether a request of an earlier policy may need this cluster.
    pub fn may_be_needed(&self, cluster: &str, now: Instant) -> bool {
        self.until.get(cluster).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_cluster_is_kept_for_the_longest_request_of_its_policy_and_no_longer() {
        let start = Instant::now();
        let mut retired = DrainingClusters::default();
        retired.replaced(names(&["plan.a", "plan.b"]).iter(), seconds(40), start);
        assert!(retired.may_be_needed("plan.a", start + seconds(39)));
        assert!(!retired.may_be_needed("plan.a", start + seconds(40)));
        assert!(!retired.may_be_needed("plan.c", start));
    }

    #[test]
    fn the_longest_of_all_policies_that_had_it_counts() {
        let start = Instant::now();
        let mut retired = DrainingClusters::default();
        // The first policy's requests are long; those of the second, which drops the cluster, are short.
        retired.replaced(names(&["plan.a"]).iter(), seconds(600), start);
        retired.replaced(names(&["plan.a", "plan.b"]).iter(), seconds(5), start + seconds(10));
        assert!(retired.may_be_needed("plan.a", start + seconds(599)));
        assert!(!retired.may_be_needed("plan.b", start + seconds(15)));
        // And the other way around.
        retired.replaced(names(&["plan.a"]).iter(), seconds(600), start + seconds(20));
        assert!(retired.may_be_needed("plan.a", start + seconds(619)));
        assert!(!retired.may_be_needed("plan.a", start + seconds(620)));
    }
}
