//! Shards of a batch: equal parts, computed one after the other. What is summed over images is summed within each
//! shard, and the sums of shards are combined in a fixed order. So a batch of some shards gives the same bytes,
//! whichever process has which of them.

use super::linear::{GradInput, Linear};
use super::map_view::MapView;
use super::winograd::{PerImage, Scratch, Weights};
use crate::{OpsError, Result};
use std::ops::Range;

/// How the images of a pass in one process are divided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shards {
    count: usize,
    images: usize,
}

impl Shards {
    /// `n` images in `count` shards.
    pub(super) fn new(n: usize, count: usize) -> Result<Self> {
        match n.is_multiple_of(count) {
            true => Ok(Self { count, images: n / count }),
            false => Err(OpsError::Shards { images: n, shards: count }),
        }
    }

    /// All images.
    pub(super) fn n(self) -> usize {
        self.count * self.images
    }

    pub(super) fn count(self) -> usize {
        self.count
    }

    /// The parts of values that each image has `len` of.
    pub(super) fn of(self, values: &[f32], len: usize) -> impl Iterator<Item = &[f32]> {
        values[..self.n() * len].chunks_exact((self.images * len).max(1)).take(self.count)
    }

    /// The same to change.
    pub(super) fn of_mut(self, values: &mut [f32], len: usize) -> impl Iterator<Item = &mut [f32]> {
        values[..self.n() * len].chunks_exact_mut((self.images * len).max(1)).take(self.count)
    }

    /// The flat gradients of each shard.
    pub(super) fn gradients(self, gradients: &mut [f32]) -> impl Iterator<Item = &mut [f32]> {
        let len = gradients.len() / self.count;
        gradients.chunks_exact_mut(len.max(1))
    }

    /// A linear operation (dense, convolution or transposed convolution) forward; `each` gets the number of an image in
    /// the whole batch of the process.
    pub(super) fn forward(
        self,
        linear: &mut Linear,
        scratch: &mut Scratch,
        (source, len): (MapView<'_>, usize),
        weights: Weights<'_>,
        output: &mut [f32],
        each: PerImage<'_>,
    ) {
        let (len, out) = (self.images * len, output.len() / self.count);
        for (shard, output) in output.chunks_exact_mut(out.max(1)).enumerate() {
            let first = shard * self.images;
            let source = source.part(shard * len, len);
            linear.forward(scratch, source, weights, output, &|image, map| each(first + image, map));
        }
    }

    /// A linear operation backward. `lens` are the values of an image that it reads and writes forward; the gradient of
    /// the weight is in `range` of each shard's flat gradients.
    pub(super) fn backward(
        self,
        (linear, scratch): (&mut Linear, &mut Scratch),
        (source, d): (MapView<'_>, MapView<'_>),
        lens: (usize, usize),
        weights: Weights<'_>,
        (mut gradients, range): (Option<&mut [f32]>, Range<usize>),
        mut grad_input: GradInput<'_>,
    ) {
        let (read, written) = (self.images * lens.0, self.images * lens.1);
        for shard in 0..self.count {
            let first = shard * self.images;
            let maps = (source.part(shard * read, read), d.part(shard * written, written));
            let gradient = gradients.as_deref_mut().and_then(|gradients| {
                let gradients = self.gradients(gradients).nth(shard)?;
                Some(&mut gradients[range.clone()])
            });
            match &mut grad_input {
                Some((out, each)) => {
                    let out = &mut out[shard * read..(shard + 1) * read];
                    let each = |image: usize, map: &mut [f32]| each(first + image, map);
                    linear.backward(scratch, maps, weights, gradient, Some((out, &each)));
                }
                None => linear.backward(scratch, maps, weights, gradient, None),
            }
        }
    }
}
