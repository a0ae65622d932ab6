//! Weights as weights: one pass over the features multiplies by them and by their transpose while rows are in the cache.

use super::SvmError;
use super::kernel::{LANES, Lanes, Lanes32, add_collection, add_projection, block_rows};
use super::newton::Space;
use super::panel::{Panel, dot, zeros};
use crate::features::Features;
use rayon::prelude::*;

/// Rows whose products are summed in f32 before they are added in f64.
const FLUSH_ROWS: usize = 256;

/// Parts that the rows are split into, at most: each has sums of its own, added in order at the end of a pass.
const MAX_PARTS: usize = 32;

/// Features, with what a pass over them needs.
pub(crate) struct Dense<'a> {
    features: &'a Features,
    part_rows: usize,
    parts: Vec<Part>,
    input: Vec<Lanes32>,
    /// Squared length of every column, with that of the intercept.
    squares: Vec<f64>,
}

/// Buffers of one part.
struct Part {
    wide: Panel,
    narrow: Vec<Lanes32>,
    weights: Vec<Lanes32>,
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
        let columns: Vec<Vec<f64>> = (0..rows.div_ceil(part_rows))
            .into_par_iter()
            .map(|part| {
                let mut scratch = Vec::new();
                let mut squares = vec![0.0; width];
                for row in part * part_rows..((part + 1) * part_rows).min(rows) {
                    for (square, &x) in squares.iter_mut().zip(features.block(row..row + 1, &mut scratch)) {
                        *square += f64::from(x) * f64::from(x);
                    }
                }
                squares
            })
            .collect();
        let mut squares = vec![0.0; width];
        for part in &columns {
            for (square, part) in squares.iter_mut().zip(part) {
                *square += part;
            }
        }
        if squares.iter().any(|square| !square.is_finite()) {
            features.check_finite()?;
        }
        squares.push(rows as f64);
        let part = || Part {
            wide: zeros(width + 1),
            narrow: vec![[0.0; LANES]; width],
            weights: Vec::new(),
            scratch: Vec::new(),
        };
        let parts = (0..rows.div_ceil(part_rows)).map(|_| part()).collect();
        Ok(Self { features, part_rows, parts, input: vec![[0.0; LANES]; width], squares })
    }
}

impl Space for Dense<'_> {
    const PLAIN: bool = true;

    fn len(&self) -> usize {
        self.features.width() + 1
    }

    fn pass(
        &mut self,
        input: &[Lanes],
        images: &mut [Lanes],
        rule: &(dyn Fn(usize, &Lanes) -> Lanes + Sync),
        back: &mut [Lanes],
    ) {
        let (features, width, part_rows) = (self.features, self.features.width(), self.part_rows);
        self.input.par_iter_mut().zip(&input[..width]).with_min_len(1024).for_each(|(out, lanes)| {
            *out = narrow(lanes);
        });
        let (panel, intercept) = (&self.input, &input[width]);
        self.parts.par_iter_mut().zip(images.par_chunks_mut(part_rows)).enumerate().for_each(
            |(index, (part, images))| part.pass(features, panel, intercept, rule, index * part_rows, images),
        );
        let parts = &self.parts;
        back.par_iter_mut().enumerate().with_min_len(256).for_each(|(j, back)| {
            *back = parts.iter().fold([0.0; LANES], |sum, part| add(&sum, &part.wide[j]));
        });
    }

    fn inner(&self, a: &[Lanes], b: &[Lanes], _: &[Lanes]) -> Lanes {
        dot(a, b)
    }

    fn precondition(&self, lanes: &[bool; LANES], scale: &Lanes, residual: &[Lanes], out: &mut [Lanes]) {
        for ((out, residual), square) in out.iter_mut().zip(residual).zip(&self.squares) {
            for lane in 0..LANES {
                let value = residual[lane] / (1.0 + scale[lane] * square);
                out[lane] = if lanes[lane] { value } else { out[lane] };
            }
        }
    }

    fn round(&self, weights: &mut [Lanes]) {
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
    fn pass(
        &mut self,
        features: &Features,
        panel: &[Lanes32],
        intercept: &Lanes,
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
            images.fill(*intercept);
            add_projection(x, width, panel, images);
            self.weights.clear();
            for (i, image) in images.iter().enumerate() {
                let weights = rule(start + i, image);
                total = add(&total, &weights);
                self.weights.push(narrow(&weights));
            }
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
