//! A quick hash for maps whose keys are of the policy. It does not withstand keys that somebody chooses, so no caller's
//! words may be among them.

/// For `HashMap<K, V, QuickHash>`: the Rust compiler's own, which multiplies words of the machine's size. A hash by
/// products of 128 bits took three times as long in Wasm, which has none.
pub type QuickHash = rustc_hash::FxBuildHasher;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::hash::BuildHasher as _;

    #[test]
    fn names_that_differ_little_are_spread_well() {
        let names: Vec<String> = (0..4096).map(|n| format!("pointsman.quota.tenant-{n}")).collect();
        let of = |name: &String| QuickHash::default().hash_one(name);
        assert_eq!(names.iter().map(of).collect::<HashSet<_>>().len(), names.len());
        // As a map of twice as many places sees them: a random function would leave 39 % of 4096 without one of their
        // own.
        let places = names.iter().map(|name| of(name) % 8192).collect::<HashSet<_>>().len();
        assert!(places > 3000, "{places}");
    }
}
