//! Medians and quartiles, so that one noisy neighbour does not move a figure.

/// Three quartiles of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quartiles {
    /// A quarter of the values lie below.
    pub low: f64,
    /// Half of them.
    pub median: f64,
    /// Three quarters.
    pub high: f64,
}

/// Returns the value below which the share `p` of the sample lies, interpolated; 0 for an empty sample.
pub fn percentile(sample: &[f64], p: f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = p * sorted.len().saturating_sub(1) as f64;
    let at = |index: f64| sorted.get(index as usize).copied().unwrap_or(0.0);
    let (below, above) = (at(place.floor()), at(place.ceil()));
    below + (above - below) * place.fract()
}

/// Returns the quartiles of a sample.
pub fn quartiles(sample: &[f64]) -> Quartiles {
    Quartiles { low: percentile(sample, 0.25), median: percentile(sample, 0.5), high: percentile(sample, 0.75) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_interpolated_and_the_order_does_not_matter() {
        let all = quartiles(&[4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!(all, Quartiles { low: 2.0, median: 3.0, high: 4.0 });
        assert_eq!(percentile(&[2.0, 1.0], 0.5), 1.5);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}
