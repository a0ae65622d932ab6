//! What `guided` and `maxact` share: the search for the images with the largest activations.

use super::{Faults, OpenedModel, read_images};
use crate::cli::FeatureArgs;
use dcgan_cli::{Logging, Progress};
use dcgan_data::Dataset;
use dcgan_data::image_grid::ImageGrid;
use dcgan_explore::max_activations::{MaxActivation, MaxActivations, crop_resized, receptive_field};
use dcgan_explore::subnetwork::{Subnetwork, find_block};
use dcgan_model::{Discriminator, Model, pixels};
use dcgan_ops::Keep;

/// Batch size.
const BATCH: usize = 64;
/// Maximum number of images of a row.
const MAX_TOP: usize = 32;
/// Maximum number of features of an image grid.
const MAX_FEATURES: usize = 1024;
/// Maximum number of images to search.
const MAX_IMAGES: usize = 1 << 24;

/// Checks the options that `maxact` and `guided` share; returns the layer index of the block, 0 without a model.
pub(super) fn check(
    args: &FeatureArgs,
    top: usize,
    opened: Option<&OpenedModel>,
    faults: &mut Faults,
) -> usize {
    faults.check_range("--top", top, 1..=MAX_TOP);
    faults.check_range("--features", args.features, 1..=MAX_FEATURES);
    faults.check_range("--images", args.images, 1..=MAX_IMAGES);
    faults.check(args.feature.len() <= MAX_FEATURES, || {
        format!("--feature: found {} features, expected at most {MAX_FEATURES}", args.feature.len())
    });
    let Some(opened) = opened else { return 0 };
    opened.check_discriminator("an activation", faults);
    // Images and crops or gradients of two networks.
    let features = if args.feature.is_empty() { args.features } else { args.feature.len() };
    let images = features.saturating_mul(top).saturating_mul(4);
    faults.check_bytes("--features x --top x 4", images, opened.shape().bytes());
    let layers = opened.model().discriminator_layers();
    let last = layers.len().saturating_sub(2); // the head comes after it
    let layer = match &args.block {
        None => last,
        Some(name) => faults.ok_or_record("--block", find_block(layers, name)).unwrap_or(last),
    };
    let channels = layers[layer].output.channels;
    for feature in args.feature.iter().filter(|&&feature| feature >= channels) {
        faults.check(false, || {
            format!(
                "--feature {feature}: expected 0 to {}, {} has {channels} features",
                channels.saturating_sub(1),
                layers[layer].name
            )
        });
    }
    layer
}

/// The `top` largest activations of layer index `layer` over the images `rows` of `data`; images are indexed as in
/// `rows`.
pub(super) fn max_activations(
    discriminator: &Discriminator,
    (model, layer, top): (&Model, usize, usize),
    (data, rows): (&Dataset, &[usize]),
    logging: &Logging,
) -> anyhow::Result<MaxActivations> {
    let mut lower = Subnetwork::up_to(discriminator.network(), layer)?;
    let mut maxima = MaxActivations::new(model.discriminator_layers()[layer].output.channels, top);
    let progress = Progress::new(logging, rows.len() as u64, "images");
    for (i, batch) in rows.chunks(BATCH).enumerate() {
        let bytes = read_images(data, batch)?;
        let x = pixels::to_tensor(&bytes, model.config(), lower.device().for_tensors())?;
        maxima.add(&lower.eval(&x, Keep::Nothing)?, i * BATCH)?;
        progress.set((i * BATCH + batch.len()) as u64);
    }
    Ok(maxima)
}

/// The features to show: those of `--feature`, by default the most active ones.
pub(super) fn chosen(args: &FeatureArgs, maxima: &MaxActivations) -> Vec<usize> {
    if args.feature.is_empty() { maxima.most_active(args.features) } else { args.feature.clone() }
}

/// The images of `maxima`, u8 `(n, h, w, c)`; `rows` are the images searched.
pub(super) fn images_of(maxima: &[MaxActivation], data: &Dataset, rows: &[usize]) -> anyhow::Result<Vec<u8>> {
    read_images(data, &maxima.iter().map(|maximum| rows[maximum.image]).collect::<Vec<_>>())
}

/// The receptive fields of `maxima` in their images, resized, u8 `(n, h, w, c)`.
pub(super) fn crops_of(
    maxima: &[MaxActivation],
    images: &[u8],
    (model, layer): (&Model, usize),
    fill: u8,
) -> Vec<u8> {
    let shape = model.config().image_shape().into();
    let layers = &model.discriminator_layers()[..=layer];
    let crop = |(maximum, image): (&MaxActivation, &[u8])| {
        crop_resized(image, shape, receptive_field(layers, maximum.index.row, maximum.index.column), fill)
    };
    maxima.iter().zip(images.chunks_exact(shape.bytes())).flat_map(crop).collect()
}

/// A line of the result: a feature and its largest activations.
pub(super) fn line(feature: usize, maxima: &[MaxActivation], rows: &[usize]) -> String {
    let one = |maximum: &MaxActivation| format!("{:.2} (image {})", maximum.value, rows[maximum.image]);
    format!("feature {feature}: {}", maxima.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// The feature's index, to the left of its rows of images.
pub(super) fn label(feature: usize, height: usize, channels: usize) -> ImageGrid {
    ImageGrid::label_strip(&format!("{feature:>4}"), height, 1, channels)
}
