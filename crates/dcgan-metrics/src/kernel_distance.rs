//! The kernel Inception distance (Bińkowski et al. 2018, "Demystifying MMD GANs").

use dcgan_base::matrix::{MatrixView, matmul};
use rayon::prelude::*;

use crate::error::MetricsError;
use crate::random_state::RandomState;

/// Subsets whose distances are averaged.
pub const SUBSETS: usize = 100;

/// Images of a subset.
pub const SUBSET_SIZE: usize = 1000;

/// The seed of subsets and splits in torch-fidelity.
pub const SUBSET_SEED: u32 = 2020;

/// A value with its standard deviation (of the population) over subsets or splits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub std: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / n;
        Self { mean, std: variance.sqrt() }
    }
}

/// The unbiased squared MMD with the kernel `(x.y / d + 1)^3`, over `subsets` pairs of subsets of `size` features.
///
/// # Errors
/// [`MetricsError::TooFew`].
pub fn kernel_distance(
    a: &[f32],
    b: &[f32],
    d: usize,
    subsets: usize,
    size: usize,
    random: &mut RandomState,
) -> Result<Spread, MetricsError> {
    let (n_a, n_b) = (a.len() / d.max(1), b.len() / d.max(1));
    if n_a.min(n_b) < size {
        return Err(MetricsError::TooFew { metric: "KID", needed: size, found: n_a.min(n_b) });
    }
    let pairs: Vec<_> = (0..subsets).map(|_| (random.choice(n_a, size), random.choice(n_b, size))).collect();
    let distance = |(of_a, of_b): &(Vec<usize>, Vec<usize>)| {
        let rows = |features: &[f32], chosen: &[usize]| -> Vec<f64> {
            chosen.iter().flat_map(|&i| &features[i * d..][..d]).map(|value| f64::from(*value)).collect()
        };
        let (a, b) = (rows(a, of_a), rows(b, of_b));
        let mut kernel = vec![0.0; size * size];
        // The sum of the kernel over all pairs, without those of an image with itself.
        let mut sum = |a: &[f64], b: &[f64], is_same: bool| {
            matmul(&mut kernel, MatrixView::new(a, size, d), MatrixView::new(b, size, d).t(), false);
            let cube = |x: &f64| (x / d as f64 + 1.0).powi(3);
            let all: f64 = kernel.iter().map(cube).sum();
            let own: f64 = if is_same { kernel.iter().step_by(size + 1).map(cube).sum() } else { 0.0 };
            all - own
        };
        let m = size as f64;
        (sum(&a, &a, true) + sum(&b, &b, true)) / (m * (m - 1.0)) - 2.0 * sum(&a, &b, false) / (m * m)
    };
    let distances: Vec<f64> = pairs.par_iter().map(distance).collect();
    Ok(Spread::of(&distances))
}
