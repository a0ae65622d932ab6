//! Devices by name, the values of `--device`: `auto`, `cpu`, `cuda:N`, `metal:N`.

use candle_core::Device;
use std::fmt;
use std::str::FromStr;

/// A device by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first CUDA GPU if this build supports CUDA and there is one, else the first Metal GPU, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA GPU of this number, from 0.
    Cuda(usize),
    /// The Metal GPU of this number, from 0.
    Metal(usize),
}

impl DeviceChoice {
    /// Opens the device. Only `auto` falls back to another device.
    ///
    /// # Errors
    /// A missing build feature, or the error of the driver.
    pub fn open(self) -> Result<Device, DeviceError> {
        let open_error = |source| DeviceError::Open { device: self.to_string(), source };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !cfg!(feature = "cuda") => Err(DeviceError::NotBuilt { feature: "cuda" }),
            Self::Metal(_) if !cfg!(feature = "metal") => Err(DeviceError::NotBuilt { feature: "metal" }),
            Self::Cuda(n) => Device::new_cuda(n).map_err(open_error),
            Self::Metal(n) => Device::new_metal(n).map_err(open_error),
            Self::Auto => {
                let cuda = Device::cuda_if_available(0).ok().filter(Device::is_cuda);
                let metal = || Device::metal_if_available(0).ok().filter(Device::is_metal);
                Ok(cuda.or_else(metal).unwrap_or(Device::Cpu))
            }
        }
    }
}

/// Why a device was not opened.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// This program was built without support for the device.
    #[error(
        "this program was built without {feature}; build it with `--features {feature}`, or use --device cpu"
    )]
    NotBuilt {
        /// The cargo feature.
        feature: &'static str,
    },
    /// The driver failed.
    #[error("failed to open device {device}: {source}")]
    Open {
        /// Its name.
        device: String,
        /// The error of the driver.
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
