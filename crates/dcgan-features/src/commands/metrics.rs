//! `dcgan-eval metrics`

use super::{ProgressBars, check_cache, generator_of, open_device};
use crate::cli::MetricsArgs;
use dcgan_base::memory::peak_memory_bytes;
use dcgan_cli::{Logging, Outcome, OutputFile, Results, UsageError, check_outputs, set_threads};
use dcgan_data::{DataError, Dataset, ImageShape, OpenOptions, Split, default_cache_folder};
use dcgan_features::experiment::weights_sha256;
use dcgan_features::inception::{Images, InceptionError, features};
use dcgan_features::report::{layout, thousands};
use dcgan_metrics::{
    CLASSES, Convention, FEATURES, Inception, InceptionWeights, MetricsError, Neighbours, RandomState,
    Reference, SPLITS, SUBSET_SIZE, SUBSETS, Spread, Statistics, WEIGHTS_SOURCE, WEIGHTS_VARIABLE,
    default_weights, inception_score, kernel_distance, neighbours,
};
use dcgan_model::{Device, Generator, ModelFiles, is_hub_address, shipped_model};
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// Samples of a model without `--n`: what papers compare.
const DEFAULT_SAMPLES: usize = 50_000;

/// Below this many images covariances of 2048 features are singular.
const SINGULAR: usize = FEATURES + 1;

/// Below this many images the bias of FID is larger than most differences.
const FEW: usize = 10_000;

/// Endings of weights files; other files are datasets.
const WEIGHTS: [&str; 5] = ["safetensors", "pth", "pt", "ckpt", "bin"];

/// Where the images of one side come from.
enum Source {
    Dataset(Box<Dataset>),
    Model { generator: Box<Generator>, name: String, sha256: Option<String> },
}

/// Features of the real images, their statistics, or both.
struct Real {
    features: Option<Vec<f32>>,
    /// Statistics in the file, which FID uses.
    statistics: Option<Statistics>,
}

pub(crate) fn run(args: &MetricsArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let results = Results::new(logging, args.json, &[args.save_statistics.as_deref()])?;
    check_cache(args.cache.as_deref())?;
    let mut faults = Vec::new();
    for (name, count) in [("--n", args.n), ("--reference-n", args.reference_n)] {
        if count.is_some_and(|count| count < 2) {
            faults.push(format!("{name} is {}, expected 2 or more", count.unwrap_or(0)));
        }
    }
    if let Some(path) = &args.save_statistics {
        let mut inputs: Vec<(&str, &Path)> =
            vec![("the generated images", &args.generated), ("the real images", &args.reference)];
        inputs.extend(args.inception.iter().map(|path| ("--inception", path.as_path())));
        let output = OutputFile { option: "--save-statistics", path, extensions: &["npz"] };
        faults.extend(check_outputs(&inputs, &[output]));
    }
    let no_images = if is_npz(&args.reference) {
        Dataset::open(&args.reference, &OpenOptions::new(ANY)).err()
    } else {
        None
    };
    let has_images = no_images.is_none();
    if !has_images && (args.save_statistics.is_some() || args.reference_n.is_some() || args.split.is_some()) {
        faults
            .push("--save-statistics, --reference-n and --split need real images, not statistics".to_owned());
    }
    let statistics = real_statistics(args, no_images).unwrap_or_else(|error| {
        faults.extend(error.faults);
        None
    });
    let weights = args.inception.clone().or_else(default_weights);
    if weights.is_none() {
        faults.push(format!(
            "no --inception given, and {WEIGHTS_VARIABLE} names no file: {WEIGHTS_SOURCE}. Without them: `dcgan-train \
             run` logs a Fréchet distance of random features, and `dcgan-eval nnd` compares pixels with the nearest \
             real images"
        ));
    }
    let (Some(weights), true) = (weights, faults.is_empty()) else {
        return Err(UsageError { faults }.into());
    };
    set_threads(args.compute.threads)?;
    let device = open_device(args.compute.device)?;
    let started = Instant::now();
    let weights = InceptionWeights::read(&weights).map_err(UsageError::because)?;
    let mut generated = open_generated(&args.generated, &device)?;
    if let (Source::Dataset(_), Some(_)) = (&generated, args.seed) {
        let fault =
            format!("--seed is that of the samples of a model: {} is a dataset", args.generated.display());
        return Err(UsageError::one(fault).into());
    }
    let reference = match has_images {
        true => Some(open_dataset(&args.reference, args.split.unwrap_or_default())?),
        false => None,
    };
    let mut inception = Inception::new(&weights, device)?;
    let cache = args.cache.clone().or_else(|| default_cache_folder().map(|folder| folder.join("features")));
    let (mut extract, sha256) = {
        let (inception, sha256) = (&mut inception, weights.sha256().to_owned());
        let (cache, hash) = (cache, sha256.clone());
        let extract = move |images: &mut Images<'_>, n: usize| {
            let mut bars = ProgressBars::new(logging);
            features(images, n, (inception, &hash), args.like, cache.as_deref(), &mut bars).map_err(classify)
        };
        (extract, sha256)
    };
    let features = match &reference {
        Some(data) => {
            let n = count("--reference-n", args.reference_n, data)?;
            Some(extract(&mut Images::Dataset(data), n)?)
        }
        None => None,
    };
    let real = Real { features, statistics };
    let (features, what) = match &mut generated {
        Source::Dataset(data) => {
            let n = count("--n", args.n, data)?;
            (extract(&mut Images::Dataset(data), n)?, json!({ "images": name_of(&args.generated) }))
        }
        Source::Model { generator, name, sha256 } => {
            let n = args.n.unwrap_or(DEFAULT_SAMPLES);
            let seed = args.seed.unwrap_or(0);
            let images = &mut Images::Samples { generator, seed };
            let what = json!({ "model": name, "weights_sha256": sha256, "seed": seed });
            (extract(images, n)?, what)
        }
    };
    drop(extract);
    let extracted = started.elapsed().as_secs_f64();
    let found = compute(args, &features, &real, &inception)?;
    if let (Some(path), Some(features)) = (&args.save_statistics, &real.features) {
        Statistics::of(features, FEATURES, args.like.ddof()).write(path)?;
    }
    let (n, m) = (features.len() / FEATURES, found.real_images);
    for (side, count) in [("generated", Some(n)), ("real", m)] {
        if let Some(warning) = count.and_then(|count| warning(side, count)) {
            tracing::warn!("{warning}");
        }
    }
    results.text(&found.table(args.like, n, m, &sha256))?;
    results.json(
        &json!({
            "convention": args.like.name(),
            "inception_sha256": sha256,
            "generated": what,
            "generated_images": n,
            "reference": name_of(&args.reference),
            "reference_images": m,
            "fid_reference": if real.statistics.is_some() { "statistics" } else { "images" },
            "fid": found.fid,
            "fid_infinity": found.fid_infinity,
            "kid": found.kid.map(|kid| kid.mean),
            "kid_std": found.kid.map(|kid| kid.std),
            "inception_score": found.score.map(|score| score.mean),
            "inception_score_std": found.score.map(|score| score.std),
            "precision": found.neighbours.map(|found| found.precision),
            "recall": found.neighbours.map(|found| found.recall),
            "density": found.neighbours.map(|found| found.density),
            "coverage": found.neighbours.map(|found| found.coverage),
            "neighbours_of": "Inception features",
            "subset_seed": args.subset_seed,
            "extraction_seconds": extracted,
            "seconds": started.elapsed().as_secs_f64(),
            "peak_memory_bytes": peak_memory_bytes(),
        })
        .to_string(),
    )?;
    Ok(Outcome::Done)
}

/// All metrics; none where the real images are not there, or are too few.
struct Found {
    real_images: Option<usize>,
    fid: f64,
    fid_infinity: Option<f64>,
    kid: Option<Spread>,
    score: Option<Spread>,
    neighbours: Option<Neighbours>,
}

fn compute(
    args: &MetricsArgs,
    features: &[f32],
    real: &Real,
    inception: &Inception,
) -> anyhow::Result<Found> {
    let (ddof, seed) = (args.like.ddof(), args.subset_seed);
    let n = features.len() / FEATURES;
    tracing::info!("computing the metrics");
    let of_real = match (&real.statistics, &real.features) {
        (Some(statistics), _) => statistics.clone(),
        (None, features) => Statistics::of(features.as_deref().unwrap_or_default(), FEATURES, ddof),
    };
    let reference = Reference::new(&of_real)?;
    let fid = reference.distance(&Statistics::of(features, FEATURES, ddof))?;
    let fid_infinity = if n >= FEW {
        Some(reference.distance_at_infinity(features, ddof, &mut RandomState::new(seed))?)
    } else {
        tracing::warn!("{n} generated images: FID for n to infinity needs {FEW} or more and is left out");
        None
    };
    let logits = inception.logits(features);
    let score = optional(inception_score(&logits, CLASSES, SPLITS, &mut RandomState::new(seed)))?;
    let mut found = Found { real_images: None, fid, fid_infinity, kid: None, score, neighbours: None };
    match &real.features {
        Some(real) => {
            found.real_images = Some(real.len() / FEATURES);
            let mut random = RandomState::new(seed);
            found.kid =
                optional(kernel_distance(features, real, FEATURES, SUBSETS, SUBSET_SIZE, &mut random))?;
            found.neighbours = optional(neighbours(features, real, FEATURES))?;
        }
        None => {
            tracing::info!(
                "the real images are statistics: KID, precision, recall, density and coverage need images"
            );
        }
    }
    Ok(found)
}

/// A metric that needs more images than there are is left out.
fn optional<T>(found: Result<T, MetricsError>) -> anyhow::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error @ MetricsError::TooFew { .. }) => {
            tracing::warn!("{error}: left out");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn warning(side: &str, count: usize) -> Option<String> {
    if count < SINGULAR {
        Some(format!(
            "{count} {side} images: below {SINGULAR} the covariance is singular and FID means little"
        ))
    } else if count < FEW {
        Some(format!(
            "{count} {side} images: FID falls with their number; compare only equal numbers, or use 10,000"
        ))
    } else {
        None
    }
}

impl Found {
    fn table(&self, like: Convention, n: usize, m: Option<usize>, weights: &str) -> String {
        let spread =
            |spread: Spread, digits: usize| format!("{:.digits$} +- {:.digits$}", spread.mean, spread.std);
        let mut rows = vec![vec!["metric".to_owned(), "value".to_owned(), "how".to_owned()]];
        let mut row = |name: &str, value: Option<String>, how: String| {
            rows.extend(value.map(|value| vec![name.to_owned(), value, how]));
        };
        row("FID", Some(format!("{:.4}", self.fid)), like.name().to_owned());
        row(
            "FID, n to infinity",
            self.fid_infinity.map(|fid| format!("{fid:.4}")),
            "15 points, line in 1/n".to_owned(),
        );
        row(
            "KID x 1000",
            self.kid.map(|kid| spread(Spread { mean: kid.mean * 1e3, std: kid.std * 1e3 }, 4)),
            format!("{SUBSETS} subsets of {SUBSET_SIZE}"),
        );
        row("Inception score", self.score.map(|score| spread(score, 4)), format!("{SPLITS} splits"));
        let found = self.neighbours;
        let inception = |k: usize| format!("k = {k}, Inception features");
        row(
            "precision",
            found.map(|found| format!("{:.4}", found.precision)),
            inception(dcgan_metrics::PRECISION_K),
        );
        row(
            "recall",
            found.map(|found| format!("{:.4}", found.recall)),
            inception(dcgan_metrics::PRECISION_K),
        );
        row(
            "density",
            found.map(|found| format!("{:.4}", found.density)),
            inception(dcgan_metrics::DENSITY_K),
        );
        row(
            "coverage",
            found.map(|found| format!("{:.4}", found.coverage)),
            inception(dcgan_metrics::DENSITY_K),
        );
        let lines = rows.len();
        let against = m.map_or_else(|| "statistics".to_owned(), |m| format!("{} real images", thousands(m)));
        format!(
            "{}{} generated images against {against}, as {like} computes them; Inception weights {}",
            layout(&rows, lines),
            thousands(n),
            weights.get(..16).unwrap_or(weights)
        )
    }
}

fn is_npz(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz"))
}

/// The statistics in the file of the real images, if they are used: .npz files have statistics, images or both. As in
/// ADM's evaluator, FID then compares with the statistics, which may be of more images.
///
/// `no_images` says why the file has no images.
fn real_statistics(
    args: &MetricsArgs,
    no_images: Option<DataError>,
) -> Result<Option<Statistics>, UsageError> {
    if !is_npz(&args.reference) || no_images.is_none() && args.reference_n.is_some() {
        return Ok(None);
    }
    match (Statistics::read(&args.reference), no_images) {
        (Ok(statistics), no_images) => {
            if no_images.is_none() {
                let path = args.reference.display();
                tracing::info!("{path}: FID uses its statistics, the other metrics its images");
            }
            Ok(Some(statistics))
        }
        (Err(_), None) => Ok(None),
        (Err(error), Some(no_images)) => {
            let fault = format!("neither statistics nor images for the real side: {error}; {no_images}");
            Err(UsageError::one(fault))
        }
    }
}

/// A shape for images that are read as they are stored.
const ANY: ImageShape = ImageShape { height: 32, width: 32, channels: 3 };

/// The images of one side, as they are stored.
fn open_dataset(path: &Path, split: Split) -> Result<Dataset, UsageError> {
    // A cache opens in its own shape alone.
    let shape = dcgan_data::cache_shape(path).map_err(UsageError::because)?.unwrap_or(ANY);
    let options = OpenOptions { split, index_folder: default_cache_folder(), ..OpenOptions::new(shape) };
    let data = Dataset::open_split(path, &options).map_err(UsageError::because)?;
    tracing::info!("{}", data.report());
    if let Ok(true) = data.name(0).map(|name| name.to_ascii_lowercase().ends_with(".jpg")) {
        tracing::warn!("{}: JPEG changes FID; compare images that are stored alike", path.display());
    }
    Ok(data)
}

/// The images to use of a dataset.
fn count(option: &str, count: Option<usize>, data: &Dataset) -> Result<usize, UsageError> {
    match count.unwrap_or(data.len()) {
        count if count > data.len() => {
            Err(UsageError::one(format!("{option} is {count}, the dataset has {} images", data.len())))
        }
        count if count < 2 => {
            Err(UsageError::one(format!("{}: 1 image, expected 2 or more", data.report().path.display())))
        }
        count => Ok(count),
    }
}

/// A model if the path is one, or the name of one that comes with the program; otherwise a dataset.
fn open_generated(path: &Path, device: &Device) -> anyhow::Result<Source> {
    let is_weights = path.is_file()
        && path
            .extension()
            .and_then(|ending| ending.to_str())
            .is_some_and(|ending| WEIGHTS.contains(&ending))
        // Binary files of CIFAR and STL-10 have the ending of weights.
        && dcgan_data::probe(path).is_err();
    let is_folder = ["config.json", "plan.toml"].iter().any(|name| path.join(name).is_file());
    let shipped = path.to_str().filter(|_| !path.exists());
    let is_model = is_weights || is_folder || is_hub_address(path);
    let model = shipped.and_then(shipped_model).or_else(|| is_model.then(|| path.to_owned()));
    let files = if let Some(model) = &model {
        let opened = dcgan_model::open(model, None).map_err(UsageError::because)?;
        opened.notes.iter().for_each(|note| tracing::info!("{note}"));
        opened.files
    } else if shipped == Some("digits") {
        ModelFiles::embedded_digits()?
    } else {
        return Ok(Source::Dataset(Box::new(open_dataset(path, Split::Train)?)));
    };
    let generator = generator_of(&files, path.display(), device)?;
    let sha256 = files.generator.as_ref().map(weights_sha256);
    Ok(Source::Model { generator: Box::new(generator), name: name_of(path), sha256 })
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Images and caches that cannot be read are a usage error (exit code 2).
fn classify(error: InceptionError) -> anyhow::Error {
    match error {
        InceptionError::Network(error) => error.into(),
        InceptionError::Metrics(error) => error.into(),
        error => UsageError::because(error).into(),
    }
}
