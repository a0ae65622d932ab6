//! Mean and covariance of features, streamed in f64.

use dcgan_base::matrix::{MatrixView, matmul};
use rayon::prelude::*;

/// Rows of the products that one task computes.
const ROWS: usize = 64;

/// Sums over features `(n, d)`.
#[derive(Clone, Debug)]
pub struct Moments {
    count: usize,
    d: usize,
    sum: Vec<f64>,
    /// Sums of products, `(d, d)`.
    products: Vec<f64>,
}

/// Mean and covariance.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Images, where that is known.
    pub count: Option<usize>,
    /// `(d)`.
    pub mean: Vec<f64>,
    /// `(d, d)`.
    pub covariance: Vec<f64>,
}

impl Moments {
    /// No features yet, of length `d`.
    pub fn new(d: usize) -> Self {
        Self { count: 0, d, sum: vec![0.0; d], products: vec![0.0; d * d] }
    }

    /// Adds features `(n, d)`.
    ///
    /// # Panics
    /// Features that are not whole rows.
    pub fn add(&mut self, features: &[f32]) {
        let d = self.d;
        assert!(features.len().is_multiple_of(d.max(1)), "features are not whole rows");
        let n = features.len() / d.max(1);
        let rows: Vec<f64> = features.iter().map(|value| f64::from(*value)).collect();
        for row in rows.chunks_exact(d.max(1)) {
            self.sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        self.products.par_chunks_mut(ROWS * d.max(1)).enumerate().for_each(|(part, products)| {
            let first = part * ROWS;
            let columns = MatrixView::strided(&rows[first..], n, products.len() / d, d);
            matmul(products, columns.t(), MatrixView::new(&rows, n, d), true);
        });
        self.count += n;
    }

    /// Features so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Mean and covariance, divided by `n - ddof`.
    pub fn finish(&self, ddof: usize) -> Statistics {
        let (n, d) = (self.count as f64, self.d);
        let mean: Vec<f64> = self.sum.iter().map(|sum| sum / n).collect();
        let divisor = n - ddof as f64;
        let mut covariance = self.products.clone();
        covariance.par_chunks_mut(d.max(1)).enumerate().for_each(|(i, row)| {
            for (value, mean_j) in row.iter_mut().zip(&mean) {
                *value = (*value - n * mean[i] * mean_j) / divisor;
            }
        });
        Statistics { count: Some(self.count), mean, covariance }
    }
}

impl Statistics {
    /// Of features `(n, d)` that are in memory.
    pub fn of(features: &[f32], d: usize, ddof: usize) -> Self {
        let mut moments = Moments::new(d);
        // The rounding of sums depends on the parts; they are the same for all callers.
        features.chunks(256 * d.max(1)).for_each(|part| moments.add(part));
        moments.finish(ddof)
    }
}
