//! `dcgan-explore neighbours`

use super::{
    Faults, InputFiles, RecalibrateFrom, evenly_spaced, generate, latents, open, open_data, read_images,
    save_z,
};
use crate::cli::NeighboursArgs;
use dcgan_cli::{Logging, Outcome, Progress, UsageError};
use dcgan_data::Dataset;
use dcgan_data::image_grid::{GAP, ImageGrid, Layout};
use dcgan_explore::latent::LatentSet;
use dcgan_explore::neighbours::{NeighboursError, Queries, nearest};
use dcgan_features::extract::{ExtractError, Extractor};
use dcgan_features::nearest::Neighbour;
use dcgan_features::report::layout;
use dcgan_model::Classes;
use dcgan_model::pixels::PixelRange;
use serde_json::json;

/// Maximum number of samples: each is a row of the image grid.
const MAX_SAMPLES: usize = 200;
/// Maximum number of neighbours of a sample.
const MAX_NEAREST: usize = 50;

pub(crate) fn run(args: &NeighboursArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    faults.check_range("--n", args.n, 1..=MAX_SAMPLES);
    faults.check_range("--nearest", args.nearest, 1..=MAX_NEAREST);
    faults.check(args.among != Some(0), || "--among 0: expected at least 1".to_owned());
    let inputs = InputFiles::model(&args.model).data(&args.data).z("--z", &args.z);
    let results = faults.check_outputs(
        (logging, args.json),
        &inputs,
        &[("--out", Some(&args.out)), ("--save-z", args.save_z.as_deref())],
    );
    let model = open(&args.model, &args.compute, &mut faults)?;
    let data = open_data(model.as_ref(), &args.data, &mut faults)?;
    let z = latents(model.as_ref(), &args.z, (args.seed, args.n, Classes::InTurn), &mut faults);
    if let Some(model) = &model {
        model.check_generator(&mut faults);
        model.check_discriminator("a feature", &mut faults);
        let n = if args.z.is_empty() { args.n } else { z.as_ref().map_or(0, LatentSet::len) };
        let images = n.saturating_mul(args.nearest.saturating_mul(2).saturating_add(1));
        faults.check_bytes("--n x (1 + 2 x --nearest)", images, model.sample_bytes());
    }
    if let Some(z) = &z {
        faults.check_range("--z: the number of z is", z.len(), 1..=MAX_SAMPLES);
    }
    let ((opened, data), z) = faults.into_result(model.zip(data).zip(z))?;
    let among = args.among.unwrap_or(usize::MAX).min(data.len());
    let samples = generate(&mut opened.generator()?, &z, logging)?;
    // Neighbours of real images, each without itself, to compare the distances with.
    let real = evenly_spaced(among, z.len());
    let queries = [samples.clone(), read_images(&data, &real)?].concat();
    let real_indices = real.iter().map(|&row| Some(row as u64));
    let excluded: Vec<Option<u64>> = std::iter::repeat_n(None, z.len()).chain(real_indices).collect();
    let weights = opened.discriminator("a feature", RecalibrateFrom::Data(&data))?.weights()?;
    let mut extractor = Extractor::new(opened.model(), &weights, &opened.device)?;
    let range = PixelRange::of(opened.model().config().generator.output);
    let progress = Progress::new(logging, among as u64, "images");
    let mut done = |n: usize| progress.set(n as u64);
    let queries = Queries { images: &queries, excluded: &excluded };
    let neighbours = nearest(&mut extractor, (&data, among), queries, range, args.nearest, &mut done)
        .map_err(as_usage_error)?;
    progress.finish();
    // Distances in pixels as root mean square of levels, 0 to 255.
    let per_unit =
        255.0 / f64::from(range.to_f32(255) - range.to_f32(0)) / (opened.shape().bytes() as f64).sqrt();
    let (pixels, features) = (&neighbours.pixels, &neighbours.features);
    save_z(args.save_z.as_deref(), &z)?;
    let cells = ImageGrid::split_batch(&samples, opened.shape())?
        .iter()
        .map(|sample| sample.captioned(""))
        .collect::<Vec<_>>();
    let column = ImageGrid::grid(&cells, Layout { rows: z.len(), columns: 1 });
    let gap = ImageGrid::black(1, 4 * GAP, opened.shape().channels);
    let near =
        |block: &[Vec<Neighbour>]| neighbour_grid(&data, block.get(..z.len()).unwrap_or(&[]), args.nearest);
    ImageGrid::hstack(&[column, gap.clone(), near(pixels)?, gap, near(features)?]).save(&args.out)?;

    let distance = |near: &Neighbour, unit: f64| near.distance_squared.sqrt() * unit;
    let first = |near: &[Neighbour], unit| near.first().map(|near| distance(near, unit));
    // The only reference has no neighbour but itself.
    let mean = |block: &[Vec<Neighbour>], unit| {
        let found: Vec<f64> = block.iter().filter_map(|near| first(near, unit)).collect();
        (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
    };
    let number = |value: Option<f64>, decimals: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
    };
    let name = |near: &[Neighbour]| near.first().map_or_else(String::new, |near| near.index.to_string());
    let mut lines = vec![
        ["sample", "nearest in pixels", "rms levels", "nearest in features", "distance"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for i in 0..z.len() {
        let (p, f) = (&pixels[i], &features[i]);
        let (p_distance, f_distance) = (number(first(p, per_unit), 1), number(first(f, 1.0), 2));
        lines.push(vec![i.to_string(), name(p), p_distance, name(f), f_distance]);
    }
    let (samples_p, real_p) = pixels.split_at(z.len());
    let (samples_f, real_f) = features.split_at(z.len());
    let means = [
        ("mean of samples", mean(samples_p, per_unit), mean(samples_f, 1.0)),
        ("mean of real images, each without itself", mean(real_p, per_unit), mean(real_f, 1.0)),
    ];
    for (what, p, f) in means {
        lines.push(vec![what.to_owned(), String::new(), number(p, 1), String::new(), number(f, 2)]);
    }
    results.text(layout(&lines, z.len() + 1).trim_end())?;
    results.text(&format!("{} samples among {among} images in {}", z.len(), args.out.display()))?;
    if args.json {
        let list = |block: &[Vec<Neighbour>], unit: f64| -> Vec<Vec<(u64, f64)>> {
            let one = |near: &Vec<Neighbour>| near.iter().map(|n| (n.index, distance(n, unit))).collect();
            block.iter().map(one).collect()
        };
        let result = json!({
            "among": among,
            "pixels_rms_levels": list(samples_p, per_unit),
            "features_distance": list(samples_f, 1.0),
            "real_pixels_rms_levels": list(real_p, per_unit),
            "real_features_distance": list(real_f, 1.0),
        });
        results.json(&result)?;
    }
    Ok(Outcome::Done)
}

/// Images that cannot be read are usage errors, a failed network is not.
fn as_usage_error(error: NeighboursError) -> anyhow::Error {
    match error {
        NeighboursError::Extract(ExtractError::Data(_)) | NeighboursError::Nearest(_) => {
            UsageError::because(error).into()
        }
        _ => error.into(),
    }
}

/// A row of neighbours for each sample, with their indices below.
fn neighbour_grid(data: &Dataset, found: &[Vec<Neighbour>], columns: usize) -> anyhow::Result<ImageGrid> {
    let mut cells = Vec::new();
    for near in found {
        let rows: Vec<usize> = near.iter().filter_map(|near| usize::try_from(near.index).ok()).collect();
        let images = ImageGrid::split_batch(&read_images(data, &rows)?, data.shape())?;
        let row = images.iter().zip(&rows).map(|(image, row)| image.captioned(&row.to_string()));
        let missing =
            ImageGrid::black(data.shape().height, data.shape().width, data.shape().channels).captioned("");
        cells.extend(row.chain(std::iter::repeat(missing)).take(columns));
    }
    Ok(ImageGrid::grid(&cells, Layout { rows: found.len(), columns }))
}
