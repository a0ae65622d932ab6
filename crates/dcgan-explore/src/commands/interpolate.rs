//! `dcgan-explore interpolate`

use super::{Faults, InputFiles, classes, generate, latents, open_with_classes, save_z};
use crate::cli::InterpolateArgs;
use dcgan_cli::{Logging, Outcome};
use dcgan_data::ImageShape;
use dcgan_data::gif;
use dcgan_data::image_grid::{ImageGrid, Layout};
use dcgan_explore::interpolation::{Interpolation, closed_walk, walks};

/// Default number of rows: walks between 9 z, as in figure 4.
const ROWS: usize = 8;
/// Images of an animation are enlarged to at least this many pixels a side.
const GIF_SIDE: usize = 128;

pub(crate) fn run(args: &InterpolateArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    faults.check_range("--steps", args.steps, 2..=1000);
    faults.check_range("--rows", args.rows.unwrap_or(ROWS), 1..=1000);
    faults.check_range("--rate", args.rate, 1..=50);
    let outputs = [
        ("--out", Some(args.out.as_path())),
        ("--save-z", args.save_z.as_deref()),
        ("--gif", args.gif.as_deref()),
    ];
    let results =
        faults.check_outputs((logging, false), &InputFiles::model(&args.model).z("--z", &args.z), &outputs);
    let model = open_with_classes(&args.model, (&args.class, &[&args.z]), &args.compute, &mut faults)?;
    let default = args.rows.unwrap_or(ROWS).saturating_add(1);
    let classes = classes(model.as_ref(), &args.class, &mut faults);
    let z = latents(model.as_ref(), &args.z, (args.seed, default, classes), &mut faults);
    if let Some((model, z)) = model.as_ref().zip(z.as_ref()) {
        model.check_generator(&mut faults);
        let (n, rows) = (z.len(), z.len() - 1);
        faults.check(rows > 0, || "--z: found 1 z, expected at least 2".to_owned());
        faults.check(args.rows.is_none_or(|given| given == rows), || {
            format!("--rows {}: expected {rows} for {n} z; omit --rows", args.rows.unwrap_or(rows))
        });
        faults.check_bytes("--rows x --steps", rows.saturating_mul(args.steps), model.sample_bytes());
        if args.gif.is_some() {
            let factor = gif_factor(model.shape());
            let bytes = model.shape().bytes() * factor * factor;
            faults.check_bytes("--gif: frames, --rows x --steps", n.saturating_mul(args.steps), bytes);
        }
    }
    let (opened, z) = faults.into_result(model.zip(z))?;
    let rows = z.len() - 1;
    let interpolation = match (args.spherical, args.linear) {
        (true, _) => Interpolation::Spherical,
        (_, true) => Interpolation::Linear,
        _ => Interpolation::of(opened.latent().distribution),
    };
    let mut generator = opened.generator()?;
    let walks = walks(&z, args.steps, interpolation)?;
    let bytes = generate(&mut generator, &walks, logging)?;
    let layout = Layout { rows, columns: args.steps };
    let animation = match &args.gif {
        None => None,
        Some(path) => {
            let frames = generate(&mut generator, &closed_walk(&z, args.steps, interpolation)?, logging)?;
            let factor = gif_factor(opened.shape());
            let frames = ImageGrid::split_batch(&frames, opened.shape())?;
            let frames: Vec<ImageGrid> = frames.iter().map(|frame| frame.enlarged(factor)).collect();
            Some((path, frames.len(), gif::encode(&frames, args.rate)?))
        }
    };
    save_z(args.save_z.as_deref(), &walks)?;
    ImageGrid::with_layout(&bytes, opened.shape(), layout)?.save(&args.out)?;
    results.text(&format!("{rows} rows of {} images in {}", args.steps, args.out.display()))?;
    if let Some((path, frames, bytes)) = animation {
        gif::save(path, &bytes)?;
        results.text(&format!("{frames} frames in {}", path.display()))?;
    }
    Ok(Outcome::Done)
}

/// The factor by which frames of an animation are enlarged.
fn gif_factor(shape: ImageShape) -> usize {
    GIF_SIDE.div_ceil(shape.height.min(shape.width).max(1))
}
