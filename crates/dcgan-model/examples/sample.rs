//! Samples from a model: `cargo run --release -p dcgan-model --example sample [MODEL]`.
//!
//! MODEL is a model folder, a run folder or a checkpoint; without it the embedded digits are drawn as text.

#![allow(clippy::print_stdout, reason = "an example prints")]

use candle_core::Device;
use dcgan_model::{Generator, ModelFiles, open};
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let files = match std::env::args_os().nth(1) {
        Some(path) => open(&PathBuf::from(path), None)?.files,
        None => ModelFiles::embedded_digits()?,
    };
    let weights = files.generator.ok_or("the model has no generator")?;
    let mut generator = Generator::new(&files.model, &weights, &Device::Cpu)?;
    generator.ensure_statistics()?;
    let (height, width, channels) = files.model.config().image_shape();
    // Bytes (n, h, w, c): the same for the same model and seed.
    let images = generator.draw(7, 3)?;
    for image in images.chunks(height * width * channels) {
        for row in image.chunks(width * channels) {
            let shade = |pixel: &[u8]| [" ", ".", "+", "#"][usize::from(pixel[0]) / 64];
            println!("{}", row.chunks(channels).map(shade).collect::<String>().trim_end());
        }
    }
    Ok(())
}
