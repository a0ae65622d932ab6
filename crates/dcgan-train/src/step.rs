//! One training step: the two update orders, on any executor.

use crate::config::{Order, TrainingConfig};
use crate::engine::adam;
use dcgan_model::{Discriminator, Generator, Latents, NetworkError};
use dcgan_ops::group::combine_sums;
use dcgan_ops::{
    AdamConfig, Bce, Input, Keep, Maps, Network, OpsError, Statistics, WithRespectTo, bce_with_logits,
    in_pool,
};

/// Both networks of a run.
#[derive(Debug)]
pub struct Networks {
    /// The generator.
    pub generator: Generator,
    /// The discriminator.
    pub discriminator: Discriminator,
}

/// Losses and outputs of a step.
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
    /// A loss or gradient overflowed or became NaN; the parameters are those from before the update.
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

/// Adam's learning rate at one step, by its schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRate(pub f64);

/// How much of each minibatch's batch norm statistics the running ones take (PyTorch's default).
pub(crate) const MOMENTUM: f64 = 0.1;

/// Takes step `step` (counted from 0): `x` is the minibatch of real images, `latents` that of latent vectors, with the
/// labels of the real images for conditional networks.
///
/// - [`Order::Both`] (pytorch/examples): D on x and on G(z), one Adam step; then G through a fresh pass of D on the
///   same G(z).
/// - [`Order::Alternate`] (the authors): even steps update G on z alone, odd ones D on x and G(z).
///
/// G's running statistics take every training pass of it; D's take the passes on real images only, so that they are
/// those of images when D serves as a feature extractor.
///
/// # Errors
/// [`StepError::NonFinite`] before the update that would have corrupted the parameters.
pub fn train_step(
    networks: &mut Networks,
    config: &TrainingConfig,
    rate: LearningRate,
    step: u64,
    (x, latents): (&Maps, &Latents),
) -> Result<StepOutput, StepError> {
    let adam = adam(config, rate);
    in_pool(|| take_step(networks, config, &adam, step, (x, latents)))
}

fn take_step(
    networks: &mut Networks,
    config: &TrainingConfig,
    adam: &AdamConfig,
    step: u64,
    (x, latents): (&Maps, &Latents),
) -> Result<StepOutput, StepError> {
    let Networks { generator, discriminator } = networks;
    let updates_generator = config.order == Order::Both || step.is_multiple_of(2);
    let updates_discriminator = config.order == Order::Both || !updates_generator;
    let keep = if updates_generator { Keep::Tape } else { Keep::Nothing };
    let pass = generator.train(latents, keep)?;
    generator.network_mut().update_running_stats(&pass.statistics, MOMENTUM)?;
    let real = Input { maps: x, labels: latents.labels() };
    let fake = Input { maps: &pass.output, labels: latents.labels() };
    let mut output = StepOutput::default();
    if updates_discriminator {
        let real_target = 1.0 - config.label_smoothing;
        let network = discriminator.network_mut();
        output.discriminator = Some(update_discriminator(network, adam, (real, real_target), fake)?);
    }
    if updates_generator {
        let (generator, discriminator) = (generator.network_mut(), discriminator.network_mut());
        output.generator = Some(update_generator(generator, discriminator, adam, fake)?);
    }
    Ok(output)
}

fn update_discriminator(
    network: &mut Network,
    adam: &AdamConfig,
    // One-sided smoothing: only the target of real images moves (Salimans et al. 2016, section 3.4).
    (real, real_target): (Input<'_>, f64),
    fake: Input<'_>,
) -> Result<DiscriminatorOutput, StepError> {
    network.parameters_mut().zero_gradients();
    let (on_real, statistics) = d_loss(network, real, real_target)?;
    network.update_running_stats(&statistics, MOMENTUM)?;
    let (on_fake, _) = d_loss(network, fake, 0.0)?;
    network.reduce_gradients()?;
    let output = DiscriminatorOutput {
        loss: finite("D's loss on real images", on_real.loss)?
            + finite("D's loss on generated images", on_fake.loss)?,
        real: f64::from(on_real.probability),
        fake: f64::from(on_fake.probability),
        gradient_norm: finite_gradient("discriminator", network)?,
    };
    network.adam_step(adam);
    Ok(output)
}

fn update_generator(
    generator: &mut Network,
    discriminator: &mut Network,
    adam: &AdamConfig,
    fake: Input<'_>,
) -> Result<GeneratorOutput, StepError> {
    let (loss, grad_fake) = g_loss(discriminator, fake)?;
    generator.parameters_mut().zero_gradients();
    generator.backward(&grad_fake, WithRespectTo::Parameters)?;
    generator.reduce_gradients()?;
    let output = GeneratorOutput {
        loss: finite("G's loss", loss.loss)?,
        fake: f64::from(loss.probability),
        gradient_norm: finite_gradient("generator", generator)?,
    };
    generator.adam_step(adam);
    Ok(output)
}

/// D's loss on images, its gradient added to D's gradients; the minibatch statistics of the pass.
fn d_loss(network: &mut Network, images: Input<'_>, target: f64) -> Result<(Loss, Statistics), StepError> {
    let pass = network.train(images, Keep::Tape)?;
    let (loss, gradient) = bce(network, &pass.output, target)?;
    network.backward(&gradient, WithRespectTo::Parameters)?;
    Ok((loss, pass.statistics))
}

/// G's loss on generated images and its gradient with respect to them; D's own gradients are left alone.
fn g_loss(network: &mut Network, fake: Input<'_>) -> Result<(Loss, Maps), StepError> {
    let pass = network.train(fake, Keep::Tape)?;
    let (loss, gradient) = bce(network, &pass.output, 1.0)?;
    let grad_fake = network.backward(&gradient, WithRespectTo::Input)?;
    Ok((loss, grad_fake.ok_or(OpsError::NoTape)?))
}

/// Means over the batch of all processes.
#[derive(Clone, Copy, Debug)]
struct Loss {
    /// Binary cross-entropy.
    loss: f32,
    /// Sigmoid of the logits.
    probability: f32,
}

/// The loss of the logits of this process's shards, and its gradient with respect to them: of the mean over all shards.
fn bce(network: &Network, logits: &Maps, target: f64) -> Result<(Loss, Maps), StepError> {
    let (shards, group) = (network.shards(), network.group());
    let len = (logits.values().len() / shards).max(1);
    let of_shards: Vec<Bce> =
        logits.values().chunks_exact(len).map(|logits| bce_with_logits(logits, target)).collect();
    let mut gradient: Vec<f32> = of_shards.iter().flat_map(|bce| bce.gradient.iter().copied()).collect();
    let all = shards * group.size();
    if all > 1 {
        gradient.iter_mut().for_each(|value| *value /= all as f32);
    }
    let means: Vec<[f64; 2]> =
        of_shards.iter().map(|bce| [bce.loss, bce.probability].map(f64::from)).collect();
    let sums = combine_sums(group, means.iter().map(<[f64; 2]>::as_slice))?;
    #[expect(clippy::cast_possible_truncation, reason = "means of f32")]
    let mean = |sum: Option<&f64>| sum.map_or(f32::NAN, |sum| (sum / all as f64) as f32);
    let loss = Loss { loss: mean(sums.first()), probability: mean(sums.get(1)) };
    Ok((loss, Maps::rows(gradient, 1)?))
}

pub(crate) fn finite(what: &str, value: f32) -> Result<f64, StepError> {
    let value = f64::from(value);
    if value.is_finite() { Ok(value) } else { Err(StepError::NonFinite { what: what.into(), value }) }
}

/// Norm of the whole gradient; an error that names the first tensor whose gradient is not finite.
fn finite_gradient(which: &str, network: &Network) -> Result<f64, StepError> {
    let mut sum = 0.0;
    for (name, norm) in network.parameters().gradient_norms() {
        if !norm.is_finite() {
            let what = format!("the gradient of the {which}'s {name}");
            return Err(StepError::NonFinite { what, value: norm });
        }
        sum += norm.powi(2);
    }
    Ok(sum.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Plan, RunOptions};
    use candle_core::Device;
    use dcgan_model::{Model, Preset};
    use dcgan_ops::MapShape;

    /// What a step on corrupted inputs says, and that it left both networks as they were.
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
            let values = |network: &Network| network.parameters().values().flat.to_vec();
            (values(networks.generator.network()), values(networks.discriminator.network()))
        };
        let before = parameters(&networks);
        let x = Maps::new(vec![x; 4 * 64], 4, MapShape::new(1, 8, 8)).unwrap();
        let latents = Latents::new((0..4 * 64).map(|i| (i as f32 * 0.7).sin() * z).collect(), 64).unwrap();
        let rate = LearningRate(1e-3);
        let error = train_step(&mut networks, &plan.training, rate, 0, (&x, &latents)).unwrap_err();
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
