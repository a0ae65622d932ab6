//! The seam between a network as data and what computes it.

use crate::spare::check_held;
use crate::{
    AdamConfig, AdamState, CandleExecutor, CpuExecutor, Isa, Layer, MapShape, OpsError, Result, Statistics,
};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Tensors by name, in the order of their names.
pub type Tensors = BTreeMap<String, Tensor>;

/// What products are computed with. Parameters, optimizer state, sums and what stands between layers are f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Factors rounded to bf16 (8 bits of mantissa), products summed in f32: faster where the processor multiplies bf16
    /// ([`crate::Isa::multiplies_bf16`]), slower elsewhere.
    Bf16,
}

impl Precision {
    /// `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// How batch-norm normalizes.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    /// By the minibatch's own statistics, which the pass returns.
    Train,
    /// By the given statistics.
    Eval(&'a Statistics),
}

/// What a forward pass keeps beside its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// What `backward` needs; it replaces the tape of any pass before.
    Tape,
    /// The activation of every layer, returned.
    Activations,
}

/// Which gradients a backward pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Those of the parameters, added to what is there.
    Parameters,
    /// That of the input alone: D in the generator's step.
    Input,
    /// Both.
    Both,
}

impl Want {
    pub(crate) fn parameters(self) -> bool {
        self != Want::Input
    }
    pub(crate) fn input(self) -> bool {
        self != Want::Parameters
    }
}

/// What is shown every activation of a pass: the number of the layer, that of the image, and its values `(h, w, c)`. It is
/// called from several threads, in any order, once for every layer and image, and must not start parallel loops of its own.
pub type ForwardHook<'a> = &'a (dyn Fn(usize, usize, &[f32]) + Sync);

/// What a forward pass gives.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The last layer's activation, `(n, c, h, w)`; the memory behind it may be channels-last.
    pub output: Tensor,
    /// Minibatch statistics of every batch-norm layer ([`Mode::Train`]); empty in [`Mode::Eval`].
    pub statistics: Statistics,
    /// With [`Keep::Activations`] every layer's activation in order, `(n, c, h, w)`; else empty.
    pub activations: Vec<Tensor>,
}

/// Time that one layer has taken since the executor was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// In forward passes.
    pub forward: Duration,
    /// In backward passes.
    pub backward: Duration,
}

/// One network on one device: parameters, gradients, optimizer state and the buffers to run it.
///
/// A forward pass changes nothing that a later pass could see: statistics are returned, not absorbed.
pub trait Executor: Send + std::fmt::Debug {
    /// The network.
    fn layers(&self) -> &[Layer];

    /// Where its tensors live.
    fn device(&self) -> &Device;

    /// Runs the layers on `x`.
    ///
    /// # Shapes
    /// - `x`: `(n, c, h, w)` of the first layer's input
    ///
    /// # Errors
    /// A shape that does not fit, statistics that are missing, memory.
    fn forward(&mut self, x: &Tensor, mode: Mode<'_>, keep: Keep) -> Result<Forward>;

    /// Runs the layers on `x` in evaluation mode and shows `hook` every activation as soon as it is there, which costs less
    /// memory than [`Keep::Activations`]; gives the output.
    ///
    /// # Errors
    /// As [`Executor::forward`].
    fn forward_with_hook(
        &mut self,
        x: &Tensor,
        statistics: &Statistics,
        hook: ForwardHook<'_>,
    ) -> Result<Tensor> {
        let forward = self.forward(x, Mode::Eval(statistics), Keep::Activations)?;
        for (layer, maps) in forward.activations.iter().enumerate() {
            let maps = maps.to_device(&Device::Cpu)?.permute((0, 2, 3, 1))?;
            for image in 0..maps.dim(0)? {
                hook(layer, image, &maps.get(image)?.flatten_all()?.to_vec1::<f32>()?);
            }
        }
        Ok(forward.output)
    }

    /// Runs back from `d_output`, the loss's derivative by the output of the last pass kept with [`Keep::Tape`];
    /// returns the derivative by that pass's input where it is wanted. The tape stays until the next pass.
    ///
    /// # Errors
    /// [`OpsError::NoTape`], shapes, memory.
    fn backward(&mut self, d_output: &Tensor, want: Want) -> Result<Option<Tensor>>;

    /// Each layer's name, how its linear map is computed, and the time it has taken; empty where that is not known.
    fn timings(&self) -> Vec<(String, &'static str, Timing)> {
        Vec::new()
    }

    /// Sets all parameter gradients to zero.
    ///
    /// # Errors
    /// Those of the device.
    fn zero_gradients(&mut self) -> Result<()>;

    /// The parameter gradients summed since [`Executor::zero_gradients`], on the host.
    ///
    /// # Errors
    /// Those of the device.
    fn gradients(&self) -> Result<Tensors>;

    /// Euclidean norm of each parameter's gradient, in the order of the layers. Not finite where the gradient is not.
    ///
    /// # Errors
    /// Those of the device.
    fn gradient_norms(&self) -> Result<Vec<(String, f64)>>;

    /// One Adam step on every parameter.
    ///
    /// # Errors
    /// Those of the device.
    fn adam_step(&mut self, config: &AdamConfig) -> Result<()>;

    /// A copy of the parameters on the host, in PyTorch's layouts.
    ///
    /// # Errors
    /// Those of the device.
    fn parameters(&self) -> Result<Tensors>;

    /// Replaces the parameters; the optimizer state stays.
    ///
    /// # Errors
    /// A tensor that is missing or misshapen.
    fn set_parameters(&mut self, parameters: &Tensors) -> Result<()>;

    /// A copy of the optimizer's state on the host.
    ///
    /// # Errors
    /// Those of the device.
    fn adam_state(&self) -> Result<AdamState>;

    /// Replaces the optimizer's state.
    ///
    /// # Errors
    /// A tensor that is missing or misshapen.
    fn set_adam_state(&mut self, state: &AdamState) -> Result<()>;

    /// Starts an exponential moving average of the parameters from these values.
    ///
    /// # Errors
    /// A tensor that is missing or misshapen.
    fn set_ema(&mut self, average: &Tensors) -> Result<()>;

    /// `average = decay average + (1 - decay) parameters`; nothing where no average was started.
    ///
    /// # Errors
    /// Those of the device.
    fn update_ema(&mut self, decay: f64) -> Result<()>;

    /// A copy of the moving average on the host, in PyTorch's layouts, where one was started.
    ///
    /// # Errors
    /// Those of the device.
    fn average(&self) -> Result<Option<Tensors>>;
}

/// Refuses an input whose shape is not `(n, c, h, w)` of the first layer, n at least 1.
pub(crate) fn check_input(layers: &[Layer], x: &Tensor) -> Result<()> {
    check_held(x)?;
    let Some(first) = layers.first() else { return Ok(()) };
    let MapShape { channels, height, width } = first.input;
    match *x.dims() {
        [n, c, h, w] if n > 0 && (c, h, w) == (channels, height, width) => Ok(()),
        _ => Err(OpsError::Shape {
            what: format!("input of {}", first.name),
            expected: format!("(n, {channels}, {height}, {width})"),
            found: x.dims().to_vec(),
        }),
    }
}

/// Refuses a tensor of another shape.
pub(crate) fn check_shape(name: &str, expected: &[usize], found: &Tensor) -> Result<()> {
    if found.dims() == expected {
        return Ok(());
    }
    Err(OpsError::Shape {
        what: name.to_owned(),
        expected: format!("{expected:?}"),
        found: found.dims().to_vec(),
    })
}

/// The executor for `layers` on `device` in f32: the fused one on CPU, candle's autograd elsewhere.
///
/// Parameters start at zero: give them with [`Executor::set_parameters`].
///
/// # Errors
/// Memory.
pub fn executor(layers: Vec<Layer>, device: &Device) -> Result<Box<dyn Executor>> {
    executor_in(layers, device, Precision::F32)
}

/// The same in the given precision.
///
/// # Errors
/// [`OpsError::Precision`] for bf16 on another device than the CPU; memory.
pub fn executor_in(layers: Vec<Layer>, device: &Device, precision: Precision) -> Result<Box<dyn Executor>> {
    Ok(match (device, precision) {
        (Device::Cpu, _) => Box::new(CpuExecutor::with(layers, Isa::best(), precision)),
        (_, Precision::F32) => Box::new(CandleExecutor::new(layers, device)?),
        (_, Precision::Bf16) => return Err(OpsError::Precision),
    })
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let precision = [Self::F32, Self::Bf16].into_iter().find(|precision| precision.name() == text);
        precision.ok_or_else(|| format!("unknown precision {text:?}, expected f32 or bf16"))
    }
}
