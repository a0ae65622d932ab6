//! Panels of sixteen vectors, one per class, and the vector operations of conjugate gradients.

use crate::kernel::{LANES, Lanes};
use rayon::prelude::*;

/// A vector for each lane: `panel[i][lane]`.
pub(crate) type Panel = Vec<Lanes>;

/// Rows per task. Sums are split at this size, so they do not depend on the number of threads.
const CHUNK: usize = 2048;

/// All zeros.
pub(crate) fn zeros(len: usize) -> Panel {
    vec![[0.0; LANES]; len]
}

/// `Σ_i a[i] b[i]` of each lane.
pub(crate) fn dot(a: &[Lanes], b: &[Lanes]) -> Lanes {
    sum_rows(a.len(), |i, lane| a[i][lane] * b[i][lane])
}

/// `Σ_i f(i, lane)` of each lane.
pub(crate) fn sum_rows(len: usize, f: impl Fn(usize, usize) -> f64 + Sync) -> Lanes {
    let sums: Vec<Lanes> = (0..len.div_ceil(CHUNK))
        .into_par_iter()
        .map(|chunk| {
            let mut sum = [0.0; LANES];
            for i in chunk * CHUNK..((chunk + 1) * CHUNK).min(len) {
                for (lane, sum) in sum.iter_mut().enumerate() {
                    *sum += f(i, lane);
                }
            }
            sum
        })
        .collect();
    sums.iter().fold([0.0; LANES], |total, sum| std::array::from_fn(|lane| total[lane] + sum[lane]))
}

/// `y[i] = a x[i] + b y[i]` with factors per lane.
pub(crate) fn combine(a: &Lanes, x: &[Lanes], b: &Lanes, y: &mut [Lanes]) {
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        for (y, x) in y.iter_mut().zip(x) {
            for lane in 0..LANES {
                y[lane] = a[lane] * x[lane] + b[lane] * y[lane];
            }
        }
    });
}

/// `y[i] = x[i]` in the given lanes.
pub(crate) fn assign(lanes: &[bool; LANES], x: &[Lanes], y: &mut [Lanes]) {
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        for (y, x) in y.iter_mut().zip(x) {
            for lane in 0..LANES {
                y[lane] = if lanes[lane] { x[lane] } else { y[lane] };
            }
        }
    });
}
