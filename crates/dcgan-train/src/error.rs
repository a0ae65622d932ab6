//! Errors of a run.

use crate::checkpoint::CheckpointError;
use crate::frechet::FrechetError;
use crate::run_folder::RunFolderError;
use crate::step::StepError;
use dcgan_data::DataError;
use dcgan_data::image_grid::ImageGridError;
use dcgan_metrics::MetricsError;
use dcgan_model::DeviceError;
use dcgan_model::{ConfigError, NetworkError};
use std::path::{Path, PathBuf};

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration of the networks.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Images, before the first step.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An image that cannot be read, at a step.
    #[error("step {step}: {source}; {}", last_good(.checkpoint))]
    Image {
        /// The step, counted from 1.
        step: u64,
        /// What happened.
        source: Box<DataError>,
        /// The last good checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// A network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A loss or gradient that is not finite, or a failing network, at a step.
    #[error("step {step}: {source}; {}", last_good(.checkpoint))]
    Step {
        /// The step, counted from 1.
        step: u64,
        /// What happened.
        source: Box<StepError>,
        /// The last good checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// The run folder: a full disk, a folder that cannot be written.
    #[error("{source}{}", last_good_if_any(.checkpoint))]
    Folder {
        /// What happened.
        source: Box<RunFolderError>,
        /// The last good checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// An image grid too large for a PNG.
    #[error(transparent)]
    ImageGrid(ImageGridError),
    /// The random-feature Fréchet distance.
    #[error(transparent)]
    RandomFeatureFrechet(#[from] FrechetError),
    /// FID and KID.
    #[error(transparent)]
    Metrics(Box<MetricsError>),
    /// The dataset changed between stop and resume.
    #[error(
        "the dataset is not the one of the start of the run: {difference}; restore it, or continue with the new one by \
         `resume --accept-data-change`: the run then differs from one on unchanged data"
    )]
    OtherData {
        /// What changed.
        difference: String,
    },
    /// Another process of the run failed.
    #[error("{process} failed; its own message says why")]
    OtherProcess {
        /// Its name ([`dcgan_ops::ProcessGroup::name`]).
        process: String,
    },
    /// A process whose parameters differ from those of rank 0.
    #[error(
        "{process} and rank 0 have different parameters after {step} steps: the memory or processor of one is faulty"
    )]
    Diverged {
        /// Its name.
        process: String,
        /// The steps taken.
        step: u64,
    },
    /// A process that was started differently from rank 0.
    #[error("the {what} of {process} differs from that of rank 0: start all processes with the same")]
    OtherSetup {
        /// Its name.
        process: String,
        /// What differs.
        what: &'static str,
    },
    /// Processes that cannot divide a minibatch.
    #[error(
        "{processes} processes cannot divide {shards} shard(s): use a power of two for --shards and for the number of \
         processes, with at least as many shards as processes"
    )]
    Processes {
        /// Processes of the group.
        processes: usize,
        /// Shards of the plan.
        shards: usize,
    },
    /// A message between processes that cannot be read.
    #[error("a message between processes: {problem}")]
    Message {
        /// What is wrong.
        problem: String,
    },
    /// The weights to start from do not fit.
    #[error("--init-from {}: {problem}", path.display())]
    Init {
        /// The model.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl From<MetricsError> for TrainError {
    fn from(error: MetricsError) -> Self {
        Self::Metrics(Box::new(error))
    }
}

impl TrainError {
    /// Adds the last good checkpoint to the errors that report it.
    pub(crate) fn with_last_good(self, checkpoint: Option<&Path>) -> Self {
        let checkpoint = checkpoint.map(Path::to_path_buf);
        match self {
            Self::Step { step, source, .. } => Self::Step { step, source, checkpoint },
            Self::Folder { source, .. } => Self::Folder { source, checkpoint },
            Self::Image { step, source, .. } => Self::Image { step, source, checkpoint },
            other => other,
        }
    }

    /// Whether every process of the run knows of it.
    pub(crate) fn is_of_all_processes(&self) -> bool {
        matches!(
            self,
            Self::OtherProcess { .. }
                | Self::Diverged { .. }
                | Self::OtherSetup { .. }
                | Self::Image { .. }
                | Self::Step { .. }
        )
    }

    /// Whether an image of the dataset could not be read.
    pub fn is_unreadable_image(&self) -> bool {
        matches!(self, Self::Image { .. } | Self::Data(_) | Self::RandomFeatureFrechet(FrechetError::Data(_)))
    }
}

fn last_good_if_any(checkpoint: &Option<PathBuf>) -> String {
    if checkpoint.is_some() { format!("; {}", last_good(checkpoint)) } else { String::new() }
}

fn last_good(checkpoint: &Option<PathBuf>) -> String {
    match checkpoint {
        Some(path) => format!("the last good checkpoint is {}", path.display()),
        None => "no checkpoint had been written".to_owned(),
    }
}

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error.into())
    }
}

impl From<dcgan_ops::OpsError> for TrainError {
    fn from(error: dcgan_ops::OpsError) -> Self {
        Self::Network(error.into())
    }
}

impl From<serde_json::Error> for TrainError {
    fn from(error: serde_json::Error) -> Self {
        Self::Message { problem: error.to_string() }
    }
}

impl From<RunFolderError> for TrainError {
    fn from(source: RunFolderError) -> Self {
        Self::Folder { source: Box::new(source), checkpoint: None }
    }
}

impl From<CheckpointError> for TrainError {
    fn from(source: CheckpointError) -> Self {
        RunFolderError::from(source).into()
    }
}

impl From<ImageGridError> for TrainError {
    fn from(error: ImageGridError) -> Self {
        match error {
            ImageGridError::Io { path, source } => RunFolderError::Io { path, source }.into(),
            other => Self::ImageGrid(other),
        }
    }
}
