//! `dcgan-explore turn`

use super::{Faults, Inputs, draw, open, save_z};
use crate::cli::TurnArgs;
use dcgan_cli::{Logging, Outcome, UsageError, print_result};
use dcgan_data::image_grid::{ImageGrid, Layout, MAX_IMAGES};
use dcgan_explore::arithmetic::turned;
use dcgan_explore::latent::{Latents, joined};

/// Samples turned where none are named.
const SAMPLES: usize = 4;

pub(crate) fn run(args: &TurnArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    faults.range("--steps", args.steps, 2..=1000);
    faults.range("--strength", args.strength, -100.0..=100.0);
    let inputs = Inputs::model(&args.model);
    let inputs = inputs.z("--left", &args.left).z("--right", &args.right).z("--apply", &args.apply);
    faults.outputs(&inputs, &[("--out", Some(&args.out)), ("--save-z", args.save_z.as_deref())]);
    faults.end()?;
    let opened = open(&args.model, &args.compute)?;
    let mut faults = Faults::default();
    let left = opened.concepts("--left", &args.left, &mut faults);
    let right = opened.concepts("--right", &args.right, &mut faults);
    let apply = opened.concepts("--apply", &args.apply, &mut faults);
    faults.end()?;
    let samples = match apply.as_slice() {
        [] => Latents::draw(args.seed, SAMPLES, opened.latent())?,
        sets => joined(sets)?,
    };
    let (left, right) = (joined(&left)?, joined(&right)?);
    if samples.len() * args.steps > MAX_IMAGES {
        let (n, steps) = (samples.len(), args.steps);
        let fault = format!("{n} samples in {steps} steps, expected {MAX_IMAGES} images at most");
        return Err(UsageError::one(fault).into());
    }
    let turned = turned(&samples, (&left, &right), args.steps, args.strength).map_err(UsageError::because)?;
    let mut generator = opened.generator()?;
    let bytes = draw(&mut generator, opened.model(), &turned, logging)?;
    save_z(args.save_z.as_deref(), &turned)?;
    let layout = Layout { rows: samples.len(), columns: args.steps };
    ImageGrid::of(&bytes, opened.shape(), layout)?.save(&args.out)?;
    print_result(&format!(
        "{} samples turned along mean of {} - mean of {} in {}",
        samples.len(),
        left.len(),
        right.len(),
        args.out.display()
    ))?;
    Ok(Outcome::Done)
}
