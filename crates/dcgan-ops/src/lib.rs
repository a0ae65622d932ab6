//! Training operations on candle: convolutions, batch norm with its activation, losses, Adam.
//!
//! A network is a list of [`Layer`]s (data). A [`Network`] joins three things:
//!
//! - an [`Executor`], which only computes: forward, backward, forward hooks;
//! - [`Parameters`]: values, gradients, Adam's moments and the EMA in flat buffers with one table of what lies where;
//! - the running statistics of batch norm.
//!
//! There are three executors. [`CpuExecutor`] runs on its own buffers with hand-written backward passes on all cores,
//! and gives the same bytes whatever the number of threads. `CudaExecutor` (feature `cuda`) does the same on an NVIDIA
//! GPU. [`CandleExecutor`] goes through candle's operations and autograd: any device, and the plain reference in tests.
//! [`executor`] chooses. Batches are [`Maps`] in host memory,
//! in buffers of a [`BufferPool`]. Processes that train together are a [`ProcessGroup`].
//!
//! This crate is independent of DCGANs.
//!
//! ```
//! use dcgan_ops::{Activation, ExecutorOptions, Input, Keep, Kind, Layer, MapShape, Maps, Network, WithRespectTo};
//!
//! // A 3x3 convolution from one channel to two.
//! let (input, output) = (MapShape::new(1, 4, 4), MapShape::new(2, 4, 4));
//! let layer = Layer {
//!     kernel: (3, 3),
//!     padding: (1, 1),
//!     activation: Activation::Relu,
//!     ..Layer::plain("blocks.0", Kind::Conv, input, output)
//! };
//! let mut network = Network::new(vec![layer], &ExecutorOptions::new(&candle_core::Device::Cpu))?;
//! let x = Maps::new(vec![1.0; 2 * 16], 2, input)?;
//! let y = network.train(&x, Keep::Tape)?.output;
//! let grad_x = network.backward(&y, WithRespectTo::Both)?;
//! assert_eq!(grad_x.unwrap().shape(), x.shape());
//! # Ok::<(), dcgan_ops::OpsError>(())
//! ```

mod adam;
mod candle_executor;
mod candle_layers;
mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod device;
mod error;
mod executor;
pub mod group;
mod in_turn;
mod layer;
mod loss;
mod maps;
mod network;
mod parameters;
mod pool;
mod resident;
mod statistics;

pub use adam::{AdamConfig, AdamMoments, AdamState};
pub use candle_executor::CandleExecutor;
pub use candle_layers::{CandleForward, CandleLayers};
pub use cpu::kernels::Isa;
pub use cpu::{CpuExecutor, PerShardExecutor, in_pool};
pub use dcgan_base::Precision;
pub use device::{Device, DeviceChoice, DeviceError, executor};
pub use error::{OpsError, Result};
pub use executor::{
    BatchNormOver, ConvolutionTime, Executor, ExecutorOptions, Forward, ForwardHook, Input, Keep,
    LayerTiming, Mode, Tensors, Timing, WithRespectTo,
};
pub use group::{ProcessGroup, SingleProcess};
pub use in_turn::{Receivers, Sink, fail_in_turn, in_turn};
pub use layer::{Activation, Initial, Kind, Layer, LayerTensor, MapShape, Norm, NormAxes, Resample, Role};
pub use loss::{Bce, CrossEntropy, bce_with_logits, cross_entropy};
pub use maps::Maps;
pub use network::{AverageStatistics, Network};
pub use parameters::{Entry, Layout, ParameterTable, ParameterValues, Parameters};
pub use pool::{BufferPool, PooledBuffer};
pub use resident::{
    GradientValue, ImageSource, LossValue, ResidentConfig, ResidentInput, ResidentOutput, ResidentTraining,
    Updates, resident_training,
};
pub use statistics::{NormStatistics, Statistics};
