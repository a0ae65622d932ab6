//! Batch-norm fused with its activation, forward and backward, over a `(rows, columns)` matrix.
//!
//! Per channel the matrix is `(n * h * w, c)`, per unit `(n, h * w * c)`; both are plain views of a channels-last map.
//! Sums go over fixed blocks of rows and are combined in order in f64, so the bytes do not depend on threads.

use super::dispatch::vectorised;
use crate::Activation;
use rayon::prelude::*;

/// Values of one block: it stays in cache between its two passes.
const BLOCK: usize = 32 * 1024;

fn block_rows(columns: usize) -> usize {
    (BLOCK / columns).max(8)
}

/// Scale and offset of a normalisation by given statistics, per column: `y = scale x + offset`.
#[derive(Debug, Default)]
pub(super) struct Normal {
    pub(super) mean: Vec<f32>,
    pub(super) variance: Vec<f32>,
    inverse: Vec<f32>,
    scale: Vec<f32>,
    offset: Vec<f32>,
}

impl Normal {
    /// From mean and (biased) variance; `affine` is gain and shift.
    pub(super) fn new(
        mean: Vec<f32>,
        variance: Vec<f32>,
        eps: f64,
        affine: Option<(&[f32], &[f32])>,
    ) -> Self {
        let eps = eps as f32;
        let inverse: Vec<f32> = variance.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
        let scale: Vec<f32> = match affine {
            Some((gain, _)) => inverse.iter().zip(gain).map(|(i, g)| i * g).collect(),
            None => inverse.clone(),
        };
        let mut offset: Vec<f32> = mean.iter().zip(&scale).map(|(m, s)| -m * s).collect();
        if let Some((_, shift)) = affine {
            offset.iter_mut().zip(shift).for_each(|(o, s)| *o += s);
        }
        Self { mean, variance, inverse, scale, offset }
    }
}

/// Mean and biased variance of every column of `x`, `(rows, columns)`.
pub(super) fn statistics(x: &[f32], columns: usize) -> (Vec<f32>, Vec<f32>) {
    let rows = x.len() / columns;
    // Mean and centred squares of each block, then Chan's pairwise update: no cancellation as in E[x^2] - E[x]^2.
    let blocks: Vec<(f64, Vec<f32>, Vec<f32>)> = x
        .par_chunks(block_rows(columns) * columns)
        .map(|block| {
            let count = block.len() / columns;
            let (mut mean, mut squares) = (vec![0.0; columns], vec![0.0; columns]);
            column_sums(block, &mut mean);
            mean.iter_mut().for_each(|m| *m /= count as f32);
            centred_squares(block, &mean, &mut squares);
            (count as f64, mean, squares)
        })
        .collect();
    let (mut total, mut mean, mut squares) = (0.0, vec![0.0_f64; columns], vec![0.0_f64; columns]);
    for (count, block_mean, block_squares) in &blocks {
        let sum = total + count;
        for c in 0..columns {
            let delta = f64::from(block_mean[c]) - mean[c];
            mean[c] += delta * count / sum;
            squares[c] += f64::from(block_squares[c]) + delta * delta * total * count / sum;
        }
        total = sum;
    }
    let variance = squares.iter().map(|s| (s / rows as f64) as f32).collect();
    (mean.iter().map(|&m| m as f32).collect(), variance)
}

vectorised! {
    fn column_sums(x: &[f32], sums: &mut [f32]) {
        for row in x.chunks_exact(sums.len()) {
            for (s, x) in sums.iter_mut().zip(row) {
                *s += x;
            }
        }
    }

    fn centred_squares(x: &[f32], mean: &[f32], squares: &mut [f32]) {
        for row in x.chunks_exact(mean.len()) {
            for ((s, x), m) in squares.iter_mut().zip(row).zip(mean) {
                let d = x - m;
                *s += d * d;
            }
        }
    }

    fn scale_rows(x: &[f32], scale: &[f32], offset: &[f32], y: &mut [f32]) {
        for (y, x) in y.chunks_exact_mut(scale.len()).zip(x.chunks_exact(scale.len())) {
            for (((y, x), s), o) in y.iter_mut().zip(x).zip(scale).zip(offset) {
                *y = x * s + o;
            }
        }
    }

    fn rectify(y: &mut [f32], leak: f32) {
        for y in y {
            *y = if *y > 0.0 { *y } else { *y * leak };
        }
    }

    fn rectify_gradient(y: &[f32], leak: f32, d: &mut [f32]) {
        for (d, y) in d.iter_mut().zip(y) {
            *d = if *y > 0.0 { *d } else { *d * leak };
        }
    }

    fn tanh_gradient(y: &[f32], d: &mut [f32]) {
        for (d, y) in d.iter_mut().zip(y) {
            *d *= 1.0 - y * y;
        }
    }

    fn sigmoid_gradient(y: &[f32], d: &mut [f32]) {
        for (d, y) in d.iter_mut().zip(y) {
            *d *= y * (1.0 - y);
        }
    }

    /// Sums of d and of d * x_hat by column.
    fn gradient_sums(x: &[f32], d: &[f32], mean: &[f32], inverse: &[f32], sums: &mut [f32], products: &mut [f32]) {
        let columns = mean.len();
        for (x, d) in x.chunks_exact(columns).zip(d.chunks_exact(columns)) {
            for c in 0..columns {
                sums[c] += d[c];
                products[c] += d[c] * ((x[c] - mean[c]) * inverse[c]);
            }
        }
    }

    /// d = scale * (d - a - x_hat * b)
    fn input_gradient(x: &[f32], normal: &Normal, a: &[f32], b: &[f32], d: &mut [f32]) {
        let columns = a.len();
        let (mean, inverse, scale) = (&normal.mean[..columns], &normal.inverse[..columns], &normal.scale[..columns]);
        for (x, d) in x.chunks_exact(columns).zip(d.chunks_exact_mut(columns)) {
            for c in 0..columns {
                d[c] = scale[c] * (d[c] - a[c] - (x[c] - mean[c]) * inverse[c] * b[c]);
            }
        }
    }
}

fn activate(y: &mut [f32], activation: Activation) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => rectify(y, 0.0),
        Activation::LeakyRelu(leak) => rectify(y, leak as f32),
        Activation::Tanh => y.iter_mut().for_each(|y| *y = y.tanh()),
        Activation::Sigmoid => y.iter_mut().for_each(|y| *y = 0.5 + 0.5 * (*y * 0.5).tanh()),
    }
}

/// `d *= activation'(.)`, from the activation's own output `y`.
fn activation_gradient(y: &[f32], activation: Activation, d: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => rectify_gradient(y, 0.0, d),
        Activation::LeakyRelu(leak) => rectify_gradient(y, leak as f32, d),
        Activation::Tanh => tanh_gradient(y, d),
        Activation::Sigmoid => sigmoid_gradient(y, d),
    }
}

/// The activation alone, in place.
pub(super) fn activate_all(y: &mut [f32], activation: Activation) {
    if activation != Activation::Identity {
        y.par_chunks_mut(BLOCK).for_each(|y| activate(y, activation));
    }
}

/// The activation's backward pass alone, in place.
pub(super) fn activate_all_backward(y: &[f32], activation: Activation, d: &mut [f32]) {
    let blocks = d.par_chunks_mut(BLOCK).zip(y.par_chunks(BLOCK));
    blocks.for_each(|(d, y)| activation_gradient(y, activation, d));
}

/// `y = activation(scale x + offset)`.
pub(super) fn normalise(x: &[f32], normal: &Normal, activation: Activation, y: &mut [f32]) {
    let block = block_rows(normal.scale.len()) * normal.scale.len();
    y.par_chunks_mut(block).zip(x.par_chunks(block)).for_each(|(y, x)| {
        scale_rows(x, &normal.scale, &normal.offset, y);
        activate(y, activation);
    });
}

/// Sums that the gradients of gain and shift are.
#[derive(Debug)]
pub(super) struct Sums {
    /// Sum of d by column: the shift's gradient.
    pub(super) shift: Vec<f64>,
    /// Sum of d * x_hat by column: the gain's gradient.
    pub(super) gain: Vec<f64>,
}

/// Turns `d`, the derivative by the activation `y`, into the derivative by `x`, in place.
///
/// With minibatch statistics (`train`) mean and variance depend on x, so `d_x = scale (d - mean(d) - x_hat mean(d x_hat))`;
/// with given ones `d_x = scale d` (Ioffe and Szegedy 2015, section 3).
pub(super) fn normalise_backward(
    x: &[f32],
    y: &[f32],
    normal: &Normal,
    activation: Activation,
    train: bool,
    d: &mut [f32],
) -> Sums {
    let columns = normal.mean.len();
    let rows = (x.len() / columns) as f64;
    let block = block_rows(columns) * columns;
    let parts: Vec<(Vec<f32>, Vec<f32>)> = d
        .par_chunks_mut(block)
        .zip(x.par_chunks(block))
        .zip(y.par_chunks(block))
        .map(|((d, x), y)| {
            activation_gradient(y, activation, d);
            let (mut sums, mut products) = (vec![0.0; columns], vec![0.0; columns]);
            gradient_sums(x, d, &normal.mean, &normal.inverse, &mut sums, &mut products);
            (sums, products)
        })
        .collect();
    let mut total = Sums { shift: vec![0.0; columns], gain: vec![0.0; columns] };
    for (sums, products) in &parts {
        total.shift.iter_mut().zip(sums).for_each(|(t, s)| *t += f64::from(*s));
        total.gain.iter_mut().zip(products).for_each(|(t, s)| *t += f64::from(*s));
    }
    let mean_of = |sums: &[f64]| -> Vec<f32> {
        sums.iter().map(|s| if train { (s / rows) as f32 } else { 0.0 }).collect()
    };
    let (a, b) = (mean_of(&total.shift), mean_of(&total.gain));
    let blocks = d.par_chunks_mut(block).zip(x.par_chunks(block));
    blocks.for_each(|(d, x)| input_gradient(x, normal, &a, &b, d));
    total
}
