//! `dcgan-explore concept`

use super::{
    Faults, InputFiles, OpenedModel, RecalibrateFrom, evenly_spaced, generate, open, open_data, read_images,
    save_z,
};
use crate::cli::ConceptArgs;
use dcgan_cli::{Logging, Outcome, Progress, UsageError};
use dcgan_data::Dataset;
use dcgan_data::image_grid::{ImageGrid, Layout};
use dcgan_explore::attributes::{Attributes, Condition};
use dcgan_explore::concept::{ConceptError, Probe, class_counts, top_indices};
use dcgan_explore::latent::{LatentSet, concat};
use dcgan_features::extract::{BATCH, Extractor};
use dcgan_features::features::Features;
use dcgan_model::Classes;
use serde_json::json;

/// Maximum number of images to fit the probe to.
const MAX_IMAGES: usize = 100_000;
/// Values per channel of a feature vector: activations pooled to 4x4.
const POOLED: usize = 16;
/// Maximum size of the features that the probe is fitted to, in bytes.
const MAX_FEATURE_BYTES: usize = 4 << 30;
/// Maximum number of samples to rank.
const MAX_CANDIDATES: usize = 1_000_000;

pub(crate) fn run(args: &ConceptArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    faults.check_range("--images", args.images, 1..=MAX_IMAGES);
    faults.check_range("--candidates", args.candidates, 1..=MAX_CANDIDATES);
    faults.check((1..=args.candidates).contains(&args.top), || {
        format!("--top {}: expected 1 to {}, the number of --candidates", args.top, args.candidates)
    });
    let inputs = InputFiles::model(&args.model).data(&args.data).file("--attributes", Some(&args.attributes));
    let results = faults.check_outputs(
        (logging, args.json),
        &inputs,
        &[("--save-z", args.save_z.as_deref()), ("--out", Some(&args.out))],
    );
    let conditions: Vec<Condition> = args.attribute.iter().map(|text| text.as_str().into()).collect();
    let attributes = faults.ok_or_record("--attributes", Attributes::read(&args.attributes));
    let columns =
        attributes.as_ref().and_then(|known| faults.ok_or_record("--attribute", known.columns(&conditions)));
    let model = open(&args.model, &args.compute, &mut faults)?;
    if let Some(model) = &model {
        model.check_generator(&mut faults);
        model.check_discriminator("a concept", &mut faults);
        let layers = model.model().discriminator_layers();
        let channels: usize = layers.iter().rev().skip(1).map(|layer| layer.output.channels).sum();
        let bytes = size_of::<f32>() * POOLED * channels;
        faults.check_bytes_within(MAX_FEATURE_BYTES, "--images", args.images, bytes);
        faults.check_bytes("--top", args.top, model.sample_bytes());
        faults.check_bytes("--candidates", args.candidates, size_of::<f32>() * model.latent().size);
    }
    let data = open_data(model.as_ref(), &args.data, &mut faults)?;
    let labeled = match (&data, &attributes, &columns) {
        (Some(data), Some(attributes), Some(columns)) => {
            faults.collect(label(data, attributes, columns, args.images))?
        }
        _ => None,
    };
    let ((opened, data), labeled) = faults.into_result(model.zip(data).zip(labeled))?;
    let Labeled { images, labels } = labeled;
    let mut generator = opened.generator()?;
    let concept = args.attribute.join(", ");
    let positives = labels.iter().filter(|&&label| label).count();
    tracing::info!("{concept}: {positives} of {} images", labels.len());

    let mut extractor = extractor(&opened, &data)?;
    let features = features_of_images(&mut extractor, &data, &images, logging)?;
    let probe = Probe::fit(&features, &labels).map_err(as_usage_error)?;

    tracing::info!("ranking {} samples", args.candidates);
    let z = LatentSet::draw(args.seed, args.candidates, opened.model().config(), Classes::InTurn)
        .map_err(UsageError::because)?;
    let scores = {
        let progress = Progress::new(logging, z.len() as u64, "samples");
        let mut scores: Vec<f32> = Vec::with_capacity(z.len());
        for rows in z.values().chunks(BATCH * z.size()) {
            let batch = LatentSet::new(rows.to_vec(), z.size(), "samples")?;
            let samples = batch.images(&mut generator, &mut |_| {})?;
            let features = Features::from_f32(extractor.features(&samples)?, extractor.width())?;
            scores.extend(probe.scores(&features)?);
            progress.set(scores.len() as u64);
        }
        scores
    };
    let best = top_indices(&scores, args.top);
    let kept = z.select(&best, "the samples")?;
    let negatives = best.iter().filter(|&&i| scores[i] <= 0.0).count();
    if negatives > 0 {
        let kept = best.len();
        tracing::warn!(
            "{negatives} of the {kept} samples kept have scores below 0: rank more samples with --candidates, \
             or keep fewer with --top"
        );
    }
    // The samples, and the image of their mean, which is the concept in arithmetic.
    let both = concat(&[kept.clone(), LatentSet::new(kept.mean(), kept.size(), "the mean")?])?;
    let mut images = ImageGrid::split_batch(&generate(&mut generator, &both, logging)?, opened.shape())?;
    let mean = images.split_off(kept.len());
    let sign = ImageGrid::label_strip(" ", 0, 1, opened.shape().channels);
    let grid = ImageGrid::grid(&images, Layout::square(kept.len()));
    ImageGrid::hstack(&[grid, sign, ImageGrid::grid(&mean, Layout::square(1))]).save(&args.out)?;
    save_z(args.save_z.as_deref(), &kept)?;

    let report = probe.report;
    results.text(&format!(
        "{concept}: {} of {} images; accuracy of the probe on {} held-out images {:.1} % (majority class: {:.1} %)",
        report.positives,
        report.positives + report.negatives,
        report.held_out,
        100.0 * report.accuracy,
        100.0 * report.baseline
    ))?;
    let numbers = best.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    results.text(&format!("the samples with the highest scores: seed:{}:{numbers}", args.seed))?;
    results.text(&format!("their images, and the image of their mean: {}", args.out.display()))?;
    if let Some(path) = &args.save_z {
        results.text(&format!("their z: {}", path.display()))?;
    }
    if args.json {
        let result = json!({
            "concept": args.attribute,
            "positives": report.positives,
            "negatives": report.negatives,
            "c": report.c,
            "held_out": report.held_out,
            "accuracy_percent": 100.0 * report.accuracy,
            "baseline_percent": 100.0 * report.baseline,
            "seed": args.seed,
            "candidates": args.candidates,
            "samples": best,
            "scores": best.iter().map(|&i| scores[i]).collect::<Vec<_>>(),
        });
        results.json(&result)?;
    }
    Ok(Outcome::Done)
}

/// Images with attributes, and whether they have the concept.
struct Labeled {
    images: Vec<usize>,
    labels: Vec<bool>,
}

/// At most `limit` images of `data` with attributes, evenly spaced, and whether they match all conditions `columns`.
fn label(
    data: &Dataset,
    attributes: &Attributes,
    columns: &[(usize, bool)],
    limit: usize,
) -> anyhow::Result<Labeled> {
    let names: Vec<String> = (0..data.len()).map(|i| data.name(i)).collect::<Result<_, _>>()?;
    let rows = attributes.join(&names).map_err(UsageError::because)?;
    let known: Vec<(usize, usize)> =
        rows.iter().enumerate().filter_map(|(image, row)| Some((image, (*row)?))).collect();
    let chosen = evenly_spaced(known.len(), limit).into_iter().map(|i| known[i]);
    let (images, rows): (Vec<usize>, Vec<usize>) = chosen.unzip();
    let labels: Vec<bool> = rows.iter().map(|&row| attributes.matches(row, columns)).collect();
    class_counts(&labels).map_err(as_usage_error)?;
    Ok(Labeled { images, labels })
}

/// A feature extractor with batch norm statistics.
fn extractor(opened: &OpenedModel, data: &Dataset) -> anyhow::Result<Extractor> {
    let discriminator = opened.discriminator("a concept", RecalibrateFrom::Data(data))?;
    Ok(Extractor::new(opened.model(), &discriminator.weights()?, &opened.device)?)
}

fn features_of_images(
    extractor: &mut Extractor,
    data: &Dataset,
    images: &[usize],
    logging: &Logging,
) -> anyhow::Result<Features> {
    let progress = Progress::new(logging, images.len() as u64, "images");
    let mut values = Vec::with_capacity(images.len() * extractor.width());
    for batch in images.chunks(BATCH) {
        values.extend(extractor.features(&read_images(data, batch)?)?);
        progress.set((values.len() / extractor.width()) as u64);
    }
    Ok(Features::from_f32(values, extractor.width())?)
}

/// All errors but those of the fit are usage errors.
fn as_usage_error(error: ConceptError) -> anyhow::Error {
    match error {
        ConceptError::Svm(_) | ConceptError::Features(_) => error.into(),
        _ => UsageError::because(error).into(),
    }
}
