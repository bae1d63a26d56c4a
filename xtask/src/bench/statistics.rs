//! The few figures that a heap of measurements is made into. Pure.

/// What lies at a share of the way from the lowest to the highest; none of nothing.
fn quantile(mut values: Vec<f64>, numerator: usize, denominator: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let at = values
        .len()
        .saturating_sub(1)
        .min(values.len() * numerator / denominator);
    values.get(at).copied()
}

/// The middle one; of an even number, the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let upper = *values.get(half)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(half.checked_sub(1)?)?;
    Some(f64::midpoint(lower, upper))
}

/// The 20th percentile: what a quiet machine gives. Neighbours outside a virtual machine slow it for seconds at a
/// time, and a median takes over whatever they did; windows of a quarter of a second find the gaps.
pub(super) fn calm(windows: Vec<f64>) -> Option<f64> {
    quantile(windows, 1, 5)
}

/// Median and 99th percentile of latencies.
pub(super) fn p50_p99(values: &[f64]) -> Option<(f64, f64)> {
    Some((
        quantile(values.to_vec(), 1, 2)?,
        quantile(values.to_vec(), 99, 100)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_heap() {
        let heap: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(median(heap.clone()), Some(50.5));
        assert_eq!(calm(heap.clone()), Some(21.0));
        assert_eq!(p50_p99(&heap), Some((51.0, 100.0)));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(calm(vec![7.0]), Some(7.0));
        assert_eq!(median(Vec::new()), None);
        assert_eq!(calm(Vec::new()), None);
    }
}
