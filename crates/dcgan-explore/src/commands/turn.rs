//! `dcgan-explore turn`

use super::{Faults, InputFiles, classes, generate, latent_sets, open_with_classes, save_z};
use crate::cli::TurnArgs;
use dcgan_cli::{Logging, Outcome, UsageError};
use dcgan_data::image_grid::{ImageGrid, Layout};
use dcgan_explore::arithmetic::turn;
use dcgan_explore::latent::{LatentSet, concat};

/// Default number of samples.
const SAMPLES: usize = 4;

pub(crate) fn run(args: &TurnArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    faults.check_range("--steps", args.steps, 2..=1000);
    faults.check_range("--strength", args.strength, -100.0..=100.0);
    let inputs = InputFiles::model(&args.model);
    let inputs = inputs.z("--left", &args.left).z("--right", &args.right).z("--apply", &args.apply);
    let results = faults.check_outputs(
        (logging, false),
        &inputs,
        &[("--out", Some(&args.out)), ("--save-z", args.save_z.as_deref())],
    );
    let model = open_with_classes(
        &args.model,
        (&args.class, &[&args.left, &args.right, &args.apply]),
        &args.compute,
        &mut faults,
    )?;
    let classes = classes(model.as_ref(), &args.class, &mut faults);
    let left = latent_sets(model.as_ref(), "--left", &args.left, classes, &mut faults);
    let right = latent_sets(model.as_ref(), "--right", &args.right, classes, &mut faults);
    let apply = latent_sets(model.as_ref(), "--apply", &args.apply, classes, &mut faults);
    if let Some(model) = &model {
        model.check_generator(&mut faults);
        let samples = if args.apply.is_empty() { SAMPLES } else { apply.iter().map(LatentSet::len).sum() };
        let images = samples.saturating_mul(args.steps);
        faults.check_bytes("samples x --steps", images, model.sample_bytes());
    }
    let opened = faults.into_result(model)?;
    let samples = match apply.as_slice() {
        [] => LatentSet::draw(args.seed, SAMPLES, opened.model().config(), classes)?,
        sets => concat(sets)?,
    };
    let (left, right) = (concat(&left)?, concat(&right)?);
    let turned = turn(&samples, (&left, &right), args.steps, args.strength).map_err(UsageError::because)?;
    let mut generator = opened.generator()?;
    let bytes = generate(&mut generator, &turned, logging)?;
    save_z(args.save_z.as_deref(), &turned)?;
    let layout = Layout { rows: samples.len(), columns: args.steps };
    ImageGrid::with_layout(&bytes, opened.shape(), layout)?.save(&args.out)?;
    results.text(&format!(
        "{} samples turned along mean of {} - mean of {} in {}",
        samples.len(),
        left.len(),
        right.len(),
        args.out.display()
    ))?;
    Ok(Outcome::Done)
}
