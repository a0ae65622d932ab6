//! DCGAN networks as data: configuration, presets, weights in and out.
//!
//! No files but weights and configurations, no clock, no printing.

mod config;
mod folder;
pub mod foreign;
mod model;
mod network;
mod preset;
pub mod random;
pub mod weights;

pub use config::{
    BlockConfig, DiscriminatorConfig, Distribution, GeneratorConfig, LatentConfig, ModelConfig, NormConfig,
};
pub use folder::{FolderError, ModelFiles};
pub use model::{ConfigError, Model};
pub use network::{Discriminator, Generator, Network, NetworkError, Scores};
pub use preset::{Preset, PresetError};
