//! Imports PyTorch files: `cargo run --release -p dcgan-model --example import_pth FILE.pth...`.
//!
//! Lists what was read and inferred, and the mean of a few samples. Nothing in a file is executed. Without a file it
//! writes and reads one with the names of pytorch/examples.

#![allow(clippy::print_stdout, reason = "an example prints")]

use candle_core::Device;
use dcgan_model::import::{self, ImportOptions, NetworkKind, to_pytorch_names};
use dcgan_model::{Generator, Preset};
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() {
        let path = std::env::temp_dir().join(format!("netG-{}.safetensors", std::process::id()));
        let weights = Preset::named("pytorch32")?.model()?.initial_generator(0, 0.02, 0.02);
        to_pytorch_names(NetworkKind::Generator, &weights)?.write(&path)?;
        files.push(path);
    }
    let (model, imported) = import::read_model(&files, &ImportOptions::default())?;
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
