//! `dcgan-eval dedup`

use super::open_device;
use crate::cli::DedupArgs;
use dcgan_base::files::write_atomic;
use dcgan_base::memory::peak_memory_bytes;
use dcgan_cli::{Logging, Outcome, OutputFile, Progress, Results, UsageError, check_outputs, set_threads};
use dcgan_data::image_file::EXTENSIONS;
use dcgan_data::image_grid::{ImageGrid, Layout};
use dcgan_data::{Dataset, ImageShape, OpenOptions, cache_shape, default_cache_folder, list_column};
use dcgan_features::dedup::{self, Codes, DedupError, Duplicate, Options, Rule, SHAPE};
use dcgan_features::report::thousands;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Instant;

/// Pairs on which precision is estimated.
const SAMPLE: usize = 1000;

/// Side of the images of the PNG in pixels, and pairs of a row.
const MONTAGE_SIDE: usize = 64;
const MONTAGE_PAIRS: usize = 4;

pub(crate) fn run(args: &DedupArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let results = Results::new(logging, args.json, &[args.out.as_deref(), args.montage.as_deref()])?;
    let mut faults = Vec::new();
    let counts =
        [("--steps", args.steps, 10_000_000), ("--tables", args.tables, 1000), ("--pairs", args.pairs, 1000)];
    for (name, count, max) in counts {
        if !(1..=max).contains(&count) {
            faults.push(format!("{name} is {count}, expected 1 to {max}"));
        }
    }
    if args.crop == Some(0) {
        faults.push("--crop is 0, expected 1 or more".to_owned());
    }
    if !(-1.0..=1.0).contains(&args.min_correlation) {
        faults.push(format!("--min-correlation is {}, expected a number from -1 to 1", args.min_correlation));
    }
    let outputs =
        [("--out", args.out.as_deref(), &[][..]), ("--montage", args.montage.as_deref(), &EXTENSIONS)];
    let outputs = outputs
        .into_iter()
        .filter_map(|(option, path, extensions)| Some(OutputFile { option, path: path?, extensions }));
    faults.extend(check_outputs(&[("the dataset", &args.data)], &outputs.collect::<Vec<_>>()));
    let shape = cache_shape(&args.data).map_err(UsageError::because);
    if let Ok(Some(shape)) = &shape {
        let data = args.data.display();
        let fault =
            format!("{data} is a cache of {shape} images: name the folder or file it was packed from");
        faults.push(fault);
    }
    faults.extend(UsageError::faults_of(shape));
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    set_threads(args.compute.threads)?;
    let device = open_device(args.compute.device)?;
    let data = open(args, SHAPE)?;
    tracing::info!("{}", data.report());
    let (seed, steps, tables) = (args.seed, args.steps, args.tables);
    let options = Options { seed, steps, tables, min_correlation: args.min_correlation };
    let started = Instant::now();
    tracing::info!("training the autoencoder, {} steps of 128 images; then hashing", args.steps);
    let progress = Progress::new(logging, data.len() as u64, "images");
    let codes =
        Codes::of(&data, &device, &options, &mut |done| progress.set(done as u64)).map_err(classify)?;
    progress.finish();
    let hashed = started.elapsed().as_secs_f64();
    let find = |rule| {
        let progress = Progress::new(logging, args.tables as u64, "tables");
        let found = dedup::find(&data, &codes, rule, &options, &mut |done| progress.set(done as u64));
        progress.finish();
        found.map_err(classify)
    };
    let rule = Rule::from(args.rule);
    let found = find(rule)?;
    let rules =
        [("tables", Rule::Tables), ("equal codes", Rule::EqualCodes), ("perceptual hashes", Rule::Phash)];
    let others: Vec<(&str, Vec<Duplicate>)> = rules
        .into_iter()
        .filter(|(_, other)| *other != rule)
        .map(|(name, rule)| Ok((name, find(rule)?)))
        .collect::<anyhow::Result<_>>()?;
    let seconds = started.elapsed().as_secs_f64();
    if let Some(out) = &args.out {
        write_atomic(out, list(&data, &found)?.as_bytes())?;
    }
    if let Some(path) = &args.montage {
        montage(args, &found)?.save(path)?;
    }
    let mut lines = vec![format!(
        "{} of {} images are near-duplicates of {} others ({:.2} %)",
        thousands(found.len()),
        thousands(data.len()),
        thousands(kept(&found)),
        100.0 * found.len() as f64 / data.len() as f64
    )];
    let mut compared = serde_json::Map::new();
    let own: HashSet<usize> = found.iter().map(|duplicate| duplicate.removed).collect();
    for (name, duplicates) in &others {
        let both = duplicates.iter().filter(|duplicate| own.contains(&duplicate.removed)).count();
        let precision = precision(duplicates, args.min_correlation);
        let agree = precision
            .map_or_else(String::new, |p| format!("; the pixels of {:.1} % of pairs agree", 100.0 * p));
        lines.push(format!(
            "{name}: {}, {} of them among these{agree}",
            thousands(duplicates.len()),
            thousands(both)
        ));
        let row = json!({ "duplicates": duplicates.len(), "in_both": both, "pixels_agree": precision });
        compared.insert(name.replace(' ', "_"), row);
    }
    lines.push(format!("{seconds:.0} s, of which training and hashing {hashed:.0} s"));
    if args.json {
        let line = json!({
            "images": data.len(),
            "duplicates": found.len(),
            "kept": kept(&found),
            "autoencoder_loss": codes.loss,
            "compared": Value::Object(compared),
            "hash_seconds": hashed,
            "seconds": seconds,
            "peak_memory_bytes": peak_memory_bytes(),
        });
        results.json(&line.to_string())?;
    } else {
        results.text(&lines.join("\n"))?;
    }
    Ok(Outcome::Done)
}

fn open(args: &DedupArgs, shape: ImageShape) -> Result<Dataset, UsageError> {
    let options = OpenOptions {
        crop: args.crop,
        split: args.split,
        cache_folder: default_cache_folder(),
        ..args.read.options(shape)
    };
    Dataset::open_split(&args.data, &options).map_err(UsageError::because)
}

/// Images that are kept of groups.
fn kept(found: &[Duplicate]) -> usize {
    found.iter().map(|duplicate| duplicate.kept).collect::<HashSet<_>>().len()
}

/// Share of a sample of pairs whose pixels agree.
fn precision(found: &[Duplicate], min_correlation: f32) -> Option<f64> {
    let count = SAMPLE.min(found.len());
    let agree = (0..count).filter(|i| found[i * found.len() / count].correlation >= min_correlation).count();
    (count > 0).then(|| agree as f64 / count as f64)
}

/// The list: the name of each near-duplicate, that of the image that is kept, bits, correlation.
fn list(data: &Dataset, found: &[Duplicate]) -> anyhow::Result<String> {
    let mut text = "# removed\tkept\tcompared with\tbits\tcorrelation\n".to_owned();
    for Duplicate { removed, kept, like, bits, correlation } in found {
        let (removed, kept, like) = (data.name(*removed)?, data.name(*kept)?, data.name(*like)?);
        let [removed, kept, like] = [&removed, &kept, &like].map(|name| list_column(name));
        text.push_str(&format!("{removed}\t{kept}\t{like}\t{bits}\t{correlation:.3}\n"));
    }
    Ok(text)
}

/// Near-duplicates spread over the list, each beside the image that it was compared with.
fn montage(args: &DedupArgs, found: &[Duplicate]) -> anyhow::Result<ImageGrid> {
    let data = open(args, ImageShape { height: MONTAGE_SIDE, width: MONTAGE_SIDE, channels: 3 })?;
    let count = args.pairs.min(found.len());
    let mut cells = Vec::new();
    for i in 0..count {
        let Duplicate { removed, like, .. } = found[i * found.len() / count];
        let mut pixels = vec![0; 2 * data.shape().bytes()];
        let (first, second) = pixels.split_at_mut(data.shape().bytes());
        data.read(removed, first)?;
        data.read(like, second)?;
        cells.push(ImageGrid::hstack(&ImageGrid::split_batch(&pixels, data.shape())?));
    }
    if cells.is_empty() {
        return Ok(ImageGrid::black(MONTAGE_SIDE, MONTAGE_SIDE, 3));
    }
    let columns = MONTAGE_PAIRS.min(cells.len());
    Ok(ImageGrid::grid_with_gap(&cells, Layout { rows: cells.len().div_ceil(columns), columns }, 8))
}

/// Images that cannot be read are a usage error (exit code 2).
fn classify(error: DedupError) -> anyhow::Error {
    match error {
        DedupError::Ops(error) => error.into(),
        error => UsageError::because(error).into(),
    }
}
