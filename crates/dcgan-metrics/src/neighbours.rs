//! Precision and recall (Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative
//! Models"), density and coverage (Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models").

use dcgan_base::matrix::{MatrixView, matmul};
use rayon::prelude::*;

use crate::error::MetricsError;

/// Neighbour whose distance is the radius of an image, for precision and recall.
pub const PRECISION_K: usize = 3;

/// The same for density and coverage.
pub const DENSITY_K: usize = 5;

/// Rows of one task.
const ROWS: usize = 128;

/// The four numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbours {
    /// Share of generated images within the radius of a real one (k = 3, `<=`).
    pub precision: f64,
    /// Share of real images within the radius of a generated one (k = 3, `<=`).
    pub recall: f64,
    /// Real radii around a generated image on average, divided by k (k = 5, `<`).
    pub density: f64,
    /// Share of real images with a generated one within their radius (k = 5, `<`).
    pub coverage: f64,
}

/// Features with their squared lengths.
struct Rows {
    values: Vec<f64>,
    squares: Vec<f64>,
    d: usize,
}

impl Rows {
    fn new(features: &[f32], d: usize) -> Self {
        let values: Vec<f64> = features.iter().map(|value| f64::from(*value)).collect();
        let squares = values.chunks_exact(d).map(|row| row.iter().map(|x| x * x).sum()).collect();
        Self { values, squares, d }
    }

    fn len(&self) -> usize {
        self.squares.len()
    }

    /// Calls `body` with every row's number and its squared distances to all rows of `others`; results in order.
    fn distances<R: Send>(&self, others: &Rows, body: impl Fn(usize, &mut [f64]) -> R + Sync) -> Vec<R> {
        let n = others.len();
        let starts: Vec<usize> = (0..self.len()).step_by(ROWS).collect();
        let parts: Vec<Vec<R>> = starts
            .into_par_iter()
            .map(|start| {
                let rows = ROWS.min(self.len() - start);
                let mut products = vec![0.0; rows * n];
                let part = MatrixView::new(&self.values[start * self.d..][..rows * self.d], rows, self.d);
                matmul(&mut products, part, MatrixView::new(&others.values, n, self.d).t(), false);
                let row = |(row, distances): (usize, &mut [f64])| {
                    let square = self.squares[start + row];
                    for (distance, other) in distances.iter_mut().zip(&others.squares) {
                        *distance = (square + other - 2.0 * *distance).max(0.0);
                    }
                    body(start + row, distances)
                };
                products.chunks_exact_mut(n).enumerate().map(row).collect()
            })
            .collect();
        parts.into_iter().flatten().collect()
    }

    /// The squared distance of each row to its neighbours number `k` and `l` among the others.
    fn radii(&self, k: usize, l: usize) -> Vec<(f64, f64)> {
        self.distances(self, |row, distances| {
            // Not rounded: the nearest row is the row itself.
            distances[row] = 0.0;
            let mut kth = |k: usize| *distances.select_nth_unstable_by(k, f64::total_cmp).1;
            (kth(k), kth(l))
        })
    }
}

/// Precision, recall, density and coverage of generated features `(n, d)` against real ones `(m, d)`.
///
/// # Errors
/// [`MetricsError::TooFew`].
pub fn neighbours(generated: &[f32], real: &[f32], d: usize) -> Result<Neighbours, MetricsError> {
    let (generated, real) = (Rows::new(generated, d), Rows::new(real, d));
    let found = generated.len().min(real.len());
    if found <= DENSITY_K {
        return Err(MetricsError::TooFew { metric: "precision and recall", needed: DENSITY_K + 1, found });
    }
    let generated_radii = generated.radii(PRECISION_K, DENSITY_K);
    let real_radii = real.radii(PRECISION_K, DENSITY_K);
    // For each generated image: whether it is in a real ball, and how many balls of the larger radius it is in.
    let of_generated = generated.distances(&real, |_, distances| {
        let pairs = || distances.iter().zip(&real_radii);
        let is_inside = pairs().any(|(distance, radius)| *distance <= radius.0);
        (is_inside, pairs().filter(|(distance, radius)| **distance < radius.1).count())
    });
    let of_real = real.distances(&generated, |row, distances| {
        let is_inside =
            distances.iter().zip(&generated_radii).any(|(distance, radius)| *distance <= radius.0);
        let nearest = distances.iter().copied().fold(f64::INFINITY, f64::min);
        (is_inside, nearest < real_radii[row].1)
    });
    let (n, m) = (generated.len() as f64, real.len() as f64);
    let share = |count: usize, of: f64| count as f64 / of;
    Ok(Neighbours {
        precision: share(of_generated.iter().filter(|found| found.0).count(), n),
        recall: share(of_real.iter().filter(|found| found.0).count(), m),
        density: share(of_generated.iter().map(|found| found.1).sum(), n * DENSITY_K as f64),
        coverage: share(of_real.iter().filter(|found| found.1).count(), m),
    })
}
