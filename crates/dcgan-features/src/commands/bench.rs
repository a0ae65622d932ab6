//! `dcgan-eval bench`

use crate::cli::BenchArgs;
use dcgan_base::memory::peak_memory_bytes;
use dcgan_cli::{Outcome, UsageError, print_result, set_threads};
use dcgan_features::extract::Extractor;
use dcgan_model::Preset;
use dcgan_model::random::{self, Purpose};
use rand::RngCore;
use serde_json::json;
use std::time::Instant;

/// Extracts features with random weights; the time does not depend on the values of weights.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<Outcome> {
    let mut faults = Vec::new();
    if !(2..=1 << 16).contains(&args.batch_size) {
        faults.push(format!("--batch-size is {}, expected 2 to 65536", args.batch_size));
    }
    if !(1..=100_000_000).contains(&args.images) {
        faults.push(format!("--images is {}, expected 1 to 100000000", args.images));
    }
    let preset = Preset::named(&args.preset).map_err(|error| faults.push(error.to_string()));
    let (Ok(preset), true) = (preset, faults.is_empty()) else { return Err(UsageError { faults }.into()) };
    set_threads(args.compute.threads)?;
    let device = super::open_device(args.compute.device)?;
    let model = preset.model()?;
    let (height, width, channels) = model.config().image_shape();
    let len = height * width * channels;
    let mut images = vec![0; args.batch_size * len];
    random::stream(0, Purpose::SyntheticImages, 0).fill_bytes(&mut images);
    let mut extractor = Extractor::random(&model, 0, &device)?;
    extractor.recalibrate_on_batch(&images)?;
    extractor.features(&images)?;
    let started = Instant::now();
    for first in (0..args.images).step_by(args.batch_size) {
        let n = args.batch_size.min(args.images - first);
        extractor.features(&images[..n * len])?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let images_per_s = args.images as f64 / seconds;
    if args.json {
        let result = json!({
            "images_per_s": images_per_s,
            "peak_rss_bytes": peak_memory_bytes().unwrap_or(0),
            "image_size": height,
            "batch_size": args.batch_size,
            "dtype": "f32",
            "threads": rayon::current_num_threads(),
            "features": extractor.width(),
        });
        print_result(&result.to_string())?;
    } else {
        print_result(&format!(
            "{}: {images_per_s:.1} images/s, {} features per image, batch {}, {} threads",
            args.preset,
            extractor.width(),
            args.batch_size,
            rayon::current_num_threads()
        ))?;
    }
    Ok(Outcome::Done)
}
