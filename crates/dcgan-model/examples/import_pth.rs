//! Imports a PyTorch file: `cargo run --release -p dcgan-model --example import_pth FILE.pth [PRESET]`.
//!
//! Lists what was read and the mean of a few samples. Nothing in the file is executed. Without a file it writes and
//! reads one with the names of pytorch/examples.

#![allow(clippy::print_stdout, reason = "an example prints")]

use candle_core::Device;
use dcgan_model::import::{self, Expected, NetworkKind, to_pytorch_names};
use dcgan_model::{Generator, Preset};
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().map(PathBuf::from);
    let model = Preset::named(&arguments.next().unwrap_or_else(|| "pytorch32".into()))?.model()?;
    let path = match file {
        Some(path) => path,
        None => {
            let path = std::env::temp_dir().join(format!("netG-{}.safetensors", std::process::id()));
            let weights = model.initial_generator(0, 0.02, 0.02);
            to_pytorch_names(NetworkKind::Generator, &weights)?.write(&path)?;
            path
        }
    };
    let expected =
        Expected { generator: model.generator_tensors(), discriminator: model.discriminator_tensors() };
    let imported = import::read(&path, &expected)?;
    imported.notes.iter().for_each(|note| println!("{note}"));
    if let Some(weights) = imported.generator {
        let mut generator = Generator::new(&model, &weights, &Device::Cpu)?;
        generator.ensure_statistics()?;
        let images = generator.draw(0, 4)?;
        let mean = images.iter().map(|&pixel| f64::from(pixel)).sum::<f64>() / images.len() as f64;
        println!("4 samples of {} bytes, mean level {mean:.1}", images.len() / 4);
    }
    Ok(())
}
