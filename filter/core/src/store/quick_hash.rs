//! A fast hash for maps whose keys come from the policy. It does not withstand chosen keys, so text from callers must
//! not be among them.

/// For `HashMap<K, V, QuickHash>`: the Rust compiler's own hash, which multiplies machine words. A hash with 128-bit
/// products took three times as long in Wasm, which has no such multiplication.
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
        // A map of twice as many places. A random function would make 39 % of the 4096 names share a place.
        let places = names.iter().map(|name| of(name) % 8192).collect::<HashSet<_>>().len();
        assert!(places > 3000, "{places}");
    }
}
