//! `dcgan-eval features`

use super::{ProgressBars, choose_model, digits_splits, into_usage_error, open_data, open_device};
use crate::cli::{FeaturesArgs, StatisticsArg};
use dcgan_cli::{Logging, Outcome, Results, UsageError, check_output, set_threads};
use dcgan_data::{OpenOptions, Split};
use dcgan_features::experiment::{Subset, config_sha256, to_file, weights_sha256};
use dcgan_features::extract::Extractor;
use dcgan_features::protocol::Progress;
use dcgan_features::report::thousands;
use serde_json::json;

pub(crate) fn run(args: &FeaturesArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let results = Results::new(logging, args.json, &[Some(&args.out)])?;
    check_output("--out", &args.out, &["safetensors"])?;
    if args.out.is_file() {
        return Err(
            UsageError::one(format!("--out {} exists; choose another name", args.out.display())).into()
        );
    }
    set_threads(args.compute.threads)?;
    let device = open_device(args.compute.device)?;
    let chosen = choose_model(&args.model, "digits")?.discriminator()?;
    let open = |split| -> anyhow::Result<Subset> {
        let options = OpenOptions { split, crop: args.crop, ..args.read.options(chosen.shape()) };
        match &args.data {
            Some(path) => Ok(open_data(path, &options)?),
            None => digits_splits(chosen.shape(), args.read)
                .map(|(train, test)| if split == Split::Train { train } else { test }),
        }
    };
    let split = args.split.split();
    let subset = open(split)?;
    if split != Split::Train && subset.sha256() == open(Split::Train)?.sha256() {
        let fault = format!(
            "--split {split}: the data have no {split} images of their own; omit the option to use all images"
        );
        return Err(UsageError::one(fault).into());
    }
    if args.data.is_none() && args.crop.is_some() {
        return Err(UsageError::one("--crop needs --data: the embedded digits are not cropped").into());
    }
    let mut extractor = Extractor::new(&chosen.model, &chosen.weights, &device)?;
    let mut progress_bars = ProgressBars::new(logging);
    let stored = match args.statistics {
        Some(choice) => choice == StatisticsArg::Stored,
        None => extractor.statistics().is_some(),
    };
    if stored && extractor.statistics().is_none() {
        return Err(UsageError::one("--statistics stored: the model has none; omit the option").into());
    }
    let mut statistics = "stored".to_owned();
    if !stored {
        let train = if split == Split::Train { subset.clone() } else { open(Split::Train)? };
        progress_bars.begin("batch-norm statistics of the training images", train.rows.len(), "images");
        let pair = (train.data.as_ref(), train.rows.clone());
        extractor
            .recalibrate(pair, &mut |done| progress_bars.update(done))
            .map_err(|e| into_usage_error(e.into()))?;
        statistics = format!("recalibrated on {}", train.sha256());
    }
    let origin = json!({
        "model": chosen.model.config().name,
        "config_sha256": config_sha256(&chosen.model),
        "weights_sha256": weights_sha256(&chosen.weights),
        "images_sha256": subset.sha256(),
        "statistics": statistics,
    });
    progress_bars.begin("features", subset.rows.len(), "images");
    let progress = &mut |done| progress_bars.update(done);
    // An interrupted command must not leave gigabytes of an incomplete file.
    let cancel = dcgan_cli::cancel_on_signals()?;
    let written =
        to_file(&mut extractor, &subset, args.dtype, &args.out, &origin.to_string(), &cancel, progress);
    if cancel.is_set() && written.is_err() {
        tracing::warn!("interrupted: nothing was written");
        return Ok(Outcome::Interrupted);
    }
    written.map_err(into_usage_error)?;
    drop(progress_bars);
    let labels = if subset.data.labels().is_some() { "with labels" } else { "without labels" };
    results.text(&format!(
        "{} feature vectors of {} values, {labels}, batch-norm statistics {}, in {}",
        thousands(subset.rows.len()),
        thousands(extractor.width()),
        if stored { "stored" } else { "recalibrated" },
        args.out.display()
    ))?;
    results.json(&json!({
        "out": args.out,
        "images": subset.rows.len(),
        "features": extractor.width(),
        "labeled": subset.data.labels().is_some(),
        "class_names": subset.data.class_names(),
        "split": split,
        "dtype": args.dtype.name(),
        "origin": origin,
    }))?;
    Ok(Outcome::Done)
}
