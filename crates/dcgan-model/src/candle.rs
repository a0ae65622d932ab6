//! Trained networks for candle programs: through [`candle_nn::VarBuilder`], as [`candle_nn::ModuleT`].
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{ModuleT, VarBuilder};
//! use dcgan_model::{ModelFiles, weights};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // D of a model folder. Its file is MODEL/discriminator.safetensors; here it is that of the embedded model.
//! let files = ModelFiles::embedded_digits()?;
//! let bytes = weights::to_safetensors(files.discriminator.as_ref().unwrap(), weights::Precision::F32)?;
//! let vb = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu)?;
//! let discriminator = files.model.candle_discriminator(&vb)?;
//!
//! // Logits of two grey images, in evaluation.
//! let images = Tensor::zeros((2, 1, 28, 28), DType::F32, &Device::Cpu)?;
//! let logits = discriminator.forward_t(&images, false)?;
//! assert_eq!(logits.dims(), [2, 1, 1, 1]);
//! # Ok(())
//! # }
//! ```

use crate::Model;
use candle_nn::VarBuilder;
use dcgan_ops::{CandleLayers, OpsError};

impl Model {
    /// G with the tensors of `vb`, whose names are those of `generator.safetensors` in a model folder. Maps z `(n, z)`
    /// or `(n, z, 1, 1)` to images `(n, c, h, w)`.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape.
    pub fn candle_generator(&self, vb: &VarBuilder<'_>) -> Result<CandleLayers, OpsError> {
        CandleLayers::load(self.generator_layers().to_vec(), vb)
    }

    /// D with the tensors of `vb`, whose names are those of `discriminator.safetensors` in a model folder. Maps images
    /// `(n, c, h, w)` to logits `(n, 1, 1, 1)`: real above zero.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape.
    pub fn candle_discriminator(&self, vb: &VarBuilder<'_>) -> Result<CandleLayers, OpsError> {
        CandleLayers::load(self.discriminator_layers().to_vec(), vb)
    }
}
