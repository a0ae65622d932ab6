//! Whatever `--model` may be: a MODEL folder, a checkpoint, a run folder, a model of the Hugging Face Hub, or a file in
//! another program's format.

use crate::import::{self, ImportError, ImportOptions, NetworkKind};
use crate::{FolderError, Model, ModelFiles, NetworkError, Preset, PresetError, checkpoints, weights};
use dcgan_remote::{HubError, is_hub_address};
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
    /// Several files, one of which has both networks.
    #[error("{} is a model, with all its networks: name it alone", path.display())]
    NotAlone {
        /// The model folder or run folder.
        path: PathBuf,
    },
    /// A size of images that is not that of the model.
    #[error("{}: its networks are for images of {}x{}, not of {}x{}: omit the size", path.display(), found.0, found.1,
        size.0, size.1)]
    OtherSize {
        /// The model folder, run folder or file.
        path: PathBuf,
        /// Rows and columns of its images.
        found: (usize, usize),
        /// The size given.
        size: (usize, usize),
    },
    /// Weights that are not numbers.
    #[error("{}: the {network} contains NaN or infinity ({tensor}): training diverged; use an earlier checkpoint", path.display())]
    NonFinite {
        /// The model.
        path: PathBuf,
        /// The network.
        network: NetworkKind,
        /// The first such tensor.
        tensor: String,
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
    /// A model of the Hugging Face Hub.
    #[error(transparent)]
    Hub(#[from] HubError),
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
    /// The model folder that was read, of a run that of a checkpoint; none for files of another program.
    pub folder: Option<PathBuf>,
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

/// Opens `path`; `networks` are those of a file of another program, and ignored for a model folder, which defines its
/// own. Without them, they are inferred from the tensors.
///
/// # Errors
/// [`OpenError`].
pub fn open(path: &Path, networks: Option<&Model>) -> Result<Opened, OpenError> {
    open_files(&[path.to_owned()], &ImportOptions { model: networks, ..ImportOptions::default() })
}

/// [`open`] for one path or several files of another program, such as one of each network in any order.
///
/// # Errors
/// [`OpenError`].
pub fn open_files(paths: &[PathBuf], options: &ImportOptions<'_>) -> Result<Opened, OpenError> {
    let mut notes = Vec::new();
    let paths = &pulled(paths, &mut notes)?[..];
    if let Some(path) = paths.iter().find(|path| !path.exists()) {
        return Err(OpenError::Absent { path: path.clone() });
    }
    let mut opened = open_local(paths, options)?;
    opened.notes.splice(0..0, notes);
    Ok(opened)
}

/// `paths` with those of models of the Hub copied to this machine.
fn pulled(paths: &[PathBuf], notes: &mut Vec<String>) -> Result<Vec<PathBuf>, HubError> {
    let local = |path: &PathBuf| match path.to_str().filter(|_| is_hub_address(path)) {
        Some(address) => dcgan_remote::pull(address, notes),
        None => Ok(path.clone()),
    };
    paths.iter().map(local).collect()
}

fn open_local(paths: &[PathBuf], options: &ImportOptions<'_>) -> Result<Opened, OpenError> {
    let is_model = |path: &&PathBuf| path.join("config.json").exists() || path.join("plan.toml").exists();
    match (paths, paths.iter().find(is_model)) {
        ([path], Some(_)) => {
            let mut opened = open_model(path, options.model)?;
            check_size(&opened, path, options)?;
            check_finite(&mut opened, options.allow_non_finite)?;
            Ok(opened)
        }
        (_, Some(path)) => Err(OpenError::NotAlone { path: path.clone() }),
        _ => {
            let (model, found) = import::read_model(paths, options).map_err(|error| match error {
                ImportError::NeedsModel { path } => OpenError::NeedsPreset { path },
                error => error.into(),
            })?;
            let files = ModelFiles { model, generator: found.generator, discriminator: found.discriminator };
            let opened = Opened { files, notes: found.notes, folder: None };
            check_size(&opened, paths.first().map_or(Path::new(""), PathBuf::as_path), options)?;
            Ok(opened)
        }
    }
}

/// Refuses a size that is not that of networks whose configuration is known; inferred ones have the size given.
fn check_size(opened: &Opened, path: &Path, options: &ImportOptions<'_>) -> Result<(), OpenError> {
    let (height, width, _) = opened.files.model.config().image_shape();
    match options.size.filter(|size| *size != (height, width)) {
        Some(size) => Err(OpenError::OtherSize { path: path.to_owned(), found: (height, width), size }),
        None => Ok(()),
    }
}

/// Opens a model folder or a run folder.
fn open_model(path: &Path, networks: Option<&Model>) -> Result<Opened, OpenError> {
    if path.join("config.json").exists() {
        let files = ModelFiles::read(path)?;
        let other = networks.is_some_and(|networks| networks.config() != files.model.config());
        let note = "the model folder defines its networks: --preset and --config are ignored".to_owned();
        let notes = Vec::from_iter(other.then_some(note));
        return Ok(Opened { files, notes, folder: Some(path.to_owned()) });
    }
    let chosen = checkpoints::best(path)?.ok_or_else(|| OpenError::NoCheckpoint { path: path.into() })?;
    let notes = vec![format!("using checkpoint {}", chosen.display())];
    Ok(Opened { files: ModelFiles::read(&chosen)?, notes, folder: Some(chosen) })
}

/// Refuses weights that give no images, or notes them.
fn check_finite(opened: &mut Opened, allow: bool) -> Result<(), OpenError> {
    let ModelFiles { generator, discriminator, .. } = &opened.files;
    let networks = [(NetworkKind::Generator, generator), (NetworkKind::Discriminator, discriminator)];
    for (network, weights) in networks {
        let Some(tensor) = weights.as_ref().and_then(weights::first_non_finite) else { continue };
        if !allow {
            let path = opened.folder.clone().unwrap_or_default();
            return Err(OpenError::NonFinite { path, network, tensor: tensor.to_owned() });
        }
        opened.notes.push(format!("{network}: {tensor} contains NaN or infinity"));
    }
    Ok(())
}
