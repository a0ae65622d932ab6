//! D of a model folder inside a candle program: `cargo run --release -p dcgan-model --example candle [MODEL]`.
//!
//! Loads the discriminator through a `VarBuilder` and changes a grey image along the gradient of D's logit.

#![allow(clippy::print_stdout, reason = "an example prints")]

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{ModuleT, VarBuilder};
use dcgan_model::{ModelFiles, weights};
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::Cpu;
    let (model, bytes) = match std::env::args_os().nth(1).map(PathBuf::from) {
        Some(folder) => {
            (ModelFiles::read(&folder)?.model, std::fs::read(folder.join("discriminator.safetensors"))?)
        }
        None => {
            let files = ModelFiles::embedded_digits()?;
            let discriminator = files.discriminator.ok_or("the model has no discriminator")?;
            (files.model, weights::to_safetensors(&discriminator, weights::Precision::F32)?)
        }
    };
    let vb = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &device)?;
    let discriminator = model.candle_discriminator(&vb)?;

    let (height, width, channels) = model.config().image_shape();
    let image = Var::from_tensor(&Tensor::zeros((1, channels, height, width), DType::F32, &device)?)?;
    for step in 0..=40 {
        let logit = discriminator.forward_t(&image, false)?.sum_all()?;
        if step % 10 == 0 {
            println!("step {step:2}: D's logit is {:.3}", logit.to_scalar::<f32>()?);
        }
        let gradients = logit.backward()?;
        let gradient = gradients.get(&image).ok_or("no gradient")?;
        image.set(&(image.as_tensor() + (gradient * 0.05)?)?.clamp(-1.0, 1.0)?)?;
    }
    Ok(())
}
