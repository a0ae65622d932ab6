//! What training takes of a GPU's memory.

use super::CudaError;
use crate::{Layer, OpsError, Precision};

/// Samples that evaluation draws at a time.
const SAMPLES: usize = 128;

/// What the memory depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryUse {
    /// Bytes of one image of a batch: its maps, and what steps read.
    pub(super) maps: usize,
    /// Bytes of both networks with their optimizer.
    networks: usize,
    batch_size: usize,
    /// Bytes that were free before the training took any.
    free: usize,
    /// Bytes of kept images.
    pub(super) kept: usize,
}

impl MemoryUse {
    /// That of two layer lists: the maps of the generator, twice those of the discriminator, the gradients of maps, the
    /// images and what is prefetched.
    pub(super) fn of(
        generator: &[Layer],
        discriminator: &[Layer],
        (precision, batch_size): (Precision, usize),
        free: usize,
    ) -> Self {
        let of_layer = |layer: &Layer| {
            let linear = if layer.norm.is_some() { layer.output.len() } else { 0 };
            let joined = if layer.changes_input() { layer.linear_input().len() } else { 0 };
            layer.output.len() + linear + joined
        };
        let of_network = |layers: &[Layer]| layers.iter().map(of_layer).sum::<usize>();
        let largest = |layers: &[Layer]| {
            layers.iter().map(|layer| layer.input.len().max(layer.output.len())).max().unwrap_or(0)
        };
        let gradients = 2 * largest(generator).max(2 * largest(discriminator));
        let image = discriminator.first().map_or(0, |layer| layer.input.len());
        let values = of_network(generator) + 2 * of_network(discriminator) + gradients + 2 * image;
        let z = generator.first().map_or(0, |layer| layer.input.len());
        let slots = super::slots::SLOTS * (image + 4 * z);
        let parameters = generator.iter().chain(discriminator).flat_map(Layer::parameters);
        let parameters: usize = parameters.map(|tensor| tensor.shape.iter().product::<usize>()).sum();
        // Values, gradients, moments, EMA; the copy in bf16. Then what evaluation takes: copies of both, and samples.
        let networks = 32 * parameters + SAMPLES * precision_bytes(precision) * of_network(generator);
        Self { maps: values * precision_bytes(precision) + slots, networks, batch_size, free, kept: 0 }
    }

    /// An out-of-memory error, with the batch size that fits by this estimate.
    pub(super) fn explain(&self, error: OpsError) -> OpsError {
        let OpsError::Cuda(CudaError::Memory { bytes, free, total, .. }) = error else { return error };
        // A tenth is for the workspace of cuDNN.
        let usable = (self.free / 10 * 9).saturating_sub(self.networks + self.kept);
        let fits = (usable / self.maps.max(1)).min(self.batch_size * 3 / 4);
        let fits = if fits >= 16 { fits / 8 * 8 } else { fits };
        CudaError::Memory { bytes, free, total, batch_size: (fits >= 2).then_some(fits) }.into()
    }
}

/// Bytes of a value of a map.
pub(super) fn precision_bytes(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 4,
        Precision::Bf16 => 2,
    }
}
