//! Networks at the start of a run, and to and from a checkpoint.

use crate::checkpoint::{Checkpoint, State, under};
use crate::config::{Plan, TrainingConfig};
use crate::error::TrainError;
use crate::step::Networks;
use candle_core::Tensor;
use dcgan_model::weights::{HostTensor, Weights};
use dcgan_model::{Discriminator, Generator, Model, ModelFiles, NetworkError};
use dcgan_ops::{
    AdamMoments, AdamState, Device, ExecutorOptions, Network, OpsError, ProcessGroup, SingleProcess, Tensors,
    executor,
};
use std::sync::Arc;

pub(crate) type Started = (State, Networks);

/// The group of one process.
pub(crate) fn alone() -> Arc<dyn ProcessGroup> {
    Arc::new(SingleProcess)
}

/// Both networks of `model` with weights `g` and `d`, in the precision and the shards of `training`, in one process of
/// `group`.
pub(crate) fn networks(
    model: &Model,
    (g, d): (&Weights, &Weights),
    device: &Device,
    (training, group): (&TrainingConfig, &Arc<dyn ProcessGroup>),
) -> Result<Networks, NetworkError> {
    let options = ExecutorOptions::new(device).with_precision(training.dtype);
    let shards = training.shards / group.size(); // `trainer` has checked that they divide it
    let batch_norm = training.batch_norm.into();
    let options = ExecutorOptions { shards, batch_norm, group: Arc::clone(group), ..options };
    Ok(Networks {
        generator: Generator::with_executor(model, g, &|layers| executor(layers, &options))?,
        discriminator: Discriminator::with_executor(model, d, &|layers| executor(layers, &options))?,
    })
}

/// Random weights, or those of `init`; no step taken. `data` is the dataset's fingerprint.
pub(crate) fn fresh(
    model: &Model,
    plan: &Plan,
    init: Option<ModelFiles>,
    data: &str,
    (device, group): (&Device, &Arc<dyn ProcessGroup>),
) -> Result<Started, TrainError> {
    #[expect(clippy::cast_possible_truncation, reason = "0.02 is exact enough in f32")]
    let (weight_std, norm_weight_std) =
        (plan.training.weight_std as f32, plan.training.norm_weight_std as f32);
    let seed = plan.run.seed;
    let (mut g, mut d) = (None, None);
    if let Some(init) = init {
        (g, d) = (init.generator, init.discriminator);
    }
    let g = g.unwrap_or_else(|| model.initial_generator(seed, weight_std, norm_weight_std));
    let d = d.unwrap_or_else(|| model.initial_discriminator(seed, weight_std, norm_weight_std));
    let networks = networks(model, (&g, &d), device, (&plan.training, group));
    let mut networks = networks.map_err(|error| match &plan.run.init_from {
        Some(path) => TrainError::Init { path: path.clone(), problem: error.to_string() },
        None => error.into(),
    })?;
    if plan.training.ema > 0.0 {
        let parameters = networks.generator.network_mut().parameters_mut();
        let start = parameters.tensors().map_err(NetworkError::from)?;
        parameters.set_ema(&start).map_err(NetworkError::from)?;
    }
    Ok((State::start(data), networks))
}

/// The networks and counters of a checkpoint.
pub(crate) fn resumed(
    model: &Model,
    plan: &Plan,
    found: &Checkpoint,
    (device, group): (&Device, &Arc<dyn ProcessGroup>),
) -> Result<Started, TrainError> {
    let ModelFiles { generator, discriminator, .. } = &found.files;
    let (Some(generator), Some(discriminator)) = (generator, discriminator) else {
        return Err(NetworkError::from(OpsError::NoStatistics).into()); // refused by Checkpoint::read already
    };
    // With an EMA, G's file holds that, and the state the raw weights.
    let mut raw = generator.clone();
    let mut ema = Tensors::new();
    for (name, tensor) in under(&found.tensors, "generator.raw.") {
        if let Some(smooth) = raw.insert(name.clone(), tensor.clone()) {
            ema.insert(name, to_tensor(&smooth)?);
        }
    }
    let mut networks = networks(model, (&raw, discriminator), device, (&plan.training, group))?;
    if !ema.is_empty() {
        let parameters = networks.generator.network_mut().parameters_mut();
        parameters.set_ema(&ema).map_err(NetworkError::from)?;
    }
    let adam = |network: &str, step: u64| -> Result<AdamState, TrainError> {
        let mut state = AdamState { step, ..AdamState::default() };
        let second = format!("{network}.second.");
        for (name, first) in under(&found.tensors, &format!("{network}.first.")) {
            if let Some(second) = found.tensors.get(&format!("{second}{name}")) {
                state
                    .moments
                    .insert(name, AdamMoments { first: to_tensor(first)?, second: to_tensor(second)? });
            }
        }
        Ok(state)
    };
    let State { generator_updates, discriminator_updates, .. } = found.state;
    let set = |network: &mut Network, state: &AdamState| {
        network.parameters_mut().set_adam_state(state).map_err(NetworkError::from)
    };
    set(networks.generator.network_mut(), &adam("generator", generator_updates)?)?;
    set(networks.discriminator.network_mut(), &adam("discriminator", discriminator_updates)?)?;
    Ok((found.state.clone(), networks))
}

fn to_tensor(tensor: &HostTensor) -> Result<Tensor, candle_core::Error> {
    Tensor::from_slice(&tensor.data, tensor.shape.as_slice(), &candle_core::Device::Cpu)
}

pub(crate) fn to_host(tensor: &Tensor) -> Result<HostTensor, candle_core::Error> {
    Ok(HostTensor { shape: tensor.dims().to_vec(), data: tensor.flatten_all()?.to_vec1()? })
}

/// All that is needed to resume a run. `ema` is what G's file holds in place of its raw weights, where there is one;
/// the updates of both networks are counted into `state`.
pub(crate) fn to_checkpoint(
    model: &Model,
    networks: &Networks,
    ema: Option<&Weights>,
    mut state: State,
) -> Result<Checkpoint, TrainError> {
    let Networks { generator, discriminator } = networks;
    let mut tensors = Weights::new();
    let mut moments = |network: &str, adam: &AdamState| -> Result<u64, TrainError> {
        for (name, AdamMoments { first, second }) in &adam.moments {
            tensors.insert(format!("{network}.first.{name}"), to_host(first)?);
            tensors.insert(format!("{network}.second.{name}"), to_host(second)?);
        }
        Ok(adam.step)
    };
    let adam = |network: &Network| network.parameters().adam_state().map_err(NetworkError::from);
    state.generator_updates = moments("generator", &adam(generator.network())?)?;
    state.discriminator_updates = moments("discriminator", &adam(discriminator.network())?)?;
    let mut weights = generator.weights()?;
    if let Some(ema) = ema {
        for (name, value) in ema {
            if let Some(raw) = weights.insert(name.clone(), value.clone()) {
                tensors.insert(format!("generator.raw.{name}"), raw);
            }
        }
    }
    let files = ModelFiles {
        model: model.clone(),
        generator: Some(weights),
        discriminator: Some(discriminator.weights()?),
    };
    Ok(Checkpoint { files, state, tensors })
}

/// Replaces the state of both networks by that of rank 0.
///
/// # Errors
/// Those of the group.
pub(crate) fn broadcast(group: &dyn ProcessGroup, networks: &mut Networks) -> Result<(), TrainError> {
    networks.generator.network_mut().broadcast(group)?;
    Ok(networks.discriminator.network_mut().broadcast(group)?)
}
