//! Passes over the features: each multiplies by X and by Xᵀ while rows are in the cache.

use crate::SvmError;
use crate::factor::{factor, invert_lower};
use crate::features::Features;
use crate::gram::{Gram, multiply};
use crate::kernel::{
    LANES, Lanes, Lanes32, add_product, add_product_wide, add_transposed_product,
    add_transposed_product_wide, block_rows,
};
use crate::panel::{Panel, zeros};
use rayon::prelude::*;

/// Rows whose products are summed in f32 before they are added in f64.
const FLUSH_ROWS: usize = 256;

/// Number of values up to which products are in f64: small problems are fast, and may need it with a large `c`.
const DOUBLE: usize = 1 << 22;

/// Columns per task of the preconditioner.
const COLUMNS: usize = 512;

/// Maximum number of rows that the preconditioner is built from.
const SAMPLE_ROWS: usize = 2048;

/// Fraction of the rows that it assumes to be within the margin.
const ACTIVE_SHARE: f64 = 0.5;

/// Maximum number of chunks of rows. Each has its own sums, added in order at the end of a pass.
const MAX_CHUNKS: usize = 32;

/// Features with the buffers of a pass.
pub(crate) struct Dense<'a> {
    features: &'a Features,
    chunk_rows: usize,
    chunks: Vec<Chunk>,
    /// The panel of a pass in f32.
    input: Vec<Lanes32>,
    /// Whether products are in f64.
    double: bool,
    sample: Option<Sample>,
}

/// The preconditioner: the inverse of the Hessian of a sample of rows.
struct Sample {
    rows: Features,
    /// L⁻¹ and its transpose, with `L Lᵀ = I / scale + K` and the inner products K of the rows.
    inverse: Vec<f64>,
    transposed: Vec<f64>,
}

/// The panel of a pass.
#[derive(Clone, Copy)]
enum Factor<'a> {
    Nothing,
    Single(&'a [Lanes32]),
    Double(&'a [Lanes]),
}

/// Buffers of a chunk of rows.
struct Chunk {
    /// Whether sums are in f64.
    double: bool,
    wide: Panel,
    narrow: Vec<Lanes32>,
    weights: Vec<Lanes32>,
    wide_weights: Panel,
    scratch: Vec<f32>,
}

/// Rows per chunk.
fn chunk_rows(rows: usize) -> usize {
    rows.div_ceil(MAX_CHUNKS).next_multiple_of(64)
}

impl<'a> Dense<'a> {
    /// Reads the features once and rejects values that are not finite.
    pub(crate) fn new(features: &'a Features) -> Result<Self, SvmError> {
        let (rows, width) = (features.len(), features.width());
        let chunk_rows = chunk_rows(rows);
        let chunks = rows.div_ceil(chunk_rows);
        let finite = (0..chunks).into_par_iter().all(|chunk| {
            let mut scratch = Vec::new();
            (chunk * chunk_rows..((chunk + 1) * chunk_rows).min(rows)).all(|row| {
                // Zero times a value is NaN if the value is not finite; the sum needs no branch.
                let values = features.block(row..row + 1, &mut scratch);
                values.iter().fold(0.0, |sum, value| sum + value * 0.0) == 0.0
            })
        });
        if !finite {
            features.check_finite()?;
        }
        let double = rows * width <= DOUBLE;
        let chunk = || Chunk {
            double,
            wide: zeros(width + 1),
            narrow: vec![[0.0; LANES]; width],
            weights: Vec::new(),
            wide_weights: Vec::new(),
            scratch: Vec::new(),
        };
        let chunks = (0..chunks).map(|_| chunk()).collect();
        Ok(Self { features, chunk_rows, chunks, input: vec![[0.0; LANES]; width], double, sample: None })
    }
}

impl<'a> Dense<'a> {
    /// The features.
    pub(crate) fn features(&self) -> &'a Features {
        self.features
    }
}

impl Dense<'_> {
    /// Number of weights of a class, including the intercept.
    pub(crate) fn len(&self) -> usize {
        self.features.width() + 1
    }

    /// `outputs = X input`, then `back = Xᵀ rule(row, outputs[row])`.
    pub(crate) fn pass(
        &mut self,
        input: &[Lanes],
        outputs: &mut [Lanes],
        rule: &(dyn Fn(usize, &Lanes) -> Lanes + Sync),
        back: &mut [Lanes],
    ) {
        let width = self.features.width();
        outputs.fill(input[width]);
        if self.double {
            return self.transpose_by(Factor::Double(&input[..width]), outputs, rule, back);
        }
        let mut panel = std::mem::take(&mut self.input);
        panel.par_iter_mut().zip(&input[..width]).with_min_len(1024).for_each(|(out, lanes)| {
            *out = narrow(lanes);
        });
        self.transpose_by(Factor::Single(&panel), outputs, rule, back);
        self.input = panel;
    }

    /// `outputs += X panel`, then `back = Xᵀ rule(row, outputs[row])`.
    fn transpose_by(
        &mut self,
        panel: Factor<'_>,
        outputs: &mut [Lanes],
        rule: &(dyn Fn(usize, &Lanes) -> Lanes + Sync),
        back: &mut [Lanes],
    ) {
        let (features, chunk_rows) = (self.features, self.chunk_rows);
        self.chunks.par_iter_mut().zip(outputs.par_chunks_mut(chunk_rows)).enumerate().for_each(
            |(index, (chunk, outputs))| chunk.pass(features, panel, rule, index * chunk_rows, outputs),
        );
        let chunks = &self.chunks;
        back.par_iter_mut().enumerate().with_min_len(256).for_each(|(j, back)| {
            *back = chunks.iter().fold([0.0; LANES], |sum, chunk| add(&sum, &chunk.wide[j]));
        });
    }

    /// `Xᵀ coefficients`, with the intercept's sum last.
    pub(crate) fn transposed_product(&mut self, coefficients: &[Lanes]) -> Panel {
        let (mut outputs, mut back) = (zeros(coefficients.len()), zeros(self.len()));
        self.transpose_by(Factor::Nothing, &mut outputs, &|row, _| coefficients[row], &mut back);
        back
    }

    /// Builds the preconditioner of `I + scale X_AᵀX_A`, for any set A of rows.
    pub(crate) fn build_preconditioner(&mut self, scale: f64) {
        if self.sample.is_some() {
            return; // built for an earlier panel of classes
        }
        let rows = self.features.len();
        let size = rows.min(SAMPLE_ROWS);
        let chosen: Vec<usize> = (0..size).map(|i| i * rows / size).collect();
        let mut values = Vec::new();
        let sample = self.features.select(&chosen);
        let values = sample.block(0..size, &mut values).to_vec();
        // Complete, finite and few rows: neither fails.
        let Ok(sample) = Features::from_f32(values, self.features.width()) else { return };
        let Ok(gram) = Gram::new(&sample) else { return };
        // Each sampled row represents several, of which about half are within the margin.
        let scale = scale * ACTIVE_SHARE * rows as f64 / size as f64;
        let mut matrix = gram.products().to_vec();
        for row in 0..size {
            matrix[row * size + row] += 1.0 / scale;
        }
        factor(&mut matrix, size);
        let (inverse, transposed) = invert_lower(&matrix, size);
        self.sample = Some(Sample { rows: sample, inverse, transposed });
    }

    /// `out` = residuals times an approximate inverse of the Hessian, a fixed symmetric operator.
    ///
    /// Woodbury: `(I + s XᵀX)⁻¹ = I - VᵀV` with `V = L⁻¹X`. Along steep directions most of a residual cancels, hence
    /// f64 and the factor: the inverse of `I / s + K` itself would lose twice the digits.
    pub(crate) fn precondition(&self, residual: &[Lanes], out: &mut [Lanes]) {
        out.copy_from_slice(residual);
        let Some(Sample { rows, inverse, transposed }) = &self.sample else { return };
        let width = rows.width();
        let mut scratch = Vec::new();
        let values = rows.block(0..rows.len(), &mut scratch);
        let mut outputs = vec![residual[width]; rows.len()];
        outputs.par_chunks_mut(32).zip(values.par_chunks(32 * width)).for_each(|(outputs, x)| {
            add_product_wide(x, width, &residual[..width], outputs);
        });
        let mut solved = zeros(outputs.len());
        multiply(inverse, &outputs, &mut solved);
        multiply(transposed, &solved, &mut outputs);
        let mut solved = outputs;
        for lanes in &mut solved {
            *lanes = lanes.map(|value| -value);
        }
        out[..width].par_chunks_mut(COLUMNS).enumerate().for_each(|(chunk, out)| {
            add_transposed_product_wide(&values[chunk * COLUMNS..], width, &solved, out);
        });
        out[width] = solved.iter().fold(out[width], |sum, lanes| add(&sum, lanes));
    }

    /// Rounds weights to f32 as in the model, so that margins and gradients are the model's.
    pub(crate) fn round(&self, weights: &mut [Lanes]) {
        weights.par_iter_mut().with_min_len(1024).for_each(|lanes| *lanes = narrow(lanes).map(f64::from));
    }
}

fn add(a: &Lanes, b: &Lanes) -> Lanes {
    std::array::from_fn(|lane| a[lane] + b[lane])
}

/// Rounded to f32.
#[allow(clippy::cast_possible_truncation, reason = "rounds to f32")]
pub(crate) fn narrow(lanes: &Lanes) -> Lanes32 {
    lanes.map(|value| value as f32)
}

impl Chunk {
    /// `outputs += X panel`, and the sum over rows of `rule(row, output)` times the row.
    fn pass(
        &mut self,
        features: &Features,
        panel: Factor<'_>,
        rule: &(dyn Fn(usize, &Lanes) -> Lanes + Sync),
        first: usize,
        outputs: &mut [Lanes],
    ) {
        let width = features.width();
        let block = block_rows(width);
        self.wide.fill([0.0; LANES]);
        let mut total = [0.0; LANES];
        let mut summed = 0;
        for (index, outputs) in outputs.chunks_mut(block).enumerate() {
            let start = first + index * block;
            let x = features.block(start..start + outputs.len(), &mut self.scratch);
            match panel {
                Factor::Nothing => {}
                Factor::Single(panel) => add_product(x, width, panel, outputs),
                Factor::Double(panel) => add_product_wide(x, width, panel, outputs),
            }
            self.wide_weights.clear();
            for (i, output) in outputs.iter().enumerate() {
                let weights = rule(start + i, output);
                total = add(&total, &weights);
                self.wide_weights.push(weights);
            }
            if self.double {
                add_transposed_product_wide(x, width, &self.wide_weights, &mut self.wide[..width]);
                continue;
            }
            self.weights.clear();
            self.weights.extend(self.wide_weights.iter().map(narrow));
            add_transposed_product(x, width, &self.weights, &mut self.narrow);
            summed += outputs.len();
            if summed >= FLUSH_ROWS {
                self.flush();
                summed = 0;
            }
        }
        self.flush();
        self.wide[width] = total;
    }

    fn flush(&mut self) {
        for (wide, narrow) in self.wide.iter_mut().zip(&mut self.narrow) {
            for lane in 0..LANES {
                wide[lane] += f64::from(narrow[lane]);
            }
            *narrow = [0.0; LANES];
        }
    }
}

/// `X w + b` of every row, `weights` with the intercept last.
pub(crate) fn project(features: &Features, weights: &[Lanes]) -> Panel {
    let (rows, width) = (features.len(), features.width());
    let panel: Vec<Lanes32> = weights[..width].iter().map(narrow).collect();
    let mut outputs = vec![weights[width]; rows];
    let block = block_rows(width);
    outputs.par_chunks_mut(chunk_rows(rows).max(1)).enumerate().for_each(|(chunk, outputs)| {
        let mut scratch = Vec::new();
        for (index, outputs) in outputs.chunks_mut(block).enumerate() {
            let start = chunk * chunk_rows(rows) + index * block;
            let x = features.block(start..start + outputs.len(), &mut scratch);
            add_product(x, width, &panel, outputs);
        }
    });
    outputs
}

#[cfg(test)]
impl Dense<'_> {
    fn set_double(&mut self, double: bool) {
        self.double = double;
        self.chunks.iter_mut().for_each(|chunk| chunk.double = double);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::newton::{Problem, solve};

    /// Like pooled activations: non-negative, correlated, with a large mean; three classes.
    fn data(rows: usize, width: usize) -> (Features, Vec<u32>) {
        let noise = |i: usize| ((i * 7919 + 13) % 10_007) as f32 / 10_007.0;
        let class = |row: usize| (row * 31 % 7) % 3;
        let value = |row: usize, j: usize| {
            let common = noise(row * 3 + j % 5) + noise((class(row) * 89 + j) * 17);
            (2.0 * common + 1.5 * noise(row * width + j) - 0.5).max(0.0)
        };
        let values = (0..rows * width).map(|i| value(i / width, i % width)).collect();
        let labels = (0..rows).map(|row| u32::try_from(class(row)).unwrap()).collect();
        (Features::from_f32(values, width).unwrap(), labels)
    }

    #[test]
    fn single_precision_passes_are_close_to_double() {
        // Incomplete chunks, blocks and tiles.
        for (rows, width) in [(1, 1), (65, 30), (2500, 37), (70, 1025)] {
            let (features, labels) = data(rows, width);
            let input: Panel = (0..=width)
                .map(|j| std::array::from_fn(|lane| ((j * 5 + lane) % 11) as f64 / 11.0 - 0.4))
                .collect();
            let rule = |row: usize, output: &Lanes| output.map(|v| if labels[row] == 1 { v } else { 0.5 });
            let [single, double] = [false, true].map(|double| {
                let mut dense = Dense::new(&features).unwrap();
                dense.set_double(double);
                let (mut outputs, mut back) = (zeros(rows), zeros(width + 1));
                dense.pass(&input, &mut outputs, &rule, &mut back);
                (outputs, back)
            });
            assert!(single != double || rows == 1, "single and double precision are equal");
            for (single, double) in [(&single.0, &double.0), (&single.1, &double.1)] {
                let largest = double.iter().flatten().fold(0.0, |m: f64, v| m.max(v.abs()));
                for (single, double) in single.iter().flatten().zip(double.iter().flatten()) {
                    assert!(
                        (single - double).abs() <= 1e-6 * largest,
                        "{rows} x {width}: {single} and {double}"
                    );
                }
            }
        }
    }

    #[test]
    fn single_precision_converges() {
        let (features, labels) = data(300, 60);
        for c in [1e-4, 1e-2, 1.0] {
            let problem = Problem {
                labels: &labels,
                positives: &[0, 1, 2],
                c,
                tolerance: 1e-6,
                max_passes: 2000,
                bounds: [f64::NEG_INFINITY; LANES],
            };
            let [single, double] = [false, true].map(|double| {
                let mut dense = Dense::new(&features).unwrap();
                dense.set_double(double);
                let start = zeros(dense.len());
                solve(&mut dense, &problem, start, &mut |_, _| {}).1
            });
            for (single, double) in single.iter().zip(&double) {
                assert_eq!(single.reason, crate::ExitReason::Converged, "c {c}");
                let excess = single.objective / double.objective - 1.0;
                assert!(excess <= 1e-5, "c {c}: {excess:.1e}");
            }
        }
    }
}
