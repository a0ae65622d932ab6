//! Blocked Cholesky factorization of a symmetric positive definite matrix.

use dcgan_base::matrix::{MatrixView, matmul};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

/// Columns per block.
const BLOCK: usize = 64;
/// Rows per task.
const STRIP: usize = 128;

/// Replaces the lower triangle of `matrix` (size × size, symmetric positive definite) by L of `L Lᵀ`; size³ / 3
/// operations.
pub(crate) fn factor(matrix: &mut [f64], size: usize) {
    for start in (0..size).step_by(BLOCK) {
        let end = (start + BLOCK).min(size);
        let (above, below) = matrix.split_at_mut(end * size);
        // The diagonal block.
        for i in start..end {
            for j in start..=i {
                let row = |row: usize| &above[row * size + start..row * size + j];
                let sum: f64 = row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum();
                let value = above[i * size + j] - sum;
                // A pivot that is negative by rounding error belongs to a null direction.
                above[i * size + j] =
                    if i == j { value.max(f64::MIN_POSITIVE).sqrt() } else { value / above[j * size + j] };
            }
        }
        // The rows below it times the inverse of its transpose, then the trailing matrix.
        let width = end - start;
        let block = |i: usize, j: usize| above[(start + i) * size + start + j];
        let inverse = inverse_of_lower(width, block);
        let mut panel = Array2::zeros((size - end, width));
        if let Some(panel) = panel.as_slice_mut() {
            panel.par_chunks_mut(STRIP * width).zip(below.par_chunks_mut(STRIP * size)).for_each(
                |(panel, below)| {
                    let rows = below.len() / size;
                    let lhs = MatrixView::strided(&below[start..], rows, width, size);
                    matmul(panel, lhs, MatrixView::new(&inverse, width, width).t(), false);
                    for (row, solved) in below.chunks_exact_mut(size).zip(panel.chunks_exact(width)) {
                        row[start..end].copy_from_slice(solved);
                    }
                },
            );
        }
        below.par_chunks_mut(STRIP * size).enumerate().for_each(|(strip, rows)| {
            let (first, height) = (strip * STRIP, rows.len() / size);
            let Ok(mut rows) = ArrayViewMut2::from_shape((height, size), rows) else { return };
            let last = first + height;
            let mut rows = rows.slice_mut(s![.., end..end + last]);
            let lhs = panel.slice(s![first..last, ..]);
            general_mat_mul(-1.0, &lhs, &panel.slice(s![..last, ..]).t(), 1.0, &mut rows);
        });
    }
}

/// The inverse of a small lower triangular matrix.
fn inverse_of_lower(size: usize, at: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut inverse = vec![0.0; size * size];
    for i in 0..size {
        for j in 0..=i {
            let sum: f64 = (j..i).map(|k| at(i, k) * inverse[k * size + j]).sum();
            inverse[i * size + j] = (f64::from(u8::from(i == j)) - sum) / at(i, i);
        }
    }
    inverse
}

/// The inverse of the lower triangle, and the transpose of that inverse; size³ / 3 operations.
pub(crate) fn invert_lower(lower: &[f64], size: usize) -> (Vec<f64>, Vec<f64>) {
    let Ok(all) = ArrayView2::from_shape((size, size), lower) else { return (Vec::new(), Vec::new()) };
    // Columns `first..` of the inverse are zero above row `first`.
    let strips: Vec<(usize, Array2<f64>)> = (0..size.div_ceil(STRIP))
        .into_par_iter()
        .map(|strip| {
            let first = strip * STRIP;
            let height = size - first;
            let mut columns = Array2::zeros((height, STRIP.min(height)));
            columns.diag_mut().fill(1.0);
            for start in (0..height).step_by(BLOCK) {
                let end = (start + BLOCK).min(height);
                let (known, mut rest) = columns.view_mut().split_at(Axis(0), start);
                let lhs = all.slice(s![first + start..first + end, first..first + start]);
                general_mat_mul(-1.0, &lhs, &known, 1.0, &mut rest.slice_mut(s![..end - start, ..]));
                for i in 0..end - start {
                    let (above, mut below) = rest.view_mut().split_at(Axis(0), i);
                    let mut row = below.row_mut(0);
                    for (j, above) in above.outer_iter().enumerate() {
                        row.scaled_add(-all[(first + start + i, first + start + j)], &above);
                    }
                    row /= all[(first + start + i, first + start + i)];
                }
            }
            (first, columns)
        })
        .collect();
    let (mut inverse, mut transposed) = (vec![0.0; size * size], vec![0.0; size * size]);
    for (first, columns) in &strips {
        for ((row, column), &value) in columns.indexed_iter() {
            inverse[(first + row) * size + first + column] = value;
            transposed[(first + column) * size + first + row] = value;
        }
    }
    (inverse, transposed)
}

/// Solves `L Lᵀ x = b` in place.
pub(crate) fn solve_factored(lower: &[f64], b: &mut [f64]) {
    let size = b.len();
    for i in 0..size {
        let row = &lower[i * size..i * size + i];
        let sum: f64 = row.iter().zip(&*b).map(|(a, b)| a * b).sum();
        b[i] = (b[i] - sum) / lower[i * size + i];
    }
    for i in (0..size).rev() {
        b[i] /= lower[i * size + i];
        let (value, row) = (b[i], &lower[i * size..i * size + i]);
        for (b, a) in b.iter_mut().zip(row) {
            *b -= value * a;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{factor, invert_lower, solve_factored};

    #[test]
    fn factors_solve_and_invert() {
        for size in [1, 7, 64, 65, 300] {
            let value = |i: usize, j: usize| ((i * 31 + j * 17) % 23) as f64 / 23.0 - 0.4;
            // B Bᵀ + I.
            let at = |i: usize, j: usize| {
                (0..size).map(|k| value(i, k) * value(j, k)).sum::<f64>() + if i == j { 1.0 } else { 0.0 }
            };
            let matrix: Vec<f64> = (0..size * size).map(|i| at(i / size, i % size)).collect();
            let mut lower = matrix.clone();
            factor(&mut lower, size);
            let expected: Vec<f64> = (0..size).map(|i| value(i, 3)).collect();
            let mut x = expected.clone();
            solve_factored(&lower, &mut x);
            for (row, expected) in matrix.chunks_exact(size).zip(expected) {
                let found: f64 = row.iter().zip(&x).map(|(a, x)| a * x).sum();
                assert!((found - expected).abs() < 1e-10, "{size}: {found}, expected {expected}");
            }
            let (inverse, transposed) = invert_lower(&lower, size);
            for i in 0..size {
                for j in 0..size {
                    let product: f64 = (j..=i).map(|k| lower[i * size + k] * inverse[k * size + j]).sum();
                    assert!(
                        (product - f64::from(u8::from(i == j))).abs() < 1e-12,
                        "{size}: {product} at {i}, {j}"
                    );
                    assert_eq!(inverse[i * size + j], transposed[j * size + i]);
                }
            }
        }
    }
}
