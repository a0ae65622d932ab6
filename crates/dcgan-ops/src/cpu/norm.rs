//! Batch norm fused with its activation, forward and backward, over a `(rows, columns)` matrix.
//!
//! Per channel the matrix is `(n * h * w, c)`, per activation `(n, h * w * c)`; both are plain views of a channels-last
//! map. NormGradients go over fixed blocks of rows and are combined in order in f64, so the bytes do not depend on
//! threads.

use super::dispatch::vectorized;
use crate::Activation;
use rayon::prelude::*;

/// Values of one block of rows, which stays in cache between two passes over it.
const BLOCK: usize = 32 * 1024;

fn block_rows(columns: usize) -> usize {
    (BLOCK / columns).max(8)
}

/// Scale and offset of a normalization by given statistics, per column: `y = scale x + offset`.
#[derive(Debug, Default)]
pub(super) struct Normalization {
    pub(super) mean: Vec<f32>,
    pub(super) var: Vec<f32>,
    inv_std: Vec<f32>,
    pub(super) scale: Vec<f32>,
    pub(super) offset: Vec<f32>,
}

/// The gradient with respect to the input of a normalization and its activation, per column:
/// `d_x = scale d' - x_coefficient x + constant`, where d' is the gradient with respect to the activation's output
/// times the activation's derivative (Ioffe and Szegedy 2015, section 3).
#[derive(Debug, Default)]
pub(super) struct InputGradient {
    pub(super) x_coefficient: Vec<f32>,
    pub(super) constant: Vec<f32>,
}

impl Normalization {
    /// From mean and (biased) variance; `affine` is weight and bias.
    pub(super) fn new(mean: Vec<f32>, var: Vec<f32>, eps: f64, affine: Option<(&[f32], &[f32])>) -> Self {
        let eps = eps as f32;
        let inv_std: Vec<f32> = var.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
        let scale: Vec<f32> = match affine {
            Some((weight, _)) => inv_std.iter().zip(weight).map(|(i, g)| i * g).collect(),
            None => inv_std.clone(),
        };
        let mut offset: Vec<f32> = mean.iter().zip(&scale).map(|(m, s)| -m * s).collect();
        if let Some((_, bias)) = affine {
            offset.iter_mut().zip(bias).for_each(|(o, s)| *o += s);
        }
        Self { mean, var, inv_std, scale, offset }
    }
}

/// Mean and biased variance of every column of `x`, `(rows, columns)`.
pub(super) fn statistics(x: &[f32], columns: usize) -> (Vec<f32>, Vec<f32>) {
    let block = block_rows(columns) * columns;
    let mut parts = vec![0.0; x.len().div_ceil(block) * 2 * columns];
    parts.par_chunks_exact_mut(2 * columns).zip(x.par_chunks(block)).for_each(|(part, x)| moments(x, part));
    combined(&parts, columns, |index| ((x.len() - index * block).min(block)) / columns)
}

/// Means of the columns of one block of rows, then sums of squares about them, into `part`.
pub(super) fn moments(x: &[f32], part: &mut [f32]) {
    let columns = part.len() / 2;
    let (mean, squares) = part.split_at_mut(columns);
    mean.fill(0.0);
    squares.fill(0.0);
    column_sums(x, mean);
    let count = (x.len() / columns) as f32;
    mean.iter_mut().for_each(|m| *m /= count);
    centered_squares(x, mean, squares);
}

/// Mean and biased variance from the [`moments`] of blocks, in order; `rows` gives the rows of a block.
pub(super) fn combined(parts: &[f32], columns: usize, rows: impl Fn(usize) -> usize) -> (Vec<f32>, Vec<f32>) {
    // Chan's pairwise update: no cancellation as in E[x^2] - E[x]^2.
    let (mut total, mut mean, mut squares) = (0.0, vec![0.0_f64; columns], vec![0.0_f64; columns]);
    for (index, part) in parts.chunks_exact(2 * columns).enumerate() {
        let count = rows(index) as f64;
        let share = count / (total + count);
        add_moments(part, share, total * share, &mut mean, &mut squares);
        total += count;
    }
    let variance = squares.iter().map(|s| (s / total) as f32).collect();
    (mean.iter().map(|&m| m as f32).collect(), variance)
}

vectorized! {
    /// Adds `bias` to every row.
    pub(super) fn add_bias(x: &mut [f32], bias: &[f32]) {
        for row in x.chunks_exact_mut(bias.len()) {
            for (x, b) in row.iter_mut().zip(bias) {
                *x += b;
            }
        }
    }

    /// Chan's update with the means and squares of a block whose rows are `share` of all rows so far.
    fn add_moments(part: &[f32], share: f64, between: f64, mean: &mut [f64], squares: &mut [f64]) {
        let (block_mean, block_squares) = part.split_at(mean.len());
        let sums = mean.iter_mut().zip(squares).zip(block_mean.iter().zip(block_squares));
        for ((mean, squares), (block_mean, block_squares)) in sums {
            let delta = f64::from(*block_mean) - *mean;
            *mean += delta * share;
            *squares += f64::from(*block_squares) + delta * delta * between;
        }
    }

    pub(super) fn add_wide(sums: &mut [f64], values: &[f32]) {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(*value));
    }

    /// Adds the sum of every column of `x`.
    pub(super) fn column_sums(x: &[f32], sums: &mut [f32]) {
        for row in x.chunks_exact(sums.len()) {
            for (s, x) in sums.iter_mut().zip(row) {
                *s += x;
            }
        }
    }

    fn centered_squares(x: &[f32], mean: &[f32], squares: &mut [f32]) {
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

    /// `y = rectifier(scale x + offset)` of whole rows.
    pub(super) fn activate_rows(x: &[f32], scale: &[f32], offset: &[f32], negative_slope: f32, y: &mut [f32]) {
        for (y, x) in y.chunks_exact_mut(scale.len()).zip(x.chunks_exact(scale.len())) {
            for (((y, x), s), o) in y.iter_mut().zip(x).zip(scale).zip(offset) {
                let u = x * s + o;
                *y = if u > 0.0 { u } else { u * negative_slope };
            }
        }
    }

    /// `out = scale d' - x_coefficient x + constant` of whole rows, see [`InputGradient`].
    pub(super) fn input_gradient_rows(
        d: &[f32],
        x: &[f32],
        normal: &Normalization,
        negative_slope: f32,
        input_gradient: &InputGradient,
        out: &mut [f32],
    ) {
        let columns = normal.scale.len();
        let (scale, offset) = (&normal.scale[..columns], &normal.offset[..columns]);
        let (x_coefficient, constant) = (&input_gradient.x_coefficient[..columns], &input_gradient.constant[..columns]);
        for ((out, d), x) in out.chunks_exact_mut(columns).zip(d.chunks_exact(columns)).zip(x.chunks_exact(columns)) {
            for c in 0..columns {
                let d = if x[c] * scale[c] + offset[c] > 0.0 { d[c] } else { d[c] * negative_slope };
                out[c] = scale[c] * d - x_coefficient[c] * x[c] + constant[c];
            }
        }
    }

    /// Adds the column sums of d' and of d' x_hat, see [`InputGradient`].
    fn masked_sums(
        x: &[f32],
        d: &[f32],
        normal: &Normalization,
        negative_slope: f32,
        sums: &mut [f32],
        products: &mut [f32],
    ) {
        let columns = sums.len();
        let products = &mut products[..columns];
        let (scale, offset) = (&normal.scale[..columns], &normal.offset[..columns]);
        let (mean, inv_std) = (&normal.mean[..columns], &normal.inv_std[..columns]);
        for (x, d) in x.chunks_exact(columns).zip(d.chunks_exact(columns)) {
            for c in 0..columns {
                let d = if x[c] * scale[c] + offset[c] > 0.0 { d[c] } else { d[c] * negative_slope };
                sums[c] += d;
                products[c] += d * ((x[c] - mean[c]) * inv_std[c]);
            }
        }
    }

    fn rectify(y: &mut [f32], negative_slope: f32) {
        for y in y {
            *y = if *y > 0.0 { *y } else { *y * negative_slope };
        }
    }

    fn rectify_gradient(y: &[f32], negative_slope: f32, d: &mut [f32]) {
        for (d, y) in d.iter_mut().zip(y) {
            *d = if *y > 0.0 { *d } else { *d * negative_slope };
        }
    }

    /// `tanh` to within two units of the last place of 1: Padé's approximant of tanh near 0, `1 - 2 / (e^2x + 1)`
    /// elsewhere.
    pub(super) fn tanh_all(y: &mut [f32]) {
        for y in y {
            let x = y.clamp(-9.1, 9.1);
            let square = x * x;
            let near = x * (10395.0 + square * (1260.0 + square * 21.0))
                / (10395.0 + square * (4725.0 + square * (210.0 + square)));
            // e^2x = 2^n e^r with |r| <= ln 2 / 2, in two parts of ln 2 (Cody and Waite).
            let n = (2.0 * x * std::f32::consts::LOG2_E).round_ties_even();
            let r = (2.0 * x - n * 0.693_359_4) + n * 2.121_944_4e-4;
            let power = 1.0
                + r * (1.0
                    + r * (0.5
                        + r * (1.666_666_7e-1
                            + r * (4.166_666_7e-2 + r * (8.333_334e-3 + r * 1.388_889e-3)))));
            // Both factors of 2^n are normal numbers: |n| is at most 27.
            let scale = f32::from_bits((n as i32 + 127).cast_unsigned() << 23);
            let far = 1.0 - 2.0 / (power * scale + 1.0);
            let value = if x.abs() < 0.6 { near } else { far };
            // NaN propagates.
            *y = if y.is_nan() { *y } else { value };
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
    fn gradient_sums(x: &[f32], d: &[f32], mean: &[f32], inv_std: &[f32], sums: &mut [f32], products: &mut [f32]) {
        let columns = mean.len();
        for (x, d) in x.chunks_exact(columns).zip(d.chunks_exact(columns)) {
            for c in 0..columns {
                sums[c] += d[c];
                products[c] += d[c] * ((x[c] - mean[c]) * inv_std[c]);
            }
        }
    }

    /// d = scale d - x_coefficient x + constant
    fn apply_input_gradient(x: &[f32], scale: &[f32], input_gradient: &InputGradient, d: &mut [f32]) {
        let columns = scale.len();
        let (x_coefficient, constant) = (&input_gradient.x_coefficient[..columns], &input_gradient.constant[..columns]);
        for (x, d) in x.chunks_exact(columns).zip(d.chunks_exact_mut(columns)) {
            for c in 0..columns {
                d[c] = scale[c] * d[c] - x_coefficient[c] * x[c] + constant[c];
            }
        }
    }
}

pub(super) fn activate(y: &mut [f32], activation: Activation) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => rectify(y, 0.0),
        Activation::LeakyRelu(negative_slope) => rectify(y, negative_slope as f32),
        Activation::Tanh => tanh_all(y),
        Activation::Sigmoid => {
            y.iter_mut().for_each(|y| *y *= 0.5);
            tanh_all(y);
            y.iter_mut().for_each(|y| *y = 0.5 + 0.5 * *y);
        }
    }
}

/// `d *= activation'(.)`, from the activation's own output `y`.
pub(super) fn activation_gradient(y: &[f32], activation: Activation, d: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => rectify_gradient(y, 0.0, d),
        Activation::LeakyRelu(negative_slope) => rectify_gradient(y, negative_slope as f32, d),
        Activation::Tanh => tanh_gradient(y, d),
        Activation::Sigmoid => sigmoid_gradient(y, d),
    }
}

/// `y = activation(scale x + offset)`.
pub(super) fn normalize(x: &[f32], normal: &Normalization, activation: Activation, y: &mut [f32]) {
    let block = block_rows(normal.scale.len()) * normal.scale.len();
    y.par_chunks_mut(block).zip(x.par_chunks(block)).for_each(|(y, x)| {
        scale_rows(x, &normal.scale, &normal.offset, y);
        activate(y, activation);
    });
}

/// The same for one image `(h, w, c)`, on the current thread.
pub(super) fn normalize_image(x: &[f32], normal: &Normalization, activation: Activation, y: &mut [f32]) {
    scale_rows(x, &normal.scale, &normal.offset, y);
    activate(y, activation);
}

/// The gradients of weight and bias of a batch norm.
#[derive(Clone, Debug)]
pub(super) struct NormGradients {
    /// Sum of d by column.
    pub(super) bias: Vec<f64>,
    /// Sum of d * x_hat by column.
    pub(super) weight: Vec<f64>,
}

impl NormGradients {
    /// From the sums of blocks, bias then weight of each, in order.
    pub(super) fn combined(parts: &[f32], columns: usize) -> Self {
        let mut total = NormGradients { bias: vec![0.0; columns], weight: vec![0.0; columns] };
        for part in parts.chunks_exact(2 * columns) {
            let (sums, products) = part.split_at(columns);
            add_wide(&mut total.bias, sums);
            add_wide(&mut total.weight, products);
        }
        total
    }

    /// The gradient with respect to the input over `rows` rows. With minibatch statistics (`train`) mean and variance
    /// depend on x, so `d_x = scale (d' - mean(d') - x_hat mean(d' x_hat))`; with given ones `d_x = scale d'`.
    pub(super) fn input_gradient(&self, normal: &Normalization, rows: usize, train: bool) -> InputGradient {
        let rows = rows as f64;
        let columns = 0..normal.scale.len();
        let numbers = |c: usize| {
            let (scale, mean) = (f64::from(normal.scale[c]), f64::from(normal.mean[c]));
            let inv_std = f64::from(normal.inv_std[c]);
            let (a, b) = (self.bias[c] / rows, self.weight[c] / rows);
            if train {
                ((scale * b * inv_std) as f32, (scale * (mean * inv_std * b - a)) as f32)
            } else {
                (0.0, 0.0)
            }
        };
        let (x_coefficient, constant) = columns.map(numbers).unzip();
        InputGradient { x_coefficient, constant }
    }
}

/// The negative slope of the activation, where it is a rectifier (or the identity) that can be applied to values as
/// they are loaded.
pub(super) fn negative_slope(activation: Activation) -> Option<f32> {
    match activation {
        Activation::Identity => Some(1.0),
        Activation::Relu => Some(0.0),
        Activation::LeakyRelu(negative_slope) if (0.0..=1.0).contains(&negative_slope) => {
            Some(negative_slope as f32)
        }
        _ => None,
    }
}

/// Column sums of d' of one block of rows, then of d' x_hat, into `part`.
pub(super) fn masked_gradient_sums(
    x: &[f32],
    d: &[f32],
    normal: &Normalization,
    negative_slope: f32,
    part: &mut [f32],
) {
    let columns = part.len() / 2;
    let (sums, products) = part.split_at_mut(columns);
    sums.fill(0.0);
    products.fill(0.0);
    masked_sums(x, d, normal, negative_slope, sums, products);
}

/// Turns `d`, the gradient with respect to the activation's output, into d' = `d` times the activation's derivative, in
/// place; returns the gradients of weight and bias.
pub(super) fn activation_backward(
    x: &[f32],
    normal: &Normalization,
    activation: Activation,
    d: &mut [f32],
) -> NormGradients {
    let columns = normal.mean.len();
    let block = block_rows(columns) * columns;
    let mut parts = vec![0.0; x.len().div_ceil(block) * 2 * columns];
    parts.par_chunks_exact_mut(2 * columns).zip(d.par_chunks_mut(block)).zip(x.par_chunks(block)).for_each(
        |((part, d), x)| {
            let mut y = vec![0.0; d.len()];
            scale_rows(x, &normal.scale, &normal.offset, &mut y);
            activate(&mut y, activation);
            activation_gradient(&y, activation, d);
            let (sums, products) = part.split_at_mut(columns);
            gradient_sums(x, d, &normal.mean, &normal.inv_std, sums, products);
        },
    );
    NormGradients::combined(&parts, columns)
}

/// Turns `d` after [`activation_backward`] into the gradient with respect to `x`, in place.
pub(super) fn input_backward(
    x: &[f32],
    normal: &Normalization,
    input_gradient: &InputGradient,
    d: &mut [f32],
) {
    let columns = normal.mean.len();
    let block = block_rows(columns) * columns;
    let blocks = d.par_chunks_mut(block).zip(x.par_chunks(block));
    blocks.for_each(|(d, x)| apply_input_gradient(x, &normal.scale, input_gradient, d));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tanh_is_the_librarys() {
        let mut values: Vec<f32> = (-40_000..40_000).map(|i| i as f32 * 2.7e-4).collect();
        values.extend([0.0, -0.0, 1e-30, 1e-7, 88.0, -88.0, f32::MAX, f32::INFINITY, f32::NEG_INFINITY]);
        let exact: Vec<f64> = values.iter().map(|&x| f64::from(x).tanh()).collect();
        tanh_all(&mut values);
        for (found, exact) in values.iter().zip(exact) {
            assert!((f64::from(*found) - exact).abs() <= 2.4e-7, "{found}, expected {exact}");
        }
        let mut odd = [f32::NAN];
        tanh_all(&mut odd);
        assert!(odd[0].is_nan());
    }
}
