//! Whatever `--model` may be: a MODEL folder, a checkpoint, a run folder, or a file in another program's format.

use crate::import::{self, Expected, ImportError};
use crate::{FolderError, Model, ModelFiles, NetworkError, Preset, PresetError, checkpoints};
use std::path::{Path, PathBuf};

/// Why a model could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing there.
    #[error("{} does not exist", path.display())]
    Absent {
        /// The path.
        path: PathBuf,
    },
    /// A file of another program does not say what networks it holds.
    #[error("{} is not a model folder of this program; name its networks with --preset or --config (presets: {})", path.display(), Preset::names().collect::<Vec<_>>().join(", "))]
    NeedsPreset {
        /// The path.
        path: PathBuf,
    },
    /// A run that has written no checkpoint yet.
    #[error("the run {} has no checkpoint yet", path.display())]
    NoCheckpoint {
        /// The run folder.
        path: PathBuf,
    },
    /// A model folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file of another program.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The preset named.
    #[error(transparent)]
    Preset(#[from] PresetError),
    /// Recalibrating statistics.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// A model, and what is worth saying about where it came from.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its networks.
    pub files: ModelFiles,
    /// Sentences for the user.
    pub notes: Vec<String>,
}

/// The networks that `--preset` or `--config` describe; none where neither is given.
///
/// # Errors
/// A preset that does not exist; a file that cannot be read; networks that cannot be.
pub fn networks(preset: Option<&str>, config: Option<&Path>) -> Result<Option<Model>, OpenError> {
    let preset = match (preset, config) {
        (_, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| FolderError::Io { path: path.into(), source })?;
            Preset::parse(&text)?
        }
        (Some(name), None) => Preset::named(name)?,
        (None, None) => return Ok(None),
    };
    Ok(Some(preset.model().map_err(PresetError::from)?))
}

/// Opens `path`; `networks` are those of a file of another program, and not looked at for a model folder, which says
/// its own.
///
/// # Errors
/// [`OpenError`].
pub fn open(path: &Path, networks: Option<&Model>) -> Result<Opened, OpenError> {
    if !path.exists() {
        return Err(OpenError::Absent { path: path.into() });
    }
    if path.join("config.json").exists() {
        let files = ModelFiles::read(path)?;
        let other = networks.is_some_and(|networks| networks.config() != files.model.config());
        let note =
            "the model folder says its own networks: --preset and --config are not looked at".to_owned();
        return Ok(Opened { files, notes: Vec::from_iter(other.then_some(note)) });
    }
    if path.join("plan.toml").exists() {
        let best = path.join("best");
        let folder = path.join("checkpoints");
        let newest = || -> Result<PathBuf, OpenError> {
            let newest = checkpoints::list(&folder)?.pop();
            newest
                .map(|step| folder.join(checkpoints::name(step)))
                .ok_or_else(|| OpenError::NoCheckpoint { path: path.into() })
        };
        let chosen = if best.exists() { std::fs::canonicalize(&best).unwrap_or(best) } else { newest()? };
        let notes = vec![format!("using checkpoint {}", chosen.display())];
        return Ok(Opened { files: ModelFiles::read(&chosen)?, notes });
    }
    let model = networks.ok_or_else(|| OpenError::NeedsPreset { path: path.into() })?.clone();
    let expected =
        Expected { generator: model.generator_tensors(), discriminator: model.discriminator_tensors() };
    let found = import::read(path, &expected)?;
    let files = ModelFiles { model, generator: found.generator, discriminator: found.discriminator };
    Ok(Opened { files, notes: found.notes })
}
