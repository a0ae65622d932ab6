//! How each layer's linear map is computed: the one place that chooses.
//!
//! | path | layers |
//! |---|---|
//! | Winograd | square kernels of two or three taps a phase (4x4, 5x5 and 3x3 at stride 2, 3x3 at stride 1), 8 channels or more, coarse maps of 3x3 or more |
//! | patches | all others: patches are gathered and multiplied; a kernel that is the whole map is one product |

use super::conv::{self, Geometry};
use super::kernels::Isa;
use super::winograd::{Scratch, Winograd};
use crate::Layer;

/// The linear map of one layer, both ways.
#[derive(Debug)]
pub(super) struct Linear {
    geometry: Geometry,
    path: Path,
    isa: Isa,
}

#[derive(Debug)]
enum Path {
    Winograd(Winograd),
    Patches,
}

impl Linear {
    pub(super) fn of(layer: &Layer, isa: Isa) -> Self {
        let geometry = Geometry::of(layer);
        let path = Winograd::of(&geometry).map_or(Path::Patches, Path::Winograd);
        Self { geometry, path, isa }
    }

    /// Name of the path, for people.
    pub(super) fn path(&self) -> &'static str {
        match &self.path {
            Path::Winograd(winograd) => winograd.name(),
            Path::Patches if self.geometry.dense() => "product",
            Path::Patches => "patches",
        }
    }

    /// `coarse = conv(fine, weight)`
    pub(super) fn down(
        &self,
        scratch: &mut Scratch,
        n: usize,
        fine: &[f32],
        weight: &[f32],
        coarse: &mut [f32],
    ) {
        match &self.path {
            Path::Winograd(winograd) => winograd.down(self.isa, scratch, fine, weight, coarse),
            Path::Patches => conv::down(&self.geometry, n, fine, weight, coarse),
        }
    }

    /// `fine = conv_transpose(coarse, weight)`
    pub(super) fn up(
        &self,
        scratch: &mut Scratch,
        n: usize,
        coarse: &[f32],
        weight: &[f32],
        fine: &mut [f32],
    ) {
        match &self.path {
            Path::Winograd(winograd) => winograd.up(self.isa, scratch, coarse, weight, fine),
            Path::Patches => conv::up(&self.geometry, n, coarse, weight, fine),
        }
    }

    /// Adds the derivative by the weight to `gradient`.
    pub(super) fn weight_gradient(
        &self,
        scratch: &mut Scratch,
        n: usize,
        fine: &[f32],
        coarse: &[f32],
        gradient: &mut [f32],
    ) {
        match &self.path {
            Path::Winograd(winograd) => winograd.weight_gradient(self.isa, scratch, fine, coarse, gradient),
            Path::Patches => conv::weight_gradient(&self.geometry, n, fine, coarse, gradient),
        }
    }
}
