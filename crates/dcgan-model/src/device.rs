//! `--device auto|cpu|cuda:N|metal:N`.

use candle_core::Device;
use std::fmt;
use std::str::FromStr;

/// A device as the user names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// CUDA where this build has it and a card is there, else Metal, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The N-th CUDA card.
    Cuda(usize),
    /// The N-th Metal device.
    Metal(usize),
}

impl DeviceChoice {
    /// Opens the device. A device asked for by name is never replaced by another.
    ///
    /// # Errors
    /// What the driver says, or which build feature is missing.
    pub fn open(self) -> Result<Device, DeviceError> {
        let failed = |source| DeviceError::Open { device: self.to_string(), source };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !cfg!(feature = "cuda") => Err(DeviceError::NotBuilt { feature: "cuda" }),
            Self::Metal(_) if !cfg!(feature = "metal") => Err(DeviceError::NotBuilt { feature: "metal" }),
            Self::Cuda(n) => Device::new_cuda(n).map_err(failed),
            Self::Metal(n) => Device::new_metal(n).map_err(failed),
            Self::Auto => {
                let card = Device::cuda_if_available(0).ok().filter(Device::is_cuda);
                let metal = || Device::metal_if_available(0).ok().filter(Device::is_metal);
                Ok(card.or_else(metal).unwrap_or(Device::Cpu))
            }
        }
    }
}

/// Why a device could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// This program was built without it.
    #[error(
        "this program was built without {feature}; build it with `--features {feature}`, or use --device cpu"
    )]
    NotBuilt {
        /// The cargo feature.
        feature: &'static str,
    },
    /// The driver refused.
    #[error("device {device} cannot be opened: {source}")]
    Open {
        /// As the user named it.
        device: String,
        /// What the driver says.
        source: candle_core::Error,
    },
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = text.split_once(':').unwrap_or((text, "0"));
        let number: Option<usize> = number.parse().ok();
        match (kind, number, text.contains(':')) {
            ("auto", _, false) => Ok(Self::Auto),
            ("cpu", _, false) => Ok(Self::Cpu),
            ("cuda", Some(n), _) => Ok(Self::Cuda(n)),
            ("metal", Some(n), _) => Ok(Self::Metal(n)),
            _ => Err(format!("unknown device {text:?}, expected auto, cpu, cuda:N or metal:N")),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Metal(n) => write!(f, "metal:{n}"),
        }
    }
}
