//! Devices: their names (the values of `--device`: `auto`, `cpu`, `cuda:N`, `metal:N`), and the executor of each.

use crate::{
    BatchNormOver, CandleExecutor, CpuExecutor, Executor, ExecutorOptions, Isa, Layer, OpsError,
    PerShardExecutor, Precision, Result,
};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Where networks are computed.
#[derive(Clone, Debug)]
pub enum Device {
    /// All cores of the CPU: [`CpuExecutor`].
    Cpu,
    /// A GPU of candle: [`CandleExecutor`].
    Candle(candle_core::Device),
    /// An NVIDIA GPU: [`CudaExecutor`](crate::cuda::CudaExecutor).
    #[cfg(feature = "cuda")]
    Cuda(Arc<crate::cuda::Gpu>),
}

impl Device {
    /// Whether its executor computes in bf16.
    pub fn computes_bf16(&self) -> bool {
        !matches!(self, Self::Candle(_))
    }

    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu)
    }

    /// Where candle's tensors that a network on this device reads are created.
    pub fn for_tensors(&self) -> &candle_core::Device {
        match self {
            Self::Cpu => &candle_core::Device::Cpu,
            Self::Candle(device) => device,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => &candle_core::Device::Cpu,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Candle(device) => write!(f, "{:?} of candle", device.location()),
            #[cfg(feature = "cuda")]
            Self::Cuda(gpu) => write!(f, "{gpu:?}"),
        }
    }
}

impl From<candle_core::Device> for Device {
    fn from(device: candle_core::Device) -> Self {
        if device.is_cpu() { Self::Cpu } else { Self::Candle(device) }
    }
}

impl From<&candle_core::Device> for Device {
    fn from(device: &candle_core::Device) -> Self {
        device.clone().into()
    }
}

impl From<&Device> for Device {
    fn from(device: &Device) -> Self {
        device.clone()
    }
}

/// The executor for `layers` on the device of `options`.
///
/// # Errors
/// [`OpsError::Precision`] for bf16 on a device of candle; [`OpsError::Group`] for several processes or shards on
/// another device than the CPU; memory.
pub fn executor(layers: Vec<Layer>, options: &ExecutorOptions) -> Result<Box<dyn Executor>> {
    let is_shared = options.shards > 1 || options.group.size() > 1;
    // Of several processes with a GPU each, passes of an executor are those of one alone; steps are resident.
    #[cfg(feature = "cuda")]
    let is_shared = is_shared && !(options.shards == 1 && matches!(options.device, Device::Cuda(_)));
    Ok(match (&options.device, options.precision) {
        (Device::Cpu, precision) if is_shared && options.batch_norm == BatchNormOver::Shard => {
            let part = (Arc::clone(&options.group), options.shards);
            Box::new(PerShardExecutor::new(&layers, precision, part))
        }
        (Device::Cpu, precision) => {
            let executor = CpuExecutor::with(layers, Isa::best(), precision);
            Box::new(executor.in_group(Arc::clone(&options.group)).in_shards(options.shards))
        }
        _ if is_shared => return Err(OpsError::Group),
        (Device::Candle(device), Precision::F32) => Box::new(CandleExecutor::new(layers, device)),
        (Device::Candle(_), Precision::Bf16) => return Err(OpsError::Precision),
        #[cfg(feature = "cuda")]
        (Device::Cuda(gpu), precision) => {
            Box::new(crate::cuda::CudaExecutor::new(layers, Arc::clone(gpu), precision))
        }
    })
}

/// A device by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first CUDA GPU if this build supports CUDA and there is one, else the first Metal GPU, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA GPU with this index, from 0.
    Cuda(usize),
    /// The Metal GPU with this index, from 0.
    Metal(usize),
}

impl DeviceChoice {
    /// The device of process `place.0` of the `place.1` of a host, which have a GPU each: from the one named on, or,
    /// with [`DeviceChoice::Auto`], from the first on if there are enough, and else the CPU for all.
    pub fn for_process(self, (index, count): (usize, usize)) -> Self {
        match self {
            Self::Auto if count > 1 => {
                #[cfg(feature = "cuda")]
                if crate::cuda::Gpu::count() >= count {
                    return Self::Cuda(index);
                }
                Self::Cpu
            }
            Self::Cuda(first) => Self::Cuda(first + index),
            other => other,
        }
    }

    /// Opens the device. Only `auto` falls back to another device.
    ///
    /// # Errors
    /// A missing build feature, or the error of the driver.
    pub fn open(self) -> std::result::Result<Device, DeviceError> {
        use candle_core::Device as Candle;
        let open_error = |source| DeviceError::Open { device: self.to_string(), source };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            #[cfg(feature = "cuda")]
            Self::Cuda(n) => Ok(Device::Cuda(Arc::new(crate::cuda::Gpu::open(n)?))),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) if !cfg!(feature = "candle-cuda") => Err(DeviceError::NotBuilt { feature: "cuda" }),
            Self::Metal(_) if !cfg!(feature = "metal") => Err(DeviceError::NotBuilt { feature: "metal" }),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(n) => Ok(Candle::new_cuda(n).map_err(open_error)?.into()),
            Self::Metal(n) => Ok(Candle::new_metal(n).map_err(open_error)?.into()),
            Self::Auto => {
                #[cfg(feature = "cuda")]
                if crate::cuda::Gpu::has_driver()
                    && let Ok(gpu) = crate::cuda::Gpu::open(0)
                {
                    return Ok(Device::Cuda(Arc::new(gpu)));
                }
                let cuda = Candle::cuda_if_available(0).ok().filter(Candle::is_cuda);
                let metal = || Candle::metal_if_available(0).ok().filter(Candle::is_metal);
                Ok(cuda.or_else(metal).map_or(Device::Cpu, Device::from))
            }
        }
    }

    /// What `auto` chose and why, for the log; `None` for a choice by name.
    pub fn explain(self, device: &Device) -> Option<String> {
        if self != Self::Auto {
            return None;
        }
        match device {
            #[cfg(feature = "cuda")]
            Device::Cpu if crate::cuda::Gpu::has_driver() => {
                let reason =
                    crate::cuda::Gpu::open(0).err().map_or_else(String::new, |error| error.to_string());
                Some(format!("device: cpu, not cuda:0: {reason}"))
            }
            Device::Cpu => None,
            device => Some(format!("device: {device}")),
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
    /// An NVIDIA GPU that cannot be used.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] crate::cuda::CudaError),
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

    fn from_str(text: &str) -> std::result::Result<Self, String> {
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
