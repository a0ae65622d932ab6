//! `dcgan-train sample`

use super::{check_parent, set_threads, usage};
use crate::cli::SampleArgs;
use dcgan_cli::{Outcome, UsageError, print_result};
use dcgan_model::Generator;
use dcgan_train::{models, sample::sample_grid};

/// More pictures than this make a PNG that no viewer opens.
const MAX_PICTURES: usize = 10_000;

pub(crate) fn run(args: &SampleArgs) -> anyhow::Result<Outcome> {
    if !(1..=MAX_PICTURES).contains(&args.n) {
        return Err(UsageError::one(format!("--n is {}, expected 1 to {MAX_PICTURES}", args.n)).into());
    }
    check_parent(&args.out)?;
    set_threads(args.threads)?;
    let device = args.device.open().map_err(usage)?;
    let networks = models::networks(args.preset.as_deref(), args.config.as_deref()).map_err(usage)?;
    let opened = models::open(&args.model, networks.as_ref()).map_err(usage)?;
    opened.notes.iter().for_each(|note| tracing::info!("{note}"));
    let model = opened.files.model;
    let Some(weights) = opened.files.generator else {
        return Err(UsageError::one(format!("{} has no generator", args.model.display())).into());
    };
    let mut generator = Generator::new(&model, &weights, &device)?;
    if models::ensure_statistics(&mut generator, &model, &device)? {
        tracing::info!("the weights came without batch-norm statistics: re-estimated from 4,096 z");
    }
    sample_grid(&mut generator, &model, args.seed, args.n)?.save(&args.out)?;
    print_result(&format!("{} pictures in {}", args.n, args.out.display()))?;
    Ok(Outcome::Done)
}
