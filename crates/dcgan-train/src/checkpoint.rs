//! Checkpoints: all that is needed to resume a run exactly.
//!
//! A checkpoint is a MODEL folder plus `state.safetensors` (Adam's moments, G's raw weights beside an EMA) and
//! `state.json` (counters). It holds no clock and no host name: equal runs write equal bytes. It is written as
//! `.tmp-SSSSSSSS`, flushed, and renamed, so that a folder named by its step is whole.

use crate::alarm::Alarms;
use crate::config::{BatchNorm, Plan, TrainingConfig};
use dcgan_base::files;
use dcgan_data::LoaderPosition;
use dcgan_model::weights::{self, HostTensor, Precision, Weights, WeightsError};
use dcgan_model::{FolderError, Model, ModelFiles, checkpoints};
use dcgan_ops::Layer;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const STATE: &str = "state.json";
const TENSORS: &str = "state.safetensors";
/// Marks a checkpoint whose `state.safetensors` was removed on purpose.
const DROPPED: &str = "state.dropped";
/// Version 1 had other names of tensors, which are still read.
const VERSION: u32 = 2;

/// The counters of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Format of the checkpoint.
    pub version: u32,
    /// Steps taken.
    pub step: u64,
    /// Real images read.
    pub images: u64,
    /// The minibatch that comes next.
    pub position: LoaderPosition,
    /// Adam steps of G.
    pub generator_updates: u64,
    /// Adam steps of D.
    pub discriminator_updates: u64,
    /// Fingerprint of the dataset: another one would come in another order.
    pub data: String,
    /// State of the alarms.
    pub alarms: Alarms,
    /// The best checkpoint so far, this one included.
    pub best: Option<Best>,
    /// Whether samples and a scheduled checkpoint of this step are still due: the run failed while it wrote them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unrecorded: bool,
}

/// Checkpoints of undisturbed runs do not have the field.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// The best checkpoint of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Its step.
    pub step: u64,
    /// Its Fréchet distance in random features.
    pub frechet: f64,
    /// Its FID or KID, where that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
    /// Identifies the metric, the Inception weights and the number of images: values of others cannot be compared with
    /// it. Absent in checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric_basis: Option<u64>,
}

/// All that is needed to resume a run.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The networks as a MODEL folder: G's weights are the EMA where there is one.
    pub files: ModelFiles,
    /// Counters.
    pub state: State,
    /// Adam's moments under `generator.first.NAME` and so on; G's raw weights under `generator.raw.NAME`.
    pub tensors: Weights,
}

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The operating system refused: a full disk, a folder that cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A network's file.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The state's tensors.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Written by another version of this program.
    #[error("{}: format {found}, this program reads 1 to {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The optimizer state was removed to save disk space.
    #[error(
        "{}: the optimizer state was dropped, so the run cannot be resumed exactly; start a new run with --init-from",
        path.display()
    )]
    Dropped {
        /// The checkpoint.
        path: PathBuf,
    },
    /// `state.json` is cut short or does not fit what lies beside it.
    #[error("{}: {problem}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl CheckpointError {
    /// Whether the checkpoint itself is at fault: cut short, damaged, incomplete; and not the disk, a permission or the
    /// program.
    pub fn is_damage(&self) -> bool {
        let by_kind = |source: &io::Error| {
            use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
            matches!(source.kind(), NotFound | UnexpectedEof | InvalidData)
        };
        match self {
            Self::Io { source, .. }
            | Self::Folder(
                FolderError::Io { source, .. } | FolderError::Weights(WeightsError::Io { source, .. }),
            )
            | Self::Weights(WeightsError::Io { source, .. }) => by_kind(source),
            Self::Version { .. } | Self::Dropped { .. } => false,
            Self::Folder(_) | Self::Weights(_) | Self::State { .. } => true,
        }
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError + '_ {
    |source| CheckpointError::Io { path: path.into(), source }
}

impl State {
    /// The state of a run that has not begun, on the dataset of that fingerprint.
    pub fn start(data: &str) -> Self {
        Self {
            version: VERSION,
            step: 0,
            images: 0,
            position: LoaderPosition { epoch: 0, batch: 0 },
            generator_updates: 0,
            discriminator_updates: 0,
            data: data.to_owned(),
            alarms: Alarms::default(),
            best: None,
            unrecorded: false,
        }
    }

    /// Reads the state of the checkpoint in `folder`.
    ///
    /// # Errors
    /// A missing or damaged file; another version.
    pub(crate) fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(STATE);
        let text = fs::read_to_string(&path).map_err(io_error(&path))?;
        let state: Self = serde_json::from_str(&text)
            .map_err(|error| CheckpointError::State { path: path.clone(), problem: error.to_string() })?;
        if (1..=VERSION).contains(&state.version) {
            Ok(state)
        } else {
            Err(CheckpointError::Version { path, found: state.version })
        }
    }
}

impl Checkpoint {
    /// Writes the checkpoint under `folder` (a run's `checkpoints`), all or nothing, and returns its path.
    ///
    /// # Errors
    /// What the operating system says; the unfinished folder is removed and earlier checkpoints stay.
    pub fn write(&self, folder: &Path, card: &str) -> Result<PathBuf, CheckpointError> {
        let name = checkpoints::name(self.state.step);
        let (path, temporary) = (folder.join(&name), folder.join(format!(".tmp-{name}")));
        self.write_all(folder, &path, &temporary, card)
            .inspect_err(|_| drop(fs::remove_dir_all(&temporary)))?;
        Ok(path)
    }

    fn write_all(
        &self,
        folder: &Path,
        path: &Path,
        temporary: &Path,
        card: &str,
    ) -> Result<(), CheckpointError> {
        remove(temporary)?;
        fs::create_dir_all(temporary).map_err(io_error(temporary))?;
        self.files.write(temporary, card, Precision::F32)?;
        weights::write_safetensors(&temporary.join(TENSORS), &self.tensors, Precision::F32)?;
        let state = temporary.join(STATE);
        let text =
            serde_json::to_string_pretty(&self.state).map_err(io::Error::from).map_err(io_error(&state))?;
        fs::write(&state, text + "\n").map_err(io_error(&state))?;
        files::sync_folder(temporary).map_err(io_error(temporary))?;
        // One is there if the run failed between this step and the records that are due at it.
        let replaced = hide(path)?;
        fs::rename(temporary, path).map_err(io_error(path))?;
        if let Some(replaced) = replaced {
            fs::remove_dir_all(&replaced).map_err(io_error(&replaced))?;
        }
        files::sync_names(folder).map_err(io_error(folder))
    }

    /// Reads a checkpoint and checks every tensor.
    ///
    /// # Errors
    /// What is missing, damaged or misshapen.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let mut state = State::read(path)?;
        let file = path.join(STATE);
        let problem = |problem: String| CheckpointError::State { path: file.clone(), problem };
        if path.file_name().is_none_or(|folder| folder != checkpoints::name(state.step).as_str()) {
            return Err(problem(format!(
                "it is of step {}, which differs from the folder's name",
                state.step
            )));
        }
        if path.join(DROPPED).exists() && !path.join(TENSORS).exists() {
            return Err(CheckpointError::Dropped { path: path.into() });
        }
        let files = ModelFiles::read(path)?;
        let mut tensors = weights::read_safetensors(&path.join(TENSORS))?;
        if state.version < 2 {
            tensors = weights::upgrade_names(tensors);
            state.version = VERSION;
        }
        for (network, present) in
            [("generator", files.generator.is_some()), ("discriminator", files.discriminator.is_some())]
        {
            if !present {
                return Err(problem(format!("{network}.safetensors is missing beside it")));
            }
        }
        let model = &files.model;
        let networks =
            [("generator", model.generator_layers()), ("discriminator", model.discriminator_layers())];
        for (network, layers) in networks {
            for spec in layers.iter().flat_map(Layer::parameters) {
                for moment in ["first", "second"] {
                    let tensor = format!("{network}.{moment}.{}", spec.name);
                    if tensors.get(&tensor).is_none_or(|found| found.shape != spec.shape) {
                        return Err(problem(format!("{TENSORS} has no {tensor} of shape {:?}", spec.shape)));
                    }
                }
            }
        }
        Ok(Self { files, state, tensors })
    }
}

/// Removes the optimizer state of all checkpoints in `folder`, which is most of their size. The models stay. Returns
/// whether there was any.
///
/// # Errors
/// Those of the file system; what is left can be removed later.
pub fn drop_optimizer_state(folder: &Path) -> Result<bool, CheckpointError> {
    let mut found = false;
    for step in checkpoints::list(folder)? {
        let path = folder.join(checkpoints::name(step));
        let (tensors, mark) = (path.join(TENSORS), path.join(DROPPED));
        if !tensors.exists() {
            continue;
        }
        // First the mark: without both, the checkpoint would be taken for a damaged one.
        files::write_atomic(&mark, b"").map_err(io_error(&mark))?;
        fs::remove_file(&tensors).map_err(io_error(&tensors))?;
        found = true;
    }
    Ok(found)
}

/// Removes a folder if it is there, hiding it first so that no process sees a partly removed folder.
fn remove(path: &Path) -> Result<(), CheckpointError> {
    match hide(path)? {
        Some(hidden) => fs::remove_dir_all(&hidden).map_err(io_error(&hidden)),
        None => Ok(()),
    }
}

/// Gives a folder a hidden name, and returns that, if the folder is there.
fn hide(path: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    if !path.exists() {
        return Ok(None);
    }
    let hidden = path
        .with_file_name(format!(".tmp-removed-{}", path.file_name().unwrap_or_default().to_string_lossy()));
    if hidden.exists() {
        fs::remove_dir_all(&hidden).map_err(io_error(&hidden))?;
    }
    fs::rename(path, &hidden).map_err(io_error(path))?;
    Ok(Some(hidden))
}

/// Removes unfinished folders, and all checkpoints but the newest, the `keep` newest scheduled ones, and the best.
///
/// Those written when a run was interrupted lie outside the schedule; once a newer one is there they go, and what is
/// left is what an undisturbed run would have left.
///
/// # Errors
/// A folder that cannot be removed.
pub fn prune(
    folder: &Path,
    keep: usize,
    best: Option<u64>,
    scheduled: &dyn Fn(u64) -> bool,
) -> Result<(), CheckpointError> {
    let steps = checkpoints::list(folder)?;
    let newest = steps.last().copied();
    let kept: Vec<u64> = steps.iter().rev().copied().filter(|&step| scheduled(step)).take(keep).collect();
    for step in steps {
        if Some(step) != newest && Some(step) != best && !kept.contains(&step) {
            remove(&folder.join(checkpoints::name(step)))?;
        }
    }
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let entry = entry.map_err(io_error(folder))?;
        if entry.file_name().to_string_lossy().starts_with(".tmp-") {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(io_error(&path))?;
        }
    }
    Ok(())
}

/// Tensors under a prefix, the prefix cut off.
pub(crate) fn under<'a>(
    tensors: &'a Weights,
    prefix: &'a str,
) -> impl Iterator<Item = (String, &'a HostTensor)> {
    tensors.iter().filter_map(move |(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor)))
}

/// What a reader of the MODEL folder should know; the same for the same run.
pub fn card(model: &Model, state: &State, data: &str, plan: &Plan) -> String {
    let config = model.config();
    let TrainingConfig { batch_size, shards, batch_norm, .. } = plan.training;
    let minibatch = match (shards, batch_norm) {
        (1, _) => String::new(),
        (_, BatchNorm::Batch) => {
            format!("- minibatch: {batch_size} images in {shards} shards, batch norm over all of them\n")
        }
        (_, BatchNorm::Shard) => {
            let images = batch_size / shards;
            format!(
                "- minibatch: {batch_size} images in {shards} shards, batch norm over the {images} of each\n"
            )
        }
    };
    let classes = match (config.classes, config.class_names.as_slice()) {
        (0, _) => String::new(),
        (classes, []) => format!("- conditional: {classes} classes\n"),
        (classes, names) => format!("- conditional: {classes} classes ({})\n", names.join(", ")),
    };
    format!(
        "# {name}: a DCGAN at step {step}\n\n\
         Generator and discriminator of the architecture of Radford, Metz and Chintala (ICLR 2016) for {height} x {width} \
         images of {channels} channel(s), trained by dcgan-train.\n\n\
         - training data: {data}\n- real images read: {images}\n- seed: {seed}\n- size of z: {z}, {distribution:?}\n{classes}{minibatch}\n\
         Draw images: `dcgan-train sample --model THIS_FOLDER --out samples.png`. The tensors' names and layouts are described \
         in dcgan-model's documentation. The license of the training data binds what is made from it.\n",
        name = config.name,
        step = state.step,
        seed = plan.run.seed,
        height = config.height,
        width = config.width,
        channels = config.channels,
        images = state.images,
        z = config.latent.size,
        distribution = config.latent.distribution,
    )
}

/// The part of the card with the random-feature Fréchet distance of samples, and of real images.
pub fn card_metric(frechet: f64, real_frechet: Option<f64>) -> String {
    let real = real_frechet.map(|real| {
        format!("; it is {real:.4} between two halves of the real images, as it would be for perfect samples")
    });
    format!(
        "\nRandom-feature Fréchet distance of the samples: {frechet:.4} (lower is better, comparable within one dataset \
         only; not the FID of papers){}.\n",
        real.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_read_back_is_the_same_state() {
        for i in 1..5000_u32 {
            let frechet = f64::from(i).sqrt() / 7.3;
            let state = State {
                best: Some(Best { step: 3, frechet, metric: None, metric_basis: None }),
                ..State::start("data")
            };
            assert_eq!(
                serde_json::from_str::<State>(&serde_json::to_string(&state).unwrap()).unwrap(),
                state
            );
        }
    }
}
