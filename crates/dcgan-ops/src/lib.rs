//! Training operations for candle: convolutions, batch-norm with its activation, losses, Adam.
//!
//! A network is a list of [`Layer`]s (data). An [`Executor`] holds one network's parameters, gradients and
//! optimizer state on one device and runs the list forwards and backwards. There are two:
//!
//! - [`CandleExecutor`] goes through candle's autograd: any device, and the plain reference in tests;
//! - [`CpuExecutor`] runs on its own buffers with hand-written backward passes on all cores, and gives the
//!   same bytes whatever the number of threads.
//!
//! [`executor`] chooses. Nothing here knows what a DCGAN is.

mod adam;
mod candle_executor;
mod cpu;
mod error;
mod executor;
mod layer;
mod loss;
mod spare;
mod statistics;

pub use adam::{AdamConfig, AdamState, Moments};
pub use candle_executor::CandleExecutor;
pub use cpu::kernels::Isa;
pub use cpu::matmul::{Element as MatrixElement, View as MatrixView, matmul};
pub use cpu::{CpuExecutor, in_pool};
pub use error::{OpsError, Result};
pub use executor::{
    Executor, Forward, ForwardHook, Keep, Mode, Precision, Tensors, Timing, Want, executor, executor_in,
};
pub use layer::{Activation, Kind, Layer, MapShape, Norm, NormAxes, ParameterSpec, Role};
pub use loss::{Bce, CrossEntropy, bce_with_logits, cross_entropy};
pub use spare::{free_spare_values, give_back, spare_values};
pub use statistics::{NormStatistics, Statistics};
