//! Opens the inputs of a plan: device, images, weights to start from. Nothing is written.

use crate::config::{BestBy, Plan};
use crate::data_record::DataRecord;
use crate::memory;
use crate::preset_choice;
use crate::start::alone;
use crate::trainer::Inputs;
use dcgan_base::memory::machine_memory_bytes;
use dcgan_data::{DataError, Dataset};
use dcgan_metrics::{
    InceptionWeights, MetricsError, SUBSET_SIZE, WEIGHTS_SOURCE, WEIGHTS_VARIABLE, default_weights,
};
use dcgan_model::weights::{self, TensorSpec, Weights};
use dcgan_model::{ConfigError, DeviceChoice, DeviceError, Model, ModelFiles, OpenError};
use dcgan_ops::{Device, Isa, Precision};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

mod images;

/// The smallest minibatch of a valid plan.
const SMALLEST_BATCH: usize = 2;

/// Why a run cannot start; the user can fix each.
#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    /// An unknown device.
    #[error("{0}")]
    UnknownDevice(String),
    /// The device cannot be opened.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device does not support the precision.
    #[error("bf16 is not supported on this device: use --dtype f32, or --device cpu or cuda:N")]
    Precision,
    /// Shards that a device does not compute.
    #[error(
        "--shards is {shards}, and {}", if *processes > 1 {
            format!("{processes} processes with a GPU each have one shard each: use --shards {processes}, or --device cpu")
        } else {
            "this device trains in one: use --shards 1, or --device cpu".to_owned()
        }
    )]
    Shards {
        /// The shards asked for.
        shards: usize,
        /// Processes of the run.
        processes: usize,
    },
    /// The machine's memory is too small for the minibatch, or for the networks themselves.
    #[error(
        "training takes {:.1} GB of memory at least, this machine has {:.1} GB: use a smaller {}",
        *needed as f64 / 1e9,
        *machine as f64 / 1e9,
        if *smaller_batch_fits { "--batch-size" } else { "--size, or smaller networks" }
    )]
    Memory {
        /// Bytes of training, at least.
        needed: u64,
        /// Bytes of the machine.
        machine: u64,
        /// Whether the smallest minibatch would fit.
        smaller_batch_fits: bool,
    },
    /// The images.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Fewer images than a minibatch.
    #[error("the dataset holds {images} images, fewer than one batch of {batch_size}; use --batch-size")]
    TooFew {
        /// Images in the dataset.
        images: usize,
        /// Images in a minibatch.
        batch_size: usize,
    },
    /// Conditional networks on a dataset without labels.
    #[error(
        "the dataset has no class labels, which conditional networks need: put the images of each class in a folder of \
         its own, add a dataset.json with labels, or train with --no-conditional"
    )]
    NoLabels,
    /// Conditional networks on images of one class.
    #[error(
        "the dataset has {classes} class(es), conditional networks need 2 at least: train with --no-conditional"
    )]
    OneClass {
        /// Classes of the dataset.
        classes: usize,
    },
    /// A run continues with a dataset that has a different number of classes.
    #[error(
        "the dataset has {found} classes, the networks of the run {expected}: restore the folders or labels of the \
         classes, or start a new run"
    )]
    OtherClasses {
        /// Classes of the networks.
        expected: usize,
        /// Classes of the dataset.
        found: usize,
    },
    /// A run continues with a dataset whose classes have other names: labels would change their meaning.
    #[error(
        "the classes of the dataset are {}, those of the run {}: restore the folders or names of the classes, or start \
         a new run", found.join(", "), expected.join(", ")
    )]
    OtherClassNames {
        /// Names of the run.
        expected: Vec<String>,
        /// Names of the dataset.
        found: Vec<String>,
    },
    /// KID decides about the best checkpoint, and the dataset is too small for it.
    #[error("--best-by kid needs at least {SUBSET_SIZE} images, the dataset has {images}: use --best-by fid")]
    NoKid {
        /// Images of the dataset.
        images: usize,
    },
    /// The networks' configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// FID and KID are to be measured, and no file of Inception weights is named.
    #[error("--metrics-every needs --inception, or a file in {WEIGHTS_VARIABLE}: {WEIGHTS_SOURCE}")]
    NoInception,
    /// The Inception weights.
    #[error("--inception: {0}")]
    Inception(Box<MetricsError>),
    /// The weights to start from cannot be read.
    #[error(transparent)]
    Init(Box<OpenError>),
    /// The weights to start from do not fit the networks.
    #[error("{}", .0.join("; "))]
    InitMisfit(Vec<String>),
}

impl From<OpenError> for InputsError {
    fn from(error: OpenError) -> Self {
        Self::Init(Box::new(error))
    }
}

impl InputsError {
    /// The messages, one for each fault.
    pub fn faults(self) -> Vec<String> {
        match self {
            Self::InitMisfit(faults) => faults,
            other => vec![other.to_string()],
        }
    }
}

/// Opens a device as the user names it, for process `place.0` of the `place.1` of a host.
///
/// # Errors
/// [`InputsError::UnknownDevice`], [`InputsError::Device`].
pub fn device(name: &str, place: (usize, usize)) -> Result<Device, InputsError> {
    let device =
        open_device(name.parse::<DeviceChoice>().map_err(InputsError::UnknownDevice)?.for_process(place))?;
    if place.1 > 1 && !device.is_cpu() {
        tracing::info!("device: {device}, and the next ones for the other processes of this host");
    }
    Ok(device)
}

/// Opens a device; logs what `auto` chose.
///
/// # Errors
/// [`InputsError::Device`].
pub fn open_device(choice: DeviceChoice) -> Result<Device, InputsError> {
    let device = choice.open()?;
    choice.explain(&device).into_iter().for_each(|text| tracing::info!("{text}"));
    Ok(device)
}

/// Refuses shards that `device` does not compute: one of another kind than the CPU has one shard of each minibatch.
///
/// # Errors
/// [`InputsError::Shards`].
pub fn check_shards(shards: usize, device: &Device, processes: usize) -> Result<(), InputsError> {
    if device.is_cpu() || shards == processes {
        Ok(())
    } else {
        Err(InputsError::Shards { shards, processes })
    }
}

/// Refuses a precision that the device does not support, and warns where it is slow.
///
/// # Errors
/// [`InputsError::Precision`].
pub fn check_precision(precision: Precision, device: &Device) -> Result<(), InputsError> {
    if precision == Precision::Bf16 && !device.computes_bf16() {
        return Err(InputsError::Precision);
    }
    if precision == Precision::Bf16 && device.is_cpu() && !Isa::best().multiplies_bf16() {
        tracing::warn!("this CPU has no bf16 instructions (AVX512-BF16): --dtype f32 is faster");
    }
    Ok(())
}

/// Refuses plans that cannot fit the memory of this machine, where its size is known: a failed allocation ends the
/// process. This is a lower bound; a plan that passes may still be too large.
///
/// # Errors
/// [`InputsError::Memory`], [`InputsError::Config`].
pub fn check_memory(plan: &Plan, device: &Device) -> Result<(), InputsError> {
    let Some(machine) = machine_memory_bytes() else { return Ok(()) };
    let model = Model::new(plan.model.clone())?;
    let needed = |batch_size| {
        // Weights are created in host memory. Activations are in the memory of the device, which reports when it is
        // full.
        let activations = if device.is_cpu() { memory::activation_bytes(&model, batch_size) } else { 0 };
        memory::network_bytes(&model).saturating_add(activations)
    };
    let bytes = needed(plan.training.batch_size);
    if bytes <= machine {
        return Ok(());
    }
    Err(InputsError::Memory { needed: bytes, machine, smaller_batch_fits: needed(SMALLEST_BATCH) <= machine })
}

/// How the inputs of a run are opened.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    /// Whether the run has no checkpoint yet. A run with a checkpoint does not need the weights to start from any more;
    /// they may have been removed.
    pub is_new: bool,
    /// The record of the images that a run with a checkpoint has trained on
    /// ([`crate::run_folder::RunFolder::data_record_before`]).
    pub record: Option<&'a DataRecord>,
    /// Whether to look for unreadable images again, and to skip them as well.
    pub skip_again: bool,
    /// Whether to accept other images than those of the record.
    pub accept_data_change: bool,
    /// The processes of the run, each of which opens the dataset.
    pub processes: Processes,
    /// Stops the decoding of the dataset.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// A process among those of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processes {
    /// Its number.
    pub rank: usize,
    /// How many there are.
    pub count: usize,
    /// How many of them share the memory of its host.
    pub on_host: usize,
}

impl Default for Processes {
    /// A single one.
    fn default() -> Self {
        Self { rank: 0, count: 1, on_host: 1 }
    }
}

impl Default for Opening<'_> {
    /// A new run.
    fn default() -> Self {
        let cancelled = &|| false;
        let processes = Processes::default();
        Self {
            is_new: true,
            record: None,
            skip_again: false,
            accept_data_change: false,
            processes,
            cancelled,
        }
    }
}

impl fmt::Debug for Opening<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening")
            .field("is_new", &self.is_new)
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

/// Opens the images and, for a new run, the weights to start from. A new plan of conditional networks gets the classes
/// of the dataset.
///
/// # Errors
/// [`InputsError`].
pub fn open(plan: &mut Plan, device: Device, opening: &Opening<'_>) -> Result<Inputs, InputsError> {
    check_precision(plan.training.dtype, &device)?;
    check_shards(plan.training.shards, &device, opening.processes.count)?;
    check_memory(plan, &device)?;
    let shape = plan.image_shape();
    let (data, data_name) = match &plan.run.data {
        None => {
            tracing::info!(
                "no --data given: training on the embedded digits (10,000 of MNIST's training set)"
            );
            let name = "10,000 digits of MNIST's training set (CC BY-SA 3.0)";
            (Dataset::embedded_digits(shape)?, name.to_owned())
        }
        Some(path) => {
            let mut name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            if dcgan_data::is_remote(path) {
                // Behind it may be a signature.
                name.truncate(name.find('?').unwrap_or(name.len()));
            }
            (images::open(path, plan, opening)?, name)
        }
    };
    tracing::info!("{}", data.report());
    if plan.run.data.is_some() {
        for warning in preset_choice::warnings(&data.probe(), plan.run.crop, shape) {
            tracing::warn!("{warning}");
        }
    }
    let batch_size = plan.training.batch_size;
    if data.len() < batch_size {
        return Err(InputsError::TooFew { images: data.len(), batch_size });
    }
    if plan.run.best_by == BestBy::Kid && data.len() < SUBSET_SIZE {
        return Err(InputsError::NoKid { images: data.len() });
    }
    if plan.training.conditional {
        set_classes(plan, &data, opening.is_new)?;
        check_memory(plan, &device)?;
    }
    let init = match plan.run.init_from.as_ref().filter(|_| opening.is_new) {
        None => None,
        Some(path) => {
            let model = Model::new(plan.model.clone())?;
            let opened = dcgan_model::open(path, Some(&model))?;
            opened.notes.iter().for_each(|note| tracing::info!("--init-from: {note}"));
            let files = opened.files;
            check_init(path, &files, &model)?;
            tracing::info!("{}", init_note(path, &files));
            let (ours, theirs) = (&plan.model.class_names, &files.model.config().class_names);
            if !ours.is_empty() && !theirs.is_empty() && ours != theirs {
                tracing::warn!(
                    "--init-from {}: the classes {} start from those of {}, in this order",
                    path.display(),
                    ours.join(", "),
                    theirs.join(", ")
                );
            }
            Some(files)
        }
    };
    let inception = match plan.run.metrics_every {
        None => None,
        Some(_) => {
            let path = plan.run.inception.clone().or_else(default_weights).ok_or(InputsError::NoInception)?;
            Some(InceptionWeights::read(&path).map_err(|error| InputsError::Inception(Box::new(error)))?)
        }
    };
    let accept_data_change = opening.accept_data_change;
    let group = alone();
    Ok(Inputs { data: Arc::new(data), data_name, device, init, inception, accept_data_change, group })
}

/// The number of classes, if conditional networks can be trained on them.
pub(crate) fn check_classes(classes: Option<usize>) -> Result<usize, InputsError> {
    match classes {
        None => Err(InputsError::NoLabels),
        Some(classes @ ..2) => Err(InputsError::OneClass { classes }),
        Some(classes) => Ok(classes),
    }
}

/// Sets the classes of the networks of a new run, and compares them for others.
fn set_classes(plan: &mut Plan, data: &Dataset, is_new: bool) -> Result<(), InputsError> {
    let classes = check_classes(data.classes())?;
    let names = data.class_names().unwrap_or_default();
    if is_new {
        (plan.model.classes, plan.model.class_names) = (classes, names.to_vec());
        Model::new(plan.model.clone())?;
        tracing::info!("conditional networks: {classes} classes");
    } else if plan.model.classes != classes {
        return Err(InputsError::OtherClasses { expected: plan.model.classes, found: classes });
    } else if !names.is_empty() && !plan.model.class_names.is_empty() && plan.model.class_names != names {
        let expected = plan.model.class_names.clone();
        return Err(InputsError::OtherClassNames { expected, found: names.to_vec() });
    }
    Ok(())
}

/// What a run takes from the weights to start from.
fn init_note(path: &Path, files: &ModelFiles) -> String {
    let start = |there, missing| {
        let path = path.display();
        format!(
            "--init-from {path}: the {there} starts from its weights; it has no {missing}, \
             which is initialized randomly"
        )
    };
    match (&files.generator, &files.discriminator) {
        (Some(_), None) => start("generator", "discriminator"),
        (None, Some(_)) => start("discriminator", "generator"),
        _ => format!("--init-from {}: both networks start from its weights", path.display()),
    }
}

/// Refuses weights that do not fit the networks of the plan.
fn check_init(path: &Path, files: &ModelFiles, model: &Model) -> Result<(), InputsError> {
    let check = |given: &Option<Weights>, specs: &[TensorSpec]| {
        let fault = given.as_ref().and_then(|given| weights::check(path, given, specs).err());
        fault.map(|fault| format!("--init-from {fault}"))
    };
    let faults = [
        check(&files.generator, &model.generator_tensors()),
        check(&files.discriminator, &model.discriminator_tensors()),
    ];
    let faults: Vec<String> = faults.into_iter().flatten().collect();
    if faults.is_empty() { Ok(()) } else { Err(InputsError::InitMisfit(faults)) }
}
