//! Weights as weights: one pass over the features multiplies by them and by their transpose while rows are in the cache.

use crate::SvmError;
use crate::factor::{factor, invert_lower};
use crate::features::Features;
use crate::gram::{Gram, multiply};
use crate::kernel::{
    LANES, Lanes, Lanes32, add_collection, add_projection, add_wide_collection, add_wide_projection,
    block_rows,
};
use crate::panel::{Panel, zeros};
use rayon::prelude::*;

/// Rows whose products are summed in f32 before they are added in f64.
const FLUSH_ROWS: usize = 256;

/// Values up to which products are in f64. A small problem takes no time either way, and with a large `c` it may need them.
const DOUBLE: usize = 1 << 22;

/// Columns that one task of the preconditioner adds to.
const COLUMNS: usize = 512;

/// Rows that the preconditioner is made from, at most, and at most a quarter of all.
const SAMPLE_ROWS: usize = 2048;

/// Share of the rows that it takes to be within the margin.
const ACTIVE_SHARE: f64 = 0.5;

/// Parts that the rows are split into, at most: each has sums of its own, added in order at the end of a pass.
const MAX_PARTS: usize = 32;

/// Features, with what a pass over them needs.
pub(crate) struct Dense<'a> {
    features: &'a Features,
    part_rows: usize,
    parts: Vec<Part>,
    /// The panel that a pass multiplies by, in f32.
    input: Vec<Lanes32>,
    /// Whether products are in f64.
    double: bool,
    sample: Option<Sample>,
}

/// The inverse of the Hessian that some of the rows stand for.
struct Sample {
    rows: Features,
    /// L⁻¹ and its transpose, where `L Lᵀ = I / scale + K` and K has the rows' inner products.
    inverse: Vec<f64>,
    transposed: Vec<f64>,
}

/// What a pass multiplies by.
#[derive(Clone, Copy)]
enum Factor<'a> {
    Nothing,
    Single(&'a [Lanes32]),
    Double(&'a [Lanes]),
}

/// Buffers of one part.
struct Part {
    /// Whether sums are in f64.
    double: bool,
    wide: Panel,
    narrow: Vec<Lanes32>,
    weights: Vec<Lanes32>,
    wide_weights: Panel,
    scratch: Vec<f32>,
}

/// Rows of a part.
fn part_rows(rows: usize) -> usize {
    rows.div_ceil(MAX_PARTS).next_multiple_of(64)
}

impl<'a> Dense<'a> {
    /// Reads the features once: refuses values that are not finite, and measures the columns.
    pub(crate) fn new(features: &'a Features) -> Result<Self, SvmError> {
        let (rows, width) = (features.len(), features.width());
        let part_rows = part_rows(rows);
        let parts = rows.div_ceil(part_rows);
        let finite = (0..parts).into_par_iter().all(|part| {
            let mut scratch = Vec::new();
            (part * part_rows..((part + 1) * part_rows).min(rows)).all(|row| {
                // Zero times a value is zero unless the value is not finite; this adds up without a branch.
                let values = features.block(row..row + 1, &mut scratch);
                values.iter().fold(0.0, |sum, value| sum + value * 0.0) == 0.0
            })
        });
        if !finite {
            features.check_finite()?;
        }
        let double = rows * width <= DOUBLE;
        let part = || Part {
            double,
            wide: zeros(width + 1),
            narrow: vec![[0.0; LANES]; width],
            weights: Vec::new(),
            wide_weights: Vec::new(),
            scratch: Vec::new(),
        };
        let parts = (0..parts).map(|_| part()).collect();
        Ok(Self { features, part_rows, parts, input: vec![[0.0; LANES]; width], double, sample: None })
    }
}

impl<'a> Dense<'a> {
    /// The features.
    pub(crate) fn features(&self) -> &'a Features {
        self.features
    }
}

impl Dense<'_> {
    /// Weights of a class, with the intercept's.
    pub(crate) fn len(&self) -> usize {
        self.features.width() + 1
    }

    /// `images = X input`, then `back = Xᵀ rule(row, images[row])`.
    pub(crate) fn pass(
        &mut self,
        input: &[Lanes],
        images: &mut [Lanes],
        rule: &(dyn Fn(usize, &Lanes) -> Lanes + Sync),
        back: &mut [Lanes],
    ) {
        let width = self.features.width();
        images.fill(input[width]);
        if self.double {
            return self.collect_by(Factor::Double(&input[..width]), images, rule, back);
        }
        let mut panel = std::mem::take(&mut self.input);
        panel.par_iter_mut().zip(&input[..width]).with_min_len(1024).for_each(|(out, lanes)| {
            *out = narrow(lanes);
        });
        self.collect_by(Factor::Single(&panel), images, rule, back);
        self.input = panel;
    }

    /// `images += X panel`, then `back = Xᵀ rule(row, images[row])`.
    fn collect_by(
        &mut self,
        panel: Factor<'_>,
        images: &mut [Lanes],
        rule: &(dyn Fn(usize, &Lanes) -> Lanes + Sync),
        back: &mut [Lanes],
    ) {
        let (features, part_rows) = (self.features, self.part_rows);
        self.parts
            .par_iter_mut()
            .zip(images.par_chunks_mut(part_rows))
            .enumerate()
            .for_each(|(index, (part, images))| part.pass(features, panel, rule, index * part_rows, images));
        let parts = &self.parts;
        back.par_iter_mut().enumerate().with_min_len(256).for_each(|(j, back)| {
            *back = parts.iter().fold([0.0; LANES], |sum, part| add(&sum, &part.wide[j]));
        });
    }

    /// `Xᵀ coefficients`, with the intercept's sum last.
    pub(crate) fn collect(&mut self, coefficients: &[Lanes]) -> Panel {
        let (mut images, mut back) = (zeros(coefficients.len()), zeros(self.len()));
        self.collect_by(Factor::Nothing, &mut images, &|row, _| coefficients[row], &mut back);
        back
    }

    /// Makes the preconditioner for `I + scale X_AᵀX_A`, with any set A of rows.
    pub(crate) fn prepare(&mut self, scale: f64) {
        if self.sample.is_some() {
            return; // another panel of classes has made it
        }
        let rows = self.features.len();
        let size = rows.min(SAMPLE_ROWS);
        let chosen: Vec<usize> = (0..size).map(|i| i * rows / size).collect();
        let mut values = Vec::new();
        let sample = self.features.select(&chosen);
        let values = sample.block(0..size, &mut values).to_vec();
        // Whole rows, finite and few: none of these fails.
        let Ok(sample) = Features::from_f32(values, self.features.width()) else { return };
        let Ok(gram) = Gram::new(&sample) else { return };
        // Each row stands for several, of which about half are within the margin.
        let scale = scale * ACTIVE_SHARE * rows as f64 / size as f64;
        let mut matrix = gram.products().to_vec();
        for row in 0..size {
            matrix[row * size + row] += 1.0 / scale;
        }
        factor(&mut matrix, size);
        let (inverse, transposed) = invert_lower(&matrix, size);
        self.sample = Some(Sample { rows: sample, inverse, transposed });
    }

    /// `out` = residuals times an approximate inverse of the Hessian, the same symmetric operator every time.
    ///
    /// Woodbury: `(I + s XᵀX)⁻¹ = I - VᵀV` with `V = L⁻¹X`. Along steep directions nearly all of a residual cancels: this is in
    /// f64, and by the factor, as the inverse of `I / s + K` itself would lose twice the digits.
    pub(crate) fn precondition(&self, residual: &[Lanes], out: &mut [Lanes]) {
        out.copy_from_slice(residual);
        let Some(Sample { rows, inverse, transposed }) = &self.sample else { return };
        let width = rows.width();
        let mut scratch = Vec::new();
        let values = rows.block(0..rows.len(), &mut scratch);
        let mut images = vec![residual[width]; rows.len()];
        images.par_chunks_mut(32).zip(values.par_chunks(32 * width)).for_each(|(images, x)| {
            add_wide_projection(x, width, &residual[..width], images);
        });
        let mut solved = zeros(images.len());
        multiply(inverse, &images, &mut solved);
        multiply(transposed, &solved, &mut images);
        let mut solved = images;
        for lanes in &mut solved {
            *lanes = lanes.map(|value| -value);
        }
        out[..width].par_chunks_mut(COLUMNS).enumerate().for_each(|(chunk, out)| {
            add_wide_collection(&values[chunk * COLUMNS..], width, &solved, out);
        });
        out[width] = solved.iter().fold(out[width], |sum, lanes| add(&sum, lanes));
    }

    /// Weights as they will be stored, so that margins and gradients are those of the model.
    pub(crate) fn round(&self, weights: &mut [Lanes]) {
        weights.par_iter_mut().with_min_len(1024).for_each(|lanes| *lanes = narrow(lanes).map(f64::from));
    }
}

fn add(a: &Lanes, b: &Lanes) -> Lanes {
    std::array::from_fn(|lane| a[lane] + b[lane])
}

/// Rounded to f32.
#[allow(clippy::cast_possible_truncation, reason = "rounding is meant")]
pub(crate) fn narrow(lanes: &Lanes) -> Lanes32 {
    lanes.map(|value| value as f32)
}

impl Part {
    /// `images += X panel`, and sums of `rule` of each image times its row.
    fn pass(
        &mut self,
        features: &Features,
        panel: Factor<'_>,
        rule: &(dyn Fn(usize, &Lanes) -> Lanes + Sync),
        first: usize,
        images: &mut [Lanes],
    ) {
        let width = features.width();
        let block = block_rows(width);
        self.wide.fill([0.0; LANES]);
        let mut total = [0.0; LANES];
        let mut summed = 0;
        for (index, images) in images.chunks_mut(block).enumerate() {
            let start = first + index * block;
            let x = features.block(start..start + images.len(), &mut self.scratch);
            match panel {
                Factor::Nothing => {}
                Factor::Single(panel) => add_projection(x, width, panel, images),
                Factor::Double(panel) => add_wide_projection(x, width, panel, images),
            }
            self.wide_weights.clear();
            for (i, image) in images.iter().enumerate() {
                let weights = rule(start + i, image);
                total = add(&total, &weights);
                self.wide_weights.push(weights);
            }
            if self.double {
                add_wide_collection(x, width, &self.wide_weights, &mut self.wide[..width]);
                continue;
            }
            self.weights.clear();
            self.weights.extend(self.wide_weights.iter().map(narrow));
            add_collection(x, width, &self.weights, &mut self.narrow);
            summed += images.len();
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
    let mut images = vec![weights[width]; rows];
    let block = block_rows(width);
    images.par_chunks_mut(part_rows(rows).max(1)).enumerate().for_each(|(part, images)| {
        let mut scratch = Vec::new();
        for (index, images) in images.chunks_mut(block).enumerate() {
            let start = part * part_rows(rows) + index * block;
            let x = features.block(start..start + images.len(), &mut scratch);
            add_projection(x, width, &panel, images);
        }
    });
    images
}

#[cfg(test)]
impl Dense<'_> {
    fn set_double(&mut self, double: bool) {
        self.double = double;
        self.parts.iter_mut().for_each(|part| part.double = double);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::newton::{Problem, solve};

    /// Like pooled activations: not negative, correlated, with a large mean; three classes.
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
    fn single_precision_passes_are_near_double_ones() {
        // Rows and columns that fill no part, block or tile.
        for (rows, width) in [(1, 1), (65, 30), (2500, 37), (70, 1025)] {
            let (features, labels) = data(rows, width);
            let input: Panel = (0..=width)
                .map(|j| std::array::from_fn(|lane| ((j * 5 + lane) % 11) as f64 / 11.0 - 0.4))
                .collect();
            let rule = |row: usize, image: &Lanes| image.map(|v| if labels[row] == 1 { v } else { 0.5 });
            let [single, double] = [false, true].map(|double| {
                let mut dense = Dense::new(&features).unwrap();
                dense.set_double(double);
                let (mut images, mut back) = (zeros(rows), zeros(width + 1));
                dense.pass(&input, &mut images, &rule, &mut back);
                (images, back)
            });
            assert!(single != double || rows == 1, "both are the same");
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
    fn single_precision_solves_as_well() {
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
