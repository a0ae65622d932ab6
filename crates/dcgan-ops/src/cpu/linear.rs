//! How each layer's linear operation (dense, convolution or transposed convolution) is computed: the one place that
//! chooses.
//!
//! | algorithm | layers |
//! |---|---|
//! | Winograd | square kernels of two or three taps a phase (4x4, 5x5 and 3x3 at stride 2, 3x3 at stride 1), 8 channels or more, coarse maps of 3x3 or more |
//! | direct | four fine channels or fewer beside whole vectors of coarse ones |
//! | patches | all others: patches are gathered and multiplied; a kernel that is the whole map is one product |
//!
//! In bf16 ([`Precision::Bf16`]) the inputs of Winograd's matrix products are rounded for kernels of two taps a phase.
//! Three taps round too much for the bound that tests hold bf16 to, and the other paths wait for memory: they stay in
//! f32.

use super::conv::{self, Geometry};
use super::direct::Direct;
use super::kernels::Isa;
use super::map_view::MapView;
use super::winograd::{
    Buffers, Maps, PackedWeightCache, PerImage, Resolution, Scratch, Target, Weights, Winograd,
};
use crate::{Kind, Layer, Precision};
use half::bf16;
use rayon::prelude::*;

/// The linear operation of one layer, forward and backward.
#[derive(Debug)]
pub(super) struct Linear {
    geometry: Geometry,
    kind: Kind,
    path: Path,
    isa: Isa,
    precision: Precision,
    cache: PackedWeightCache,
    /// Whether label channels are concatenated to the input, for which it is written in full.
    joined: bool,
}

#[derive(Debug)]
enum Path {
    Winograd(Winograd),
    Direct(Direct),
    Patches,
}

/// Where a backward pass writes the gradient with respect to the input, and what is called with each image of it.
pub(super) type GradInput<'a> = Option<(&'a mut [f32], PerImage<'a>)>;

impl Linear {
    pub(super) fn of(layer: &Layer, isa: Isa, precision: Precision) -> Self {
        let geometry = Geometry::of(layer);
        let winograd = Winograd::of(&geometry);
        let rounds = winograd.as_ref().is_some_and(Winograd::supports_bf16);
        let precision = if rounds { precision } else { Precision::F32 };
        let winograd = winograd.map(Path::Winograd);
        let path = winograd.or_else(|| Direct::of(&geometry).map(Path::Direct)).unwrap_or(Path::Patches);
        let (cache, joined) = (PackedWeightCache::default(), layer.changes_input());
        Self { geometry, kind: layer.kind, path, isa, precision, cache, joined }
    }

    /// Name of the algorithm, for people.
    pub(super) fn path(&self) -> &'static str {
        match &self.path {
            Path::Winograd(winograd) => winograd.name(self.precision),
            Path::Direct(_) => "direct",
            Path::Patches if self.geometry.dense() => "product",
            Path::Patches => "patches",
        }
    }

    /// Whether batch norm and activation of the input can be applied as it is read ([`MapView`]); else it must be
    /// plain.
    pub(super) fn finishes_input(&self) -> bool {
        if self.joined {
            return false;
        }
        match self.path {
            Path::Winograd(_) => true,
            Path::Direct(_) => self.kind == Kind::ConvTranspose,
            Path::Patches => false,
        }
    }

    /// Whether batch norm and activation can be undone as the gradient of the output is read.
    pub(super) fn finishes_gradient(&self) -> bool {
        matches!(self.path, Path::Winograd(_))
    }

    /// The linear operation's output; `each` is called with every image of it.
    pub(super) fn forward(
        &mut self,
        scratch: &mut Scratch,
        input: MapView<'_>,
        weights: Weights<'_>,
        output: &mut [f32],
        each: PerImage<'_>,
    ) {
        match self.kind {
            Kind::Conv => self.down(scratch, input, weights, output, each),
            Kind::ConvTranspose => self.up(scratch, input, weights, output, each),
        }
    }

    /// From the gradient `d` of the output: adds that of the weights to `gradient`, where given, and writes that of the
    /// input, where grad_input.
    pub(super) fn backward(
        &mut self,
        scratch: &mut Scratch,
        (input, d): (MapView<'_>, MapView<'_>),
        weights: Weights<'_>,
        gradient: Option<&mut [f32]>,
        grad_input: GradInput<'_>,
    ) {
        let (fine, coarse, resolution) = match self.kind {
            Kind::Conv => (input, d, Resolution::Fine),
            Kind::ConvTranspose => (d, input, Resolution::Coarse),
        };
        match (&self.path, gradient) {
            (Path::Winograd(winograd), Some(gradient)) => {
                let target = grad_input.map(|(maps, per_image)| Target { resolution, maps, per_image });
                let buffers = Buffers { scratch, cache: &mut self.cache };
                let (isa, maps) = (self.isa, Maps { fine, coarse });
                return match self.precision {
                    Precision::F32 => {
                        winograd.gradients::<f32>(isa, buffers, maps, weights, gradient, target)
                    }
                    Precision::Bf16 => {
                        winograd.gradients::<bf16>(isa, buffers, maps, weights, gradient, target)
                    }
                };
            }
            (Path::Direct(direct), Some(gradient)) => {
                direct.weight_gradient(self.isa, &fine.finished(), coarse, gradient);
            }
            (Path::Patches, Some(gradient)) => {
                let n = fine.len() / self.geometry.fine.len();
                conv::weight_gradient(&self.geometry, n, &fine.finished(), &coarse.finished(), gradient);
            }
            (_, None) => {}
        }
        match (grad_input, self.kind) {
            (Some((out, each)), Kind::Conv) => self.up(scratch, d, weights, out, each),
            (Some((out, each)), Kind::ConvTranspose) => self.down(scratch, d, weights, out, each),
            (None, _) => {}
        }
    }

    /// `coarse = conv(fine, weights)`
    fn down(
        &mut self,
        scratch: &mut Scratch,
        fine: MapView<'_>,
        weights: Weights<'_>,
        coarse: &mut [f32],
        each: PerImage<'_>,
    ) {
        match &self.path {
            Path::Winograd(winograd) => {
                let buffers = Buffers { scratch, cache: &mut self.cache };
                match self.precision {
                    Precision::F32 => winograd.down::<f32>(self.isa, buffers, fine, weights, coarse, each),
                    Precision::Bf16 => winograd.down::<bf16>(self.isa, buffers, fine, weights, coarse, each),
                }
            }
            Path::Direct(direct) => direct.down(self.isa, &fine.finished(), weights.values, coarse, each),
            Path::Patches => {
                let n = fine.len() / self.geometry.fine.len();
                conv::down(&self.geometry, n, &fine.finished(), weights.values, coarse);
                let maps = coarse.par_chunks_mut(self.geometry.coarse.len()).enumerate();
                maps.for_each(|(image, map)| each(image, map));
            }
        }
    }

    /// `fine = conv_transpose(coarse, weights)`
    fn up(
        &mut self,
        scratch: &mut Scratch,
        coarse: MapView<'_>,
        weights: Weights<'_>,
        fine: &mut [f32],
        each: PerImage<'_>,
    ) {
        match &self.path {
            Path::Winograd(winograd) => {
                let buffers = Buffers { scratch, cache: &mut self.cache };
                match self.precision {
                    Precision::F32 => winograd.up::<f32>(self.isa, buffers, coarse, weights, fine, each),
                    Precision::Bf16 => winograd.up::<bf16>(self.isa, buffers, coarse, weights, fine, each),
                }
            }
            Path::Direct(direct) => direct.up(self.isa, coarse, weights.values, fine, each),
            Path::Patches => {
                let n = fine.len() / self.geometry.fine.len();
                conv::up(&self.geometry, n, &coarse.finished(), weights.values, fine);
                let maps = fine.par_chunks_mut(self.geometry.fine.len()).enumerate();
                maps.for_each(|(image, map)| each(image, map));
            }
        }
    }
}
