//! `dcgan-explore turn`

use super::{Faults, InputFiles, generate, open, save_z};
use crate::cli::TurnArgs;
use dcgan_cli::{Logging, Outcome, UsageError, print_result};
use dcgan_data::image_grid::{ImageGrid, Layout, MAX_IMAGES};
use dcgan_explore::arithmetic::turn;
use dcgan_explore::latent::{Latents, concat};

/// Default number of samples.
const SAMPLES: usize = 4;

pub(crate) fn run(args: &TurnArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    faults.check_range("--steps", args.steps, 2..=1000);
    faults.check_range("--strength", args.strength, -100.0..=100.0);
    let inputs = InputFiles::model(&args.model);
    let inputs = inputs.z("--left", &args.left).z("--right", &args.right).z("--apply", &args.apply);
    faults.check_outputs(&inputs, &[("--out", Some(&args.out)), ("--save-z", args.save_z.as_deref())]);
    faults.into_result()?;
    let opened = open(&args.model, &args.compute)?;
    let mut faults = Faults::default();
    let left = opened.latent_sets("--left", &args.left, &mut faults);
    let right = opened.latent_sets("--right", &args.right, &mut faults);
    let apply = opened.latent_sets("--apply", &args.apply, &mut faults);
    faults.into_result()?;
    let samples = match apply.as_slice() {
        [] => Latents::draw(args.seed, SAMPLES, opened.latent())?,
        sets => concat(sets)?,
    };
    let (left, right) = (concat(&left)?, concat(&right)?);
    if samples.len() * args.steps > MAX_IMAGES {
        let (n, steps) = (samples.len(), args.steps);
        let fault = format!("{n} samples in {steps} steps, expected {MAX_IMAGES} images at most");
        return Err(UsageError::one(fault).into());
    }
    let turned = turn(&samples, (&left, &right), args.steps, args.strength).map_err(UsageError::because)?;
    let mut generator = opened.generator()?;
    let bytes = generate(&mut generator, opened.model(), &turned, logging)?;
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
