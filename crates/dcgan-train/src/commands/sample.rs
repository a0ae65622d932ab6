//! `dcgan-train sample`.

use crate::cli::SampleArgs;
use dcgan_cli::{Outcome, UsageError, check_parent, print_result, set_threads};
use dcgan_data::image_grid::ImageGrid;
use dcgan_model::Generator;

/// Larger image grids make a PNG that no viewer opens.
const MAX_IMAGES: usize = 10_000;

pub(crate) fn run(args: &SampleArgs) -> anyhow::Result<Outcome> {
    if !(1..=MAX_IMAGES).contains(&args.n) {
        return Err(UsageError::one(format!("--n is {}, expected 1 to {MAX_IMAGES}", args.n)).into());
    }
    check_parent(&args.out)?;
    set_threads(args.threads)?;
    let device = args.device.open().map_err(UsageError::because)?;
    let networks =
        dcgan_model::networks(args.preset.as_deref(), args.config.as_deref()).map_err(UsageError::because)?;
    let opened = dcgan_model::open(&args.model, networks.as_ref()).map_err(UsageError::because)?;
    opened.notes.iter().for_each(|note| tracing::info!("{note}"));
    let model = opened.files.model;
    let Some(weights) = opened.files.generator else {
        return Err(UsageError::one(format!("{} has no generator", args.model.display())).into());
    };
    let mut generator = Generator::new(&model, &weights, &device)?;
    if generator.ensure_statistics()? {
        tracing::info!("the weights have no batch norm statistics: recalibrated from 4,096 z");
    }
    let images = generator.draw(args.seed, args.n)?;
    ImageGrid::square(&images, model.config().image_shape().into())?.save(&args.out)?;
    print_result(&format!("{} images in {}", args.n, args.out.display()))?;
    Ok(Outcome::Done)
}
