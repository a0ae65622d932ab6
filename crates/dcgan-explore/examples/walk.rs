//! A walk through the latent space, as a PNG: four rows between five random z.
//!
//! `cargo run --release -p dcgan-explore --example walk -- [MODEL] [OUT.png]` walks through the embedded digits model,
//! or through a model folder, a run folder or a checkpoint, and writes `walk.png` by default.

use candle_core::Device;
use dcgan_data::image_grid::{ImageGrid, Layout};
use dcgan_explore::interpolation::{Interpolation, walks};
use dcgan_explore::latent::LatentSet;
use dcgan_model::{Classes, Generator, ModelFiles, open};
use std::error::Error;
use std::path::PathBuf;

/// Walks, one per row.
const ROWS: usize = 4;
/// Images per walk, including both ends.
const STEPS: usize = 8;
/// Seed of the z to walk between.
const SEED: u64 = 0;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (model, out) = (args.next(), args.next());
    let ModelFiles { model, generator, .. } = match model {
        Some(path) => open(&path, None)?.files,
        None => ModelFiles::embedded_digits()?,
    };
    let weights = generator.ok_or("the model has no generator")?;
    let mut generator = Generator::new(&model, &weights, &Device::Cpu)?;
    generator.ensure_statistics()?;

    let config = model.config();
    let ends = LatentSet::draw(SEED, ROWS + 1, config, Classes::InTurn)?;
    // Spherical for normal z, linear for uniform z.
    let interpolation = Interpolation::of(config.latent.distribution);
    let walk = walks(&ends, STEPS, interpolation)?;

    let images = walk.images(&mut generator, &mut |_| ())?;
    let layout = Layout { rows: ROWS, columns: STEPS };
    let grid = ImageGrid::with_layout(&images, config.image_shape().into(), layout)?;
    grid.save(&out.unwrap_or_else(|| "walk.png".into()))?;
    Ok(())
}
