//! `dcgan-explore invert`

use super::{Faults, Inputs, draw, open, read_rows, save_z};
use crate::cli::InvertArgs;
use dcgan_cli::{Logging, Outcome, Progress, print_result};
use dcgan_data::image_grid::{GAP, ImageGrid, Layout};
use dcgan_explore::invert::{Search, invert, total_steps};
use dcgan_features::report::layout;
use dcgan_model::pixels::PixelRange;
use serde_json::json;

/// Images at most, and starts of each.
const MAX: usize = 1000;

pub(crate) fn run(args: &InvertArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    faults.range("--n", args.n, 1..=MAX);
    faults.check(args.images.len() <= MAX, || format!("--images: more than {MAX} images"));
    faults.range("--restarts", args.restarts, 1..=MAX);
    faults.range("--steps", args.steps, 1..=100_000);
    faults.range("--learning-rate", args.learning_rate, 1e-6..=10.0);
    let inputs = Inputs::model(&args.model).data(&args.data);
    faults.outputs(&inputs, &[("--out", Some(&args.out)), ("--save-z", args.save_z.as_deref())]);
    faults.end()?;
    let opened = open(&args.model, &args.compute)?;
    let data = opened.data(&args.data)?;
    let rows =
        if args.images.is_empty() { (0..args.n.min(data.len())).collect() } else { args.images.clone() };
    let mut faults = Faults::default();
    for row in rows.iter().filter(|row| **row >= data.len()) {
        faults
            .check(false, || format!("--images {row}: the data has {} images, numbered from 0", data.len()));
    }
    faults.end()?;
    let images = read_rows(&data, &rows)?;
    let mut generator = opened.generator()?;
    let search = Search {
        starts: args.restarts,
        steps: args.steps,
        learning_rate: args.learning_rate,
        seed: args.seed,
    };
    let progress = Progress::new(logging, total_steps(rows.len(), &search) as u64, "steps");
    let mut done = |n: usize| progress.set(n as u64);
    let found = invert(&mut generator, opened.model(), &images, &search, &mut done)?;
    progress.finish();
    let drawn = draw(&mut generator, opened.model(), &found.z, logging)?;
    save_z(args.save_z.as_deref(), &found.z)?;
    let (given, drawn) =
        (ImageGrid::each(&images, opened.shape())?, ImageGrid::each(&drawn, opened.shape())?);
    let gap = ImageGrid::black(1, GAP / 2, opened.shape().channels);
    let pairs: Vec<ImageGrid> = given
        .iter()
        .zip(&drawn)
        .zip(&rows)
        .map(|((given, drawn), row)| {
            ImageGrid::beside(&[given.clone(), gap.clone(), drawn.clone()]).captioned(&row.to_string())
        })
        .collect();
    ImageGrid::grid(&pairs, Layout::square(pairs.len())).save(&args.out)?;

    let range = PixelRange::of(opened.model().config().generator.output);
    let levels = 255.0 / (range.to_f32(255) - range.to_f32(0));
    let mut lines =
        vec![["image", "mean squared error", "rms levels", "worst start"].map(str::to_owned).to_vec()];
    for ((row, error), ends) in rows.iter().zip(&found.errors).zip(found.ends.chunks(args.restarts)) {
        let worst = ends.iter().copied().fold(0.0, f32::max);
        lines.push(vec![
            row.to_string(),
            format!("{error:.5}"),
            format!("{:.1}", error.sqrt() * levels),
            format!("{worst:.5}"),
        ]);
    }
    print_result(layout(&lines, lines.len()).trim_end())?;
    print_result(&format!(
        "{} images beside what is drawn of their z in {}",
        rows.len(),
        args.out.display()
    ))?;
    if args.json {
        let ends: Vec<&[f32]> = found.ends.chunks(args.restarts).collect();
        let result = json!({ "images": rows, "mean_squared_error": found.errors, "ends": ends });
        print_result(&result.to_string())?;
    }
    Ok(Outcome::Done)
}
