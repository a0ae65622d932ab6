//! `dcgan-train sample`: an image grid, or single images by the million.

use crate::cli::SampleArgs;
use dcgan_base::digest::Digest;
use dcgan_cli::{
    Logging, Outcome, Progress, Results, UsageError, cancel_on_signals, check_output, set_threads,
};
use dcgan_data::image_file::{EXTENSIONS, ImageFileFormat};
use dcgan_data::image_grid::{GAP, ImageGrid, Layout, MAX_IMAGES};
use dcgan_data::{ImageShape, ImageWriter, ImageWriterError};
use dcgan_model::{Generator, Model, weights::Weights};
use rayon::prelude::*;
use serde_json::json;
use std::path::Path;

/// Most images of `--each`: their names have eight digits.
const MAX_EACH: usize = 100_000_000;
/// Largest `--scale`.
const MAX_SCALE: usize = 64;
/// Largest `--gap`.
const MAX_GAP: usize = 1024;
/// Most bytes of an image grid.
const MAX_GRID_BYTES: usize = 1 << 30;
/// Images that are drawn before they are written; a multiple of the batches of a forward pass.
const CHUNK: usize = 256;
/// Most bytes of a chunk of more than one batch.
const MAX_CHUNK_BYTES: usize = 64 << 20;

pub(crate) fn run(args: &SampleArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Vec::new();
    let most = if args.each.is_some() { MAX_EACH } else { MAX_IMAGES };
    if !(1..=most).contains(&args.n) {
        let hint = if args.n > most && args.each.is_none() { "; --each writes more" } else { "" };
        faults.push(format!("--n is {}, expected 1 to {most}{hint}", args.n));
    }
    if !(1..=MAX_SCALE).contains(&args.scale) {
        faults.push(format!("--scale is {}, expected 1 to {MAX_SCALE}", args.scale));
    }
    if args.gap.is_some_and(|gap| gap > MAX_GAP) {
        faults.push(format!("--gap is {}, expected 0 to {MAX_GAP}", args.gap.unwrap_or(0)));
    }
    if let Some(out) = &args.out {
        faults.extend(UsageError::faults_of(check_output("--out", out, &EXTENSIONS)));
    }
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    let results = Results::new(logging, args.json, &[args.out.as_deref()])?;
    set_threads(args.threads)?;
    let device = args.device.open().map_err(UsageError::because)?;
    let networks =
        dcgan_model::networks(args.preset.as_deref(), args.config.as_deref()).map_err(UsageError::because)?;
    let opened = dcgan_model::open(&args.model, networks.as_ref()).map_err(UsageError::because)?;
    opened.notes.iter().for_each(|note| tracing::info!("{note}"));
    let model = opened.files.model;
    let Some(weights) = opened.files.generator else {
        return Err(UsageError::one(format!("{} has no generator", args.model.display())).into());
    };
    let shape: ImageShape = model.config().image_shape().into();
    let origin = origin(args, &model, &weights);
    match &args.each {
        Some(each) => {
            ImageWriter::check(each, &origin).map_err(|error| UsageError::one(format!("--each {error}")))?
        }
        None => check_grid_size(args, shape)?,
    }
    let mut generator = Generator::new(&model, &weights, &device)?;
    if generator.ensure_statistics()? {
        tracing::info!("the weights have no batch norm statistics: recalibrated from 4,096 z");
    }
    let written = match (&args.each, &args.out) {
        (Some(each), _) => {
            let progress = Progress::new(logging, args.n as u64, "images");
            write_each(args, each, (&mut generator, shape, &origin), &progress)?
        }
        (None, Some(out)) => {
            grid(args, &generator.draw(args.seed, args.n)?, shape)?.save(out)?;
            args.n
        }
        (None, None) => 0, // the command line requires one of them
    };
    let Some(path) = args.each.as_ref().or(args.out.as_ref()) else { return Ok(Outcome::Done) };
    if written < args.n {
        let hint = if path.is_dir() { "; the same command continues" } else { ", nothing was written" };
        tracing::warn!("interrupted after {written} of {} images{hint}", args.n);
        return Ok(Outcome::Interrupted);
    }
    results.text(&format!("{written} images in {}", path.display()))?;
    results.json(&json!({
        "images": written,
        "out": path,
        "height": shape.height * args.scale,
        "width": shape.width * args.scale,
        "channels": shape.channels,
        "seed": args.seed,
    }))?;
    Ok(Outcome::Done)
}

/// All that the images depend on: the images of an interrupted folder are continued only with the same.
fn origin(args: &SampleArgs, model: &Model, weights: &Weights) -> String {
    let mut digest = Digest::default();
    digest.field(json!(model.config()).to_string());
    for (name, tensor) in weights {
        digest.field(name).field(format!("{:?}", tensor.shape));
        let bytes: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        digest.field(bytes);
    }
    json!({ "model_sha256": digest.hex(), "seed": args.seed, "scale": args.scale }).to_string()
}

fn check_grid_size(args: &SampleArgs, shape: ImageShape) -> Result<(), UsageError> {
    let gap = args.gap.unwrap_or(GAP);
    let Layout { rows, columns } = Layout::square(args.n);
    let (height, width) = (shape.height * args.scale + gap, shape.width * args.scale + gap);
    let bytes =
        [rows, height, columns, width, shape.channels].iter().fold(1, |a: usize, b| a.saturating_mul(*b));
    if bytes <= MAX_GRID_BYTES {
        return Ok(());
    }
    Err(UsageError::one(format!(
        "a grid of {} images of {height} x {width} pixels takes {} MB, expected at most {}: use a smaller --n or \
         --scale, or write single images with --each",
        args.n,
        bytes >> 20,
        MAX_GRID_BYTES >> 20
    )))
}

/// The images in a grid; one image alone has no frame.
fn grid(args: &SampleArgs, images: &[u8], shape: ImageShape) -> anyhow::Result<ImageGrid> {
    let images: Vec<ImageGrid> =
        ImageGrid::split_batch(images, shape)?.iter().map(|image| image.enlarged(args.scale)).collect();
    let gap = args.gap.unwrap_or(if images.len() == 1 { 0 } else { GAP });
    Ok(ImageGrid::grid_with_gap(&images, Layout::square(images.len()), gap))
}

/// Draws and writes single images in order; returns how many there are, fewer than requested after a signal.
fn write_each(
    args: &SampleArgs,
    each: &Path,
    (generator, shape, origin): (&mut Generator, ImageShape, &str),
    progress: &Progress,
) -> anyhow::Result<usize> {
    let cancel = cancel_on_signals()?;
    let mut writer = ImageWriter::create(each, origin).map_err(as_usage_error)?;
    writer.skip_written(|_| None);
    if writer.next() > 0 {
        tracing::info!("{}: continues after {} images", each.display(), writer.next());
    }
    let batches = MAX_CHUNK_BYTES / (shape.bytes() * 64).max(1);
    let chunk = (64 * batches).clamp(64, CHUNK);
    progress.set(writer.next() as u64);
    while writer.next() < args.n {
        if cancel.is_set() {
            return Ok(writer.next());
        }
        let first = writer.next();
        let images = generator.draw_range(args.seed, first..args.n.min(first + chunk))?;
        let encoded = ImageGrid::split_batch(&images, shape)?
            .par_iter()
            .map(|image| {
                let image = image.enlarged(args.scale);
                ImageFileFormat::Png.encode(image.pixels(), image.shape())
            })
            .collect::<Result<Vec<_>, _>>()?;
        for png in encoded {
            writer.write(None, &png)?;
        }
        progress.set(writer.next() as u64);
    }
    let written = writer.next();
    writer.finish()?;
    Ok(written)
}

fn as_usage_error(error: ImageWriterError) -> anyhow::Error {
    match error {
        ImageWriterError::OtherImages { .. } => UsageError::because(error).into(),
        ImageWriterError::Io { .. } => error.into(),
    }
}
