//! The MODEL folder: `config.json`, `generator.safetensors`, `discriminator.safetensors`, `README.md`.

use crate::weights::{self, Precision, Weights, WeightsError};
use crate::{ConfigError, Model, ModelConfig};
use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const CONFIG: &str = "config.json";
const GENERATOR: &str = "generator.safetensors";
const DISCRIMINATOR: &str = "discriminator.safetensors";
const CARD: &str = "README.md";

/// The part of the card that draws from the generator in PyTorch.
const PYTORCH: &str = concat!(
    "\n## In PyTorch\n\nThis draws from the generator, in this folder. It needs torch and safetensors.\n\n```python\n",
    include_str!("../assets/draw.py"),
    "```\n"
);

/// `config.json` and both networks of `models/digits`.
const EMBEDDED_DIGITS: (&str, &[u8], &[u8]) = (
    include_str!("../assets/digits/config.json"),
    include_bytes!("../assets/digits/generator.safetensors"),
    include_bytes!("../assets/digits/discriminator.safetensors"),
);

/// A model folder in memory; either network may be absent.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// Its configuration.
    pub model: Model,
    /// G's weights.
    pub generator: Option<Weights>,
    /// D's weights.
    pub discriminator: Option<Weights>,
}

/// Why a model folder could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No `config.json`.
    #[error("{} is not a model folder: it has no config.json", path.display())]
    NotAModel {
        /// The folder.
        path: PathBuf,
    },
    /// `config.json` is not what it should be.
    #[error("{}: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// `config.json` describes networks that cannot be.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Every fault.
        source: ConfigError,
    },
    /// A weights file is damaged or does not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> FolderError + '_ {
    |source| FolderError::Io { path: path.into(), source }
}

/// Weights of a folder whose configuration has the given version, under today's names.
fn upgraded(weights: Weights, version: u32) -> Weights {
    if version < 2 { weights::upgrade_names(weights) } else { weights }
}

/// A configuration; fields whose names start with `_` are notes of other programs, such as the `_class_name` of the
/// Hugging Face Hub.
fn parse_config(text: &str) -> Result<ModelConfig, serde_json::Error> {
    let mut value: serde_json::Value = serde_json::from_str(text)?;
    match value.as_object_mut() {
        Some(fields) if fields.keys().any(|name| name.starts_with('_')) => {
            fields.retain(|name, _| !name.starts_with('_'));
            serde_json::from_value(value)
        }
        // With the positions of errors.
        _ => serde_json::from_str(text),
    }
}

/// Reads the file of a name; `None` if it is not there.
type ReadFile<'a> = dyn Fn(&str) -> Result<Option<Cow<'static, [u8]>>, FolderError> + 'a;

impl ModelFiles {
    /// Reads a folder and checks every tensor.
    ///
    /// # Errors
    /// What is missing, damaged or misshapen, with its path.
    pub fn read(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join(CONFIG);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FolderError::NotAModel { path: folder.into() });
            }
            text => text.map_err(io_error(&path))?,
        };
        Self::parse(folder, &text, &|name| match fs::read(folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            bytes => Ok(Some(bytes.map_err(io_error(&folder.join(name)))?.into())),
        })
    }

    /// The model of a configuration and of the files that `bytes` reads, if they are there; `folder` is for messages.
    fn parse(folder: &Path, config: &str, bytes: &ReadFile<'_>) -> Result<Self, FolderError> {
        let path = folder.join(CONFIG);
        let config =
            parse_config(config).map_err(|source| FolderError::Syntax { path: path.clone(), source })?;
        let version = config.version;
        let model = Model::new(config).map_err(|source| FolderError::Config { path, source })?;
        let read = |name: &str, specs: &[weights::TensorSpec]| -> Result<Option<Weights>, FolderError> {
            let Some(bytes) = bytes(name)? else { return Ok(None) };
            let path = folder.join(name);
            let weights = upgraded(weights::parse_safetensors(&path, &bytes)?, version);
            weights::check(&path, &weights, specs)?;
            Ok(Some(weights))
        };
        let generator = read(GENERATOR, &model.generator_tensors())?;
        let discriminator = read(DISCRIMINATOR, &model.discriminator_tensors())?;
        Ok(Self { model, generator, discriminator })
    }

    /// The small model of handwritten digits that is compiled in (`models/digits`, see the card there).
    ///
    /// # Errors
    /// None but those of a build whose files do not fit.
    pub fn embedded_digits() -> Result<Self, FolderError> {
        let (config, generator, discriminator) = EMBEDDED_DIGITS;
        Self::parse(Path::new("the embedded model"), config, &|name| {
            Ok(Some(if name == GENERATOR { generator } else { discriminator }.into()))
        })
    }

    /// Writes the folder, which must exist, with `card` as its README.md. A card with a generator ends with Python code
    /// that draws from it in PyTorch; it is added where `card` has none. The bytes depend on the contents alone.
    ///
    /// # Errors
    /// The file that could not be written.
    pub fn write(&self, folder: &Path, card: &str, dtype: Precision) -> Result<(), FolderError> {
        let path = folder.join(CONFIG);
        let mut text = serde_json::to_string_pretty(self.model.config())
            .map_err(|source| FolderError::Syntax { path: path.clone(), source })?;
        text.push('\n');
        fs::write(&path, text).map_err(io_error(&path))?;
        for (name, weights) in [(GENERATOR, &self.generator), (DISCRIMINATOR, &self.discriminator)] {
            if let Some(weights) = weights {
                weights::write_safetensors(&folder.join(name), weights, dtype)?;
            }
        }
        let path = folder.join(CARD);
        let pytorch = if self.generator.is_some() && !card.contains(PYTORCH) { PYTORCH } else { "" };
        fs::write(&path, format!("{card}{pytorch}")).map_err(io_error(&path))
    }
}
