//! `max_share`: how much one tenant may hold of what tenants share.

use crate::config::place::Place;
use crate::config::problem::Problem;

/// The share where the policy sets none.
const DEFAULT: f64 = 0.5;

/// Returns the share that the policy sets, and reports one that is out of range.
pub(super) fn checked(share: Option<f64>, place: &Place, problems: &mut Vec<Problem>) -> f64 {
    let share = or_default(share);
    if !(0.001..=1.0).contains(&share) {
        problems.push(Problem::new(place.name("max_share"), "must be a share from 0.001 to 1"));
    }
    share
}

/// Returns the share that the policy sets, or the usual one.
pub(super) fn or_default(share: Option<f64>) -> f64 {
    share.unwrap_or(DEFAULT)
}

/// Returns a share of `whole`, rounded up, and at least one.
pub(super) fn of(whole: u64, share: f64) -> u64 {
    // In thousandths, because 0.1 of ten would otherwise round up to two.
    let thousandths = (share.clamp(0.0, 1.0) * 1000.0).round() as u128;
    let part = (u128::from(whole) * thousandths).div_ceil(1000).max(1);
    u64::try_from(part).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_share_is_rounded_up_and_is_never_nothing() {
        let of = |whole, share| super::of(whole, share);
        assert_eq!([of(10, 0.1), of(10, 0.5), of(9, 0.5), of(1, 0.001), of(7, 1.0)], [1, 5, 5, 1, 7]);
        assert_eq!(of(u64::MAX, 1.0), u64::MAX);
    }
}
