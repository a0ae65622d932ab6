//! `dcgan-explore ablate`

use super::{Faults, InputFiles, OpenedModel, generate, open, save_z};
use crate::cli::AblateArgs;
use dcgan_cli::{Logging, Outcome, Results, UsageError};
use dcgan_data::image_grid::{ImageGrid, Layout};
use dcgan_explore::ablate::{AblateError, Filters, find_feature_maps, sample_positions};
use dcgan_explore::bounding_boxes::BoundingBoxes;
use dcgan_explore::json;
use dcgan_explore::latent::LatentSet;
use dcgan_explore::subnetwork::find_block;
use dcgan_model::{Classes, Generator};

/// Columns of the image grid.
const COLUMNS: usize = 8;
/// Maximum number of samples.
const MAX_SAMPLES: usize = 1000;
/// Samples on the grid for drawing boxes are enlarged to at least this many pixels a side.
const GRID_SIDE: usize = 160;
/// Margins of the rulers in pixels, above and on the left.
const RULER_MARGINS: (usize, usize) = (10, 13);
/// Pixels of a sample between two ticks.
const TICK: usize = 4;
/// Pixels of a sample between two numbers.
const NUMBER: usize = 16;

pub(crate) fn run(args: &AblateArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    faults.check_range("--n", args.n, 1..=MAX_SAMPLES);
    faults.check(args.penalty.is_finite() && args.penalty > 0.0, || {
        format!("--penalty {}: expected a number greater than 0", args.penalty)
    });
    faults.check(args.top != Some(0), || "--top 0: expected at least 1 feature map".to_owned());
    if args.template.is_some() || args.grid.is_some() {
        return template(args, faults, logging);
    }
    let inputs = InputFiles::model(&args.model);
    let inputs = inputs.file("--boxes", args.boxes.as_ref()).file("--filters", args.filters.as_ref());
    let outputs = [
        ("--save", args.save.as_deref()),
        ("--save-z", args.save_z.as_deref()),
        ("--out", Some(args.out.as_path())),
    ];
    let results = faults.check_outputs((logging, false), &inputs, &outputs);
    let boxes =
        args.boxes.as_ref().and_then(|path| faults.ok_or_record("--boxes", BoundingBoxes::read(path)));
    let filters =
        args.filters.as_ref().and_then(|path| faults.ok_or_record("--filters", Filters::read(path)));
    let model = open(&args.model, &args.compute, &mut faults)?;
    let layer = model.as_ref().map_or(0, |model| check_model(args, model, boxes.as_ref(), &mut faults));
    let opened = faults.into_result(model)?;
    let mut generator = opened.generator()?;
    let filters = match (filters, &boxes) {
        (Some(filters), _) => filters,
        (None, Some(boxes)) => find_filters(args, &opened, (&generator, layer), boxes, &results)?,
        (None, None) => return Err(UsageError::one("name --boxes or --filters").into()),
    };
    let seed = args.seed.or(boxes.map(|boxes| boxes.seed)).unwrap_or(0);
    let z = LatentSet::draw(seed, args.n, opened.model().config(), Classes::InTurn)
        .map_err(UsageError::because)?;
    let before = generate(&mut generator, &z, logging)?;
    filters.remove_from(&mut generator).map_err(as_usage_error)?;
    let after = generate(&mut generator, &z, logging)?;
    pairs(&before, &after, &opened)?.save(&args.out)?;
    save_z(args.save_z.as_deref(), &z)?;
    if let Some(path) = &args.save {
        json::write(path, &filters)?;
        results.text(&format!("feature maps: {}", path.display()))?;
    }
    let Filters { block, maps, .. } = &filters;
    results.text(&format!(
        "{} samples, and below each without {} feature maps of {block}: {}",
        z.len(),
        maps.len(),
        args.out.display()
    ))?;
    Ok(Outcome::Done)
}

/// Records faults of the options that depend on the model; returns the layer index of the block.
fn check_model(
    args: &AblateArgs,
    opened: &OpenedModel,
    boxes: Option<&BoundingBoxes>,
    faults: &mut Faults,
) -> usize {
    opened.check_generator(faults);
    opened.check_unconditional("an ablation", faults);
    // Samples with and without the feature maps.
    faults.check_bytes("--n", args.n, 2 * opened.sample_bytes());
    if let Some(fault) = boxes.and_then(|boxes| boxes.check(opened.shape()).err()) {
        faults.check(false, || format!("--boxes: {fault}"));
    }
    let layers = opened.model().generator_layers();
    // The last layer outputs images, the one before it the highest feature maps, the one before that the
    // second-highest. (The paper removes 200 feature maps, more than the 128 of its highest block.)
    let default = layers.len().saturating_sub(3);
    match &args.block {
        None => default,
        Some(name) => faults.ok_or_record("--block", find_block(layers, name)).unwrap_or(default),
    }
}

/// The feature maps that correlate with the object in the boxes.
fn find_filters(
    args: &AblateArgs,
    opened: &OpenedModel,
    (generator, layer): (&Generator, usize),
    boxes: &BoundingBoxes,
    results: &Results,
) -> anyhow::Result<Filters> {
    let block = opened.model().generator_layers()[layer].name.clone();
    let positions = sample_positions(generator, layer, opened.model(), boxes).map_err(as_usage_error)?;
    let (maps, regression) = find_feature_maps(&positions, args.penalty, args.top).map_err(as_usage_error)?;
    let inside = positions.inside.iter().filter(|&&inside| inside).count();
    results.text(&format!(
        "{} of {} feature maps of {block} correlate with the object in {} boxes: {inside} positions inside, {} \
         outside, {:.1} % classified correctly",
        maps.len(),
        positions.channels,
        boxes.boxes.len(),
        positions.inside.len() - inside,
        100.0 * regression.accuracy
    ))?;
    Ok(Filters { block, channels: positions.channels, maps })
}

/// Writes an image grid to draw boxes on, and a template of a file of boxes.
fn template(args: &AblateArgs, mut faults: Faults, logging: &Logging) -> anyhow::Result<Outcome> {
    let outputs = [("--template", args.template.as_deref()), ("--grid", args.grid.as_deref())];
    let results = faults.check_outputs((logging, false), &InputFiles::model(&args.model), &outputs);
    if let Some(path) = &args.template {
        faults.check(!path.is_file(), || {
            format!(
                "--template {} exists and may have boxes drawn by hand: name another file",
                path.display()
            )
        });
    }
    let model = open(&args.model, &args.compute, &mut faults)?;
    if let (Some(model), Some(_)) = (&model, &args.grid) {
        model.check_generator(&mut faults);
        model.check_unconditional("an ablation", &mut faults);
        let scale = GRID_SIDE.div_ceil(model.shape().height.max(model.shape().width).max(1));
        faults.check_bytes("--n", args.n, scale * scale * model.shape().bytes());
    }
    let opened = faults.into_result(model)?;
    let seed = args.seed.unwrap_or(0);
    if let Some(path) = &args.grid {
        let mut generator = opened.generator()?;
        let z = LatentSet::draw(seed, args.n, opened.model().config(), Classes::InTurn)
            .map_err(UsageError::because)?;
        let images = generate(&mut generator, &z, logging)?;
        let samples = ImageGrid::split_batch(&images, opened.shape())?;
        let cells: Vec<ImageGrid> =
            samples.iter().enumerate().map(|(i, sample)| with_rulers(sample, i)).collect();
        ImageGrid::grid(&cells, Layout::square(cells.len())).save(path)?;
        results.text(&format!("{} numbered samples of seed {seed}: {}", z.len(), path.display()))?;
    }
    if let Some(path) = &args.template {
        json::write(path, &BoundingBoxes::template(seed, opened.shape()))?;
        results.text(&format!(
            "replace the box in {} by boxes around the object, in pixels of the samples, then run \
             `dcgan-explore ablate --boxes {0}`",
            path.display()
        ))?;
    }
    Ok(Outcome::Done)
}

/// An enlarged sample with its index below and rulers in pixels of the sample.
fn with_rulers(sample: &ImageGrid, number: usize) -> ImageGrid {
    let (height, width, channels) = sample.shape();
    let scale = GRID_SIDE.div_ceil(height.max(width).max(1));
    let (top, left) = RULER_MARGINS;
    let mut grid = ImageGrid::black(top + height * scale, left + width * scale, channels);
    grid.paste(&sample.enlarged(scale), top, left);
    for x in (0..width).step_by(TICK) {
        let is_number = x % NUMBER == 0;
        (0..if is_number { 4 } else { 2 })
            .for_each(|y| grid.set_pixel(top - 1 - y, left + x * scale, [255; 3]));
        if is_number {
            grid.draw_text(&x.to_string(), 0, left + x * scale, 1);
        }
    }
    for y in (0..height).step_by(TICK) {
        let is_number = y % NUMBER == 0;
        (0..if is_number { 4 } else { 2 })
            .for_each(|x| grid.set_pixel(top + y * scale, left - 1 - x, [255; 3]));
        if is_number {
            grid.draw_text(&y.to_string(), top + y * scale, 0, 1);
        }
    }
    grid.captioned(&number.to_string())
}

/// Rows of samples, each above the row of the same z without the feature maps.
fn pairs(before: &[u8], after: &[u8], opened: &OpenedModel) -> anyhow::Result<ImageGrid> {
    let shape = opened.shape();
    let (before, after) = (ImageGrid::split_batch(before, shape)?, ImageGrid::split_batch(after, shape)?);
    let columns = before.len().min(COLUMNS);
    let black = ImageGrid::black(shape.height, shape.width, shape.channels);
    let mut rows = Vec::new();
    for (before, after) in before.chunks(columns).zip(after.chunks(columns)) {
        let mut cells = before.to_vec();
        cells.resize(columns, black.clone());
        cells.extend_from_slice(after);
        rows.push(ImageGrid::grid(&cells, Layout { rows: 2, columns }));
    }
    Ok(ImageGrid::vstack(&rows))
}

/// All errors but a failed network are usage errors.
fn as_usage_error(error: AblateError) -> anyhow::Error {
    match error {
        AblateError::Network(_) => error.into(),
        _ => UsageError::because(error).into(),
    }
}
