//! The presets: `models/*.toml`, compiled in.

use crate::{ConfigError, Model, ModelConfig};
use serde::Deserialize;

/// A named configuration of networks and training.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// The networks.
    pub model: ModelConfig,
    /// The training settings; dcgan-train knows what they mean.
    pub training: toml::Table,
    /// The settings of a run, in its plan.toml; dcgan-train knows what they mean.
    #[serde(default)]
    pub run: toml::Table,
}

/// Why a preset or configuration file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PresetError {
    /// No preset of that name.
    #[error("there is no preset {name:?}; presets: {}", Preset::names().collect::<Vec<_>>().join(", "))]
    Unknown {
        /// The name given.
        name: String,
    },
    /// Not TOML, or a field that is missing, unknown or of the wrong type.
    #[error("the configuration cannot be read: {0}")]
    Syntax(#[from] toml::de::Error),
    /// Values that do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The files, in the order in which they are listed.
const FILES: [(&str, &str); 7] = [
    ("digits", include_str!("../assets/digits.toml")),
    ("pytorch64", include_str!("../assets/pytorch64.toml")),
    ("pytorch32", include_str!("../assets/pytorch32.toml")),
    ("paper64", include_str!("../assets/paper64.toml")),
    ("svhn32", include_str!("../assets/svhn32.toml")),
    ("imagenet32", include_str!("../assets/imagenet32.toml")),
    ("mnist-cond", include_str!("../assets/mnist-cond.toml")),
];

impl Preset {
    /// The presets' names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FILES.iter().map(|(name, _)| *name)
    }

    /// The preset `name`.
    ///
    /// # Errors
    /// [`PresetError::Unknown`] names those that exist.
    pub fn named(name: &str) -> Result<Self, PresetError> {
        Self::parse(Self::text(name)?)
    }

    /// The text of the preset `name`: a file to start one's own from.
    ///
    /// # Errors
    /// [`PresetError::Unknown`].
    pub fn text(name: &str) -> Result<&'static str, PresetError> {
        let file = FILES.iter().find(|(known, _)| *known == name);
        file.map(|(_, text)| *text).ok_or_else(|| PresetError::Unknown { name: name.into() })
    }

    /// Reads `[model]` and `[training]` from TOML; the networks are not checked yet.
    ///
    /// # Errors
    /// [`PresetError::Syntax`] with line and column.
    pub fn parse(text: &str) -> Result<Self, PresetError> {
        Ok(toml::from_str(text)?)
    }

    /// The checked networks.
    ///
    /// # Errors
    /// Every fault of the configuration.
    pub fn model(&self) -> Result<Model, ConfigError> {
        Model::new(self.model.clone())
    }
}
