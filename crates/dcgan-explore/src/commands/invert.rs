//! `dcgan-explore invert`

use super::{Faults, InputFiles, generate, open, open_data, read_images, save_z};
use crate::cli::InvertArgs;
use dcgan_cli::{Logging, Outcome, Progress};
use dcgan_data::image_grid::{GAP, ImageGrid, Layout};
use dcgan_explore::invert::{InversionConfig, invert, total_steps};
use dcgan_features::report::layout;
use dcgan_model::pixels::PixelRange;
use serde_json::json;

/// Maximum number of images, and of restarts per image.
const MAX: usize = 1000;

pub(crate) fn run(args: &InvertArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    faults.check_range("--n", args.n, 1..=MAX);
    faults.check(args.images.len() <= MAX, || {
        format!("--images: found {} images, expected at most {MAX}", args.images.len())
    });
    faults.check_range("--restarts", args.restarts, 1..=MAX);
    faults.check_range("--steps", args.steps, 1..=100_000);
    faults.check_range("--learning-rate", args.learning_rate, 1e-6..=10.0);
    let inputs = InputFiles::model(&args.model).data(&args.data);
    let results = faults.check_outputs(
        (logging, args.json),
        &inputs,
        &[("--out", Some(&args.out)), ("--save-z", args.save_z.as_deref())],
    );
    let model = open(&args.model, &args.compute, &mut faults)?;
    let data = open_data(model.as_ref(), &args.data, &mut faults)?;
    if let Some(model) = &model {
        model.check_generator(&mut faults);
        model.check_unconditional("an inversion", &mut faults);
        let (option, n) =
            if args.images.is_empty() { ("--n", args.n) } else { ("--images", args.images.len()) };
        faults.check_bytes(option, n, 2 * model.sample_bytes());
    }
    if let Some(data) = &data {
        for row in args.images.iter().filter(|row| **row >= data.len()) {
            faults.check(false, || {
                let len = data.len();
                format!(
                    "--images {row}: expected 0 to {}, the dataset has {len} images",
                    len.saturating_sub(1)
                )
            });
        }
    }
    let (opened, data) = faults.into_result(model.zip(data))?;
    let rows =
        if args.images.is_empty() { (0..args.n.min(data.len())).collect() } else { args.images.clone() };
    let images = read_images(&data, &rows)?;
    let mut generator = opened.generator()?;
    let inversion = InversionConfig {
        restarts: args.restarts,
        steps: args.steps,
        learning_rate: args.learning_rate,
        seed: args.seed,
    };
    let progress = Progress::new(logging, total_steps(rows.len(), &inversion) as u64, "steps");
    let mut done = |n: usize| progress.set(n as u64);
    let result = invert(&mut generator, opened.model(), &images, &inversion, &mut done)?;
    progress.finish();
    let generated = generate(&mut generator, &result.z, logging)?;
    save_z(args.save_z.as_deref(), &result.z)?;
    let (images, generated) = (
        ImageGrid::split_batch(&images, opened.shape())?,
        ImageGrid::split_batch(&generated, opened.shape())?,
    );
    let gap = ImageGrid::black(1, GAP / 2, opened.shape().channels);
    let pairs: Vec<ImageGrid> = images
        .iter()
        .zip(&generated)
        .zip(&rows)
        .map(|((image, generated), row)| {
            ImageGrid::hstack(&[image.clone(), gap.clone(), generated.clone()]).captioned(&row.to_string())
        })
        .collect();
    ImageGrid::grid(&pairs, Layout::square(pairs.len())).save(&args.out)?;

    let range = PixelRange::of(opened.model().config().generator.output);
    let levels = 255.0 / (range.to_f32(255) - range.to_f32(0));
    let mut lines =
        vec![["image", "mean squared error", "rms levels", "worst restart"].map(str::to_owned).to_vec()];
    for ((row, error), errors) in
        rows.iter().zip(&result.errors).zip(result.restart_errors.chunks(args.restarts))
    {
        let worst = errors.iter().copied().fold(0.0, f32::max);
        lines.push(vec![
            row.to_string(),
            format!("{error:.5}"),
            format!("{:.1}", error.sqrt() * levels),
            format!("{worst:.5}"),
        ]);
    }
    results.text(layout(&lines, lines.len()).trim_end())?;
    results.text(&format!(
        "{} images, on the right of each the image of its z, in {}",
        rows.len(),
        args.out.display()
    ))?;
    if args.json {
        let restart_errors: Vec<&[f32]> = result.restart_errors.chunks(args.restarts).collect();
        let result = json!({ "images": rows, "mean_squared_error": result.errors, "ends": restart_errors });
        results.json(&result)?;
    }
    Ok(Outcome::Done)
}
