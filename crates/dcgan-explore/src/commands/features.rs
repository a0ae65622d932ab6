//! What `guided` and `maxact` share: looking for the images that excite features most.

use super::{Faults, read_rows};
use crate::cli::FeatureArgs;
use dcgan_cli::{Logging, Progress};
use dcgan_data::Dataset;
use dcgan_data::image_grid::ImageGrid;
use dcgan_explore::maximal::{Maxima, Maximum, enlarged, receptive_field};
use dcgan_explore::parts::{find_block, front};
use dcgan_model::{Discriminator, Model, pixels};
use dcgan_ops::Keep;

/// Images that go through the network at once.
const BATCH: usize = 64;
/// Most images of a row, features of an image grid, and images looked through.
const MAX_TOP: usize = 32;
const MAX_FEATURES: usize = 1024;
const MAX_IMAGES: usize = 1 << 24;

/// Notes what is wrong with the options that `maxact` and `guided` share; gives the layer of the block.
pub(super) fn check(args: &FeatureArgs, top: usize, model: &Model, faults: &mut Faults) -> usize {
    let layers = model.discriminator_layers();
    let last = layers.len().saturating_sub(2); // the head comes after it
    let layer = match &args.block {
        None => last,
        Some(name) => faults.take("--block", find_block(layers, name)).unwrap_or(last),
    };
    faults.range("--top", top, 1..=MAX_TOP);
    faults.range("--features", args.features, 1..=MAX_FEATURES);
    faults.range("--images", args.images, 1..=MAX_IMAGES);
    faults.check(args.feature.len() <= MAX_FEATURES, || {
        format!("--feature names {} features, expected {MAX_FEATURES} at most", args.feature.len())
    });
    let channels = layers[layer].output.channels;
    for feature in args.feature.iter().filter(|&&feature| feature >= channels) {
        faults.check(false, || {
            format!("--feature {feature}: {} has {channels} features, from 0", layers[layer].name)
        });
    }
    layer
}

/// The largest activations of the block at `place` over the images `rows` of `data`; images count by their place in `rows`.
pub(super) fn look_through(
    discriminator: &Discriminator,
    (model, layer, top): (&Model, usize, usize),
    (data, rows): (&Dataset, &[usize]),
    logging: &Logging,
) -> anyhow::Result<Maxima> {
    let mut part = front(&discriminator.0, layer)?;
    let mut maxima = Maxima::new(model.discriminator_layers()[layer].output.channels, top);
    let progress = Progress::new(logging, rows.len() as u64, "images");
    for (i, batch) in rows.chunks(BATCH).enumerate() {
        let bytes = read_rows(data, batch)?;
        let x = pixels::to_tensor(&bytes, model.config(), discriminator.0.executor.device())?;
        maxima.add(&part.eval(&x, Keep::Nothing)?.output, i * BATCH)?;
        progress.set((i * BATCH + batch.len()) as u64);
    }
    Ok(maxima)
}

/// The features to show.
pub(super) fn chosen(args: &FeatureArgs, maxima: &Maxima) -> Vec<usize> {
    if args.feature.is_empty() { maxima.most_active(args.features) } else { args.feature.clone() }
}

/// The images of some maxima, u8 `(n, h, w, c)`; `rows` are those that were looked through.
pub(super) fn images_of(maxima: &[Maximum], data: &Dataset, rows: &[usize]) -> anyhow::Result<Vec<u8>> {
    read_rows(data, &maxima.iter().map(|maximum| rows[maximum.image]).collect::<Vec<_>>())
}

/// What each of the maxima sees of its image, enlarged, u8 `(n, h, w, c)`.
pub(super) fn crops_of(
    maxima: &[Maximum],
    images: &[u8],
    (model, layer): (&Model, usize),
    ground: u8,
) -> Vec<u8> {
    let shape = model.config().image_shape().into();
    let layers = &model.discriminator_layers()[..=layer];
    let crop = |(maximum, image): (&Maximum, &[u8])| {
        enlarged(image, shape, receptive_field(layers, maximum.place.row, maximum.place.column), ground)
    };
    maxima.iter().zip(images.chunks_exact(shape.bytes())).flat_map(crop).collect()
}

/// One line of the result: a feature, and its largest activations.
pub(super) fn line(feature: usize, maxima: &[Maximum], rows: &[usize]) -> String {
    let one = |maximum: &Maximum| format!("{:.2} (image {})", maximum.value, rows[maximum.image]);
    format!("feature {feature}: {}", maxima.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// The feature's number in front of its rows of images.
pub(super) fn label(feature: usize, height: usize, channels: usize) -> ImageGrid {
    ImageGrid::sign(&format!("{feature:>4}"), height, 1, channels)
}
