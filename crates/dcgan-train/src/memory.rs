//! A lower bound of the memory of training, checked before a run starts: a failed allocation ends the process.

use dcgan_model::Model;
use dcgan_ops::Layer;

/// Images of a sample grid, drawn in one pass.
pub(crate) const GRID_IMAGES: usize = 64;

const BYTES: u64 = 4; // of an f32

/// Bytes of the networks with their gradients and Adam's two moments.
pub(crate) fn network_bytes(model: &Model) -> u64 {
    let values = layers(model).flat_map(Layer::parameters).map(|tensor| product(&tensor.shape));
    values.fold(0, u64::saturating_add).saturating_mul(4 * BYTES)
}

/// Bytes of activations: those of a minibatch are all kept for the backward pass, those of a sample grid one at a time.
pub(crate) fn activation_bytes(model: &Model, batch_size: usize) -> u64 {
    let map = |layer: &Layer| product(&[layer.output.channels, layer.output.height, layer.output.width]);
    let image = layers(model).map(map).fold(0, u64::saturating_add);
    let largest = model.generator_layers().iter().map(map).max().unwrap_or(0);
    let step = image.saturating_mul(batch_size as u64);
    step.max(largest.saturating_mul(GRID_IMAGES as u64)).saturating_mul(BYTES)
}

fn layers(model: &Model) -> impl Iterator<Item = &Layer> {
    model.generator_layers().iter().chain(model.discriminator_layers())
}

fn product(sides: &[usize]) -> u64 {
    sides.iter().fold(1, |product: u64, &side| product.saturating_mul(side as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dcgan_model::Preset;

    #[test]
    fn bytes_by_hand() {
        // By hand from the shapes. pytorch64: kernels 4x4 between 100, 512, 256, 128, 64 and 3 channels and back to 1,
        // weights and biases of batch norm; maps of 16, 64, 256, 1024 and 4096 positions in G, from 1024 to 16 and one
        // logit in D.
        let kernels = 16 * (100 * 512 + 2 * (512 * 256 + 256 * 128 + 128 * 64) + 2 * 64 * 3 + 512);
        let norms = 2 * (512 + 256 + 128 + 64) + 2 * (128 + 256 + 512);
        let generator = 16 * 512 + 64 * 256 + 256 * 128 + 1024 * 64 + 4096 * 3;
        let discriminator = 1024 * 64 + 256 * 128 + 64 * 256 + 16 * 512 + 1;
        let model = Model::new(Preset::named("pytorch64").unwrap().model).unwrap();
        assert_eq!(network_bytes(&model), 16 * (kernels + norms));
        assert_eq!(activation_bytes(&model, 128), 4 * 128 * (generator + discriminator));
        // A grid takes more than a small minibatch.
        assert_eq!(activation_bytes(&model, 2), 4 * 64 * 1024 * 64);
    }
}
