//! The Fréchet distance of two Gaussians (Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to
//! a Local Nash Equilibrium"), and its limit for many images (Chong and Forsyth 2020, "Effectively Unbiased FID and
//! Inception Score and where to find them").

use dcgan_base::matrix::{MatrixView, matmul};
use faer::{Mat, Side};

use crate::error::MetricsError;
use crate::random_state::RandomState;
use crate::statistics::Statistics;

/// Points of the line in 1/n.
const POINTS: usize = 15;

/// One side of the distance, decomposed: many distances from it cost one decomposition each.
#[derive(Debug)]
pub struct Reference<'a> {
    statistics: &'a Statistics,
    /// A square root of the covariance, `(d, rank)`.
    root: Vec<f64>,
    rank: usize,
}

impl<'a> Reference<'a> {
    /// # Errors
    /// [`MetricsError::Eigenvalues`].
    pub fn new(statistics: &'a Statistics) -> Result<Self, MetricsError> {
        let d = statistics.mean.len();
        let eigen = symmetric(&statistics.covariance, d)
            .self_adjoint_eigen(Side::Lower)
            .map_err(|_| MetricsError::Eigenvalues)?;
        let values: Vec<f64> = (0..d).map(|i| eigen.S()[i]).collect();
        let largest = values.iter().copied().fold(0.0, f64::max);
        let smallest_used = d as f64 * f64::EPSILON * largest;
        let used: Vec<usize> = (0..d).filter(|&i| values[i] > smallest_used).collect();
        let rank = used.len();
        let mut root = vec![0.0; d * rank];
        for (column, &i) in used.iter().enumerate() {
            let scale = values[i].sqrt();
            for row in 0..d {
                root[row * rank + column] = eigen.U()[(row, i)] * scale;
            }
        }
        Ok(Self { statistics, root, rank })
    }

    /// The distance to `other`: the squared distance of the means, plus the trace of `A + B - 2 (AB)^(1/2)`.
    ///
    /// # Errors
    /// [`MetricsError::Eigenvalues`].
    pub fn distance(&self, other: &Statistics) -> Result<f64, MetricsError> {
        let (d, rank) = (self.statistics.mean.len(), self.rank);
        let mut product = vec![0.0; d * rank];
        let root = MatrixView::new(&self.root, d, rank);
        matmul(&mut product, MatrixView::new(&other.covariance, d, d), root, false);
        let mut inner = vec![0.0; rank * rank];
        matmul(&mut inner, root.t(), MatrixView::new(&product, d, rank), false);
        let values = symmetric(&inner, rank)
            .self_adjoint_eigenvalues(Side::Lower)
            .map_err(|_| MetricsError::Eigenvalues)?;
        let trace_root: f64 = values.iter().map(|value| value.max(0.0).sqrt()).sum();
        let trace = |covariance: &[f64]| (0..d).map(|i| covariance[i * d + i]).sum::<f64>();
        let means = self.statistics.mean.iter().zip(&other.mean).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
        let distance =
            means + trace(&self.statistics.covariance) + trace(&other.covariance) - 2.0 * trace_root;
        if distance.is_finite() { Ok(distance) } else { Err(MetricsError::Eigenvalues) }
    }

    /// The distance to features `(n, d)` for infinitely many of them: a line through the distances to subsets of
    /// growing size, at 1/n = 0.
    ///
    /// # Errors
    /// Those of [`Reference::distance`].
    pub fn distance_at_infinity(
        &self,
        features: &[f32],
        ddof: usize,
        random: &mut RandomState,
    ) -> Result<f64, MetricsError> {
        let d = self.statistics.mean.len();
        let n = features.len() / d.max(1);
        let order = random.permutation(n);
        let smallest = (n / 10).max(2);
        let mut points = Vec::new();
        for point in 0..POINTS {
            let count = smallest + (n - smallest) * point / (POINTS - 1);
            let chosen: Vec<f32> =
                order.iter().take(count).flat_map(|&i| &features[i * d..][..d]).copied().collect();
            points.push((1.0 / count as f64, self.distance(&Statistics::of(&chosen, d, ddof))?));
        }
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>()
            / points.iter().map(|point| (point.0 - x) * (point.0 - x)).sum::<f64>();
        Ok(y - slope * x)
    }
}

fn symmetric(values: &[f64], d: usize) -> Mat<f64> {
    Mat::from_fn(d, d, |row, column| 0.5 * (values[row * d + column] + values[column * d + row]))
}
