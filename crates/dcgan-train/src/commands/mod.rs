//! What each command does.

pub(crate) mod bench;
pub(crate) mod convert;
pub(crate) mod presets;
pub(crate) mod sample;
pub(crate) mod train;

use candle_core::Device;
use dcgan_cli::UsageError;
use dcgan_ops::{Isa, Precision};

/// Refuses a precision that the device does not compute in, and says where it is slow.
fn check_precision(precision: Precision, device: &Device) -> Result<(), UsageError> {
    if precision == Precision::Bf16 && !device.is_cpu() {
        return Err(UsageError::one("bf16 is computed on the CPU only: use --dtype f32, or --device cpu"));
    }
    if precision == Precision::Bf16 && !Isa::best().multiplies_bf16() {
        tracing::warn!("this CPU does not multiply bf16 (AVX512-BF16): --dtype f32 is faster here");
    }
    Ok(())
}
