//! One training step: the two update orders, on any executor.

use crate::config::{Order, TrainingConfig};
use candle_core::Tensor;
use dcgan_model::{Discriminator, Generator, Network, NetworkError};
use dcgan_ops::{AdamConfig, Bce, Keep, OpsError, Statistics, Want, bce_with_logits, give_back, in_pool};

/// Both networks of a run.
#[derive(Debug)]
pub struct Networks {
    /// The generator.
    pub generator: Generator,
    /// The discriminator.
    pub discriminator: Discriminator,
}

/// What a step tells, on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepOutput {
    /// From the last update of D.
    pub discriminator: Option<DiscriminatorOutput>,
    /// From the last update of G.
    pub generator: Option<GeneratorOutput>,
}

/// One update of D.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiscriminatorOutput {
    /// Loss on real plus loss on fake images.
    pub loss: f64,
    /// Mean D(x).
    pub real: f64,
    /// Mean D(G(z)) before the update.
    pub fake: f64,
    /// Euclidean norm of the gradient.
    pub gradient_norm: f64,
}

/// One update of G.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeneratorOutput {
    /// The non-saturating loss, `-ln D(G(z))`.
    pub loss: f64,
    /// Mean D(G(z)) that the update saw: after D's update in the order of pytorch/examples.
    pub fake: f64,
    /// Euclidean norm of the gradient.
    pub gradient_norm: f64,
}

/// Why a step could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A loss or gradient overflowed or became NaN; the parameters are those before the update.
    #[error("{what} is not finite ({value})")]
    NonFinite {
        /// Which loss, or which tensor's gradient.
        what: String,
        /// Its value (of a gradient: its norm).
        value: f64,
    },
    /// A network failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl From<dcgan_ops::OpsError> for StepError {
    fn from(error: dcgan_ops::OpsError) -> Self {
        Self::Network(error.into())
    }
}

impl From<candle_core::Error> for StepError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error.into())
    }
}

/// The step size of Adam at one step, after its schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRate(pub f64);

/// How much of each minibatch's batch-norm statistics the running averages take (PyTorch's default).
const MOMENTUM: f64 = 0.1;

/// Takes step `step` (counted from 0): `x` is the minibatch of real images, `z` that of latent vectors.
///
/// - [`Order::Both`] (pytorch/examples): D on x and on G(z), one Adam step; then G through a fresh pass of D on the same G(z).
/// - [`Order::Alternate`] (the authors): even steps update G on z alone, odd ones D on x and G(z).
///
/// G's running statistics take every training pass of it; D's take the passes on real images only, so that they are
/// those of images when D serves as a feature extractor.
///
/// With `inspect` off nothing is read back to the host, so an accelerator is not made to wait, and the output is empty.
///
/// # Shapes
/// - `x`: `(n, c, h, w)`; `z`: `(n, z)`
///
/// # Errors
/// [`StepError::NonFinite`] where the step is inspected, before the update that it would have spoilt.
pub fn train_step(
    networks: &mut Networks,
    config: &TrainingConfig,
    rate: LearningRate,
    step: u64,
    (x, z): (&Tensor, &Tensor),
    inspect: bool,
) -> Result<StepOutput, StepError> {
    let adam = AdamConfig {
        learning_rate: rate.0,
        beta1: config.beta1,
        beta2: config.beta2,
        eps: config.adam_eps,
        weight_decay: config.weight_decay,
    };
    let mut step = || take_step(networks, config, &adam, step, (x, z), inspect);
    if x.device().is_cpu() { in_pool(step) } else { step() }
}

fn take_step(
    networks: &mut Networks,
    config: &TrainingConfig,
    adam: &AdamConfig,
    step: u64,
    (x, z): (&Tensor, &Tensor),
    inspect: bool,
) -> Result<StepOutput, StepError> {
    let Networks { generator, discriminator } = networks;
    let updates_generator = config.order == Order::Both || step.is_multiple_of(2);
    let updates_discriminator = config.order == Order::Both || !updates_generator;
    let keep = if updates_generator { Keep::Tape } else { Keep::Nothing };
    let made = generator.train(z, keep)?;
    generator.0.update_running_stats(&made.statistics, MOMENTUM)?;
    let fake = made.output;
    let mut output = StepOutput::default();
    if updates_discriminator {
        let real_target = 1.0 - config.label_smoothing;
        output.discriminator = update_discriminator(discriminator, adam, (x, real_target), &fake, inspect)?;
    }
    if updates_generator {
        output.generator = update_generator(generator, discriminator, adam, &fake, inspect)?;
    }
    give_back(fake);
    Ok(output)
}

fn update_discriminator(
    discriminator: &mut Discriminator,
    adam: &AdamConfig,
    // One-sided smoothing: only the target of real images moves (Salimans et al. 2016, section 3.4).
    (x, real_target): (&Tensor, f64),
    fake: &Tensor,
    inspect: bool,
) -> Result<Option<DiscriminatorOutput>, StepError> {
    let network = &mut discriminator.0;
    network.executor.zero_gradients()?;
    let (on_real, statistics) = judge(network, x, real_target)?;
    network.update_running_stats(&statistics, MOMENTUM)?;
    let (on_fake, _) = judge(network, fake, 0.0)?;
    let mut output = None;
    if inspect {
        output = Some(DiscriminatorOutput {
            loss: finite("D's loss on real images", scalar(&on_real.loss)?)?
                + finite("D's loss on generated images", scalar(&on_fake.loss)?)?,
            real: scalar(&on_real.probability)?,
            fake: scalar(&on_fake.probability)?,
            gradient_norm: finite_gradient("discriminator", network)?,
        });
    }
    network.executor.adam_step(adam)?;
    Ok(output)
}

fn update_generator(
    generator: &mut Generator,
    discriminator: &mut Discriminator,
    adam: &AdamConfig,
    fake: &Tensor,
    inspect: bool,
) -> Result<Option<GeneratorOutput>, StepError> {
    let (judged, d_fake) = judge_input(&mut discriminator.0, fake)?;
    let network = &mut generator.0;
    network.executor.zero_gradients()?;
    network.executor.backward(&d_fake, Want::Parameters)?;
    give_back(d_fake);
    let mut output = None;
    if inspect {
        output = Some(GeneratorOutput {
            loss: finite("G's loss", scalar(&judged.loss)?)?,
            fake: scalar(&judged.probability)?,
            gradient_norm: finite_gradient("generator", network)?,
        });
    }
    network.executor.adam_step(adam)?;
    Ok(output)
}

/// D's loss on images, its gradient added to D's parameters; the minibatch statistics of the pass.
fn judge(network: &mut Network, images: &Tensor, target: f64) -> Result<(Bce, Statistics), StepError> {
    let pass = network.train(images, Keep::Tape)?;
    let bce = bce_with_logits(&pass.output.flatten_all()?, target)?;
    network.executor.backward(&bce.gradient.reshape(pass.output.shape())?, Want::Parameters)?;
    Ok((bce, pass.statistics))
}

/// G's loss on images and its derivative by them; D's own gradient is left alone.
fn judge_input(network: &mut Network, images: &Tensor) -> Result<(Bce, Tensor), StepError> {
    let pass = network.train(images, Keep::Tape)?;
    let bce = bce_with_logits(&pass.output.flatten_all()?, 1.0)?;
    let d_output = bce.gradient.reshape(pass.output.shape())?;
    let by_input = network.executor.backward(&d_output, Want::Input)?;
    Ok((bce, by_input.ok_or(OpsError::NoTape)?))
}

fn scalar(tensor: &Tensor) -> Result<f64, StepError> {
    Ok(f64::from(tensor.to_scalar::<f32>()?))
}

fn finite(what: &str, value: f64) -> Result<f64, StepError> {
    if value.is_finite() { Ok(value) } else { Err(StepError::NonFinite { what: what.into(), value }) }
}

/// Norm of the whole gradient; an error naming the first tensor that is not finite.
fn finite_gradient(which: &str, network: &Network) -> Result<f64, StepError> {
    let mut sum = 0.0;
    for (name, norm) in network.executor.gradient_norms()? {
        sum += finite(&format!("the gradient of the {which}'s {name}"), norm)?.powi(2);
    }
    Ok(sum.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Plan, RunOptions};
    use candle_core::Device;
    use dcgan_model::{Model, Preset};

    /// What a step on spoilt inputs says, and that it left both networks as they were.
    fn check_refused(x: f32, z: f32, what: &str) {
        let plan = Plan::resolve(&RunOptions { size: Some((8, 8)), ..RunOptions::default() }).unwrap();
        let mut preset = Preset::named("digits").unwrap();
        (preset.model.height, preset.model.width) = (8, 8);
        let model = Model::new(preset.model).unwrap();
        let mut networks = Networks {
            generator: Generator::new(&model, &model.initial_generator(0, 0.02, 0.02), &Device::Cpu).unwrap(),
            discriminator: Discriminator::new(
                &model,
                &model.initial_discriminator(0, 0.02, 0.02),
                &Device::Cpu,
            )
            .unwrap(),
        };
        let parameters = |networks: &Networks| {
            let bytes = |network: &Network| {
                let all = network.executor.parameters().unwrap().into_values();
                all.flat_map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect::<Vec<_>>()
            };
            (bytes(&networks.generator.0), bytes(&networks.discriminator.0))
        };
        let before = parameters(&networks);
        let x = Tensor::full(x, (4, 1, 8, 8), &Device::Cpu).unwrap();
        let z = (Tensor::rand(-1_f32, 1.0, (4, 64), &Device::Cpu).unwrap() * f64::from(z)).unwrap();
        let rate = LearningRate(1e-3);
        let error = train_step(&mut networks, &plan.training, rate, 0, (&x, &z), true).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert!(parameters(&networks) == before, "a refused step changed parameters");
    }

    #[test]
    fn a_step_that_is_not_finite_changes_nothing() {
        check_refused(f32::NAN, 1.0, "D's loss on real images is not finite");
        check_refused(f32::INFINITY, 1.0, "D's loss on real images is not finite");
        check_refused(0.5, f32::NAN, "D's loss on generated images is not finite");
    }
}
