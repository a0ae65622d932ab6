//! DCGAN networks as data: configuration, presets, weights in and out.
//!
//! No files but weights and configurations, no clock, no printing.

pub mod checkpoints;
mod config;
mod device;
mod folder;
pub mod import;
mod model;
mod network;
mod open;
pub mod pixels;
mod preset;
pub mod random;
mod sample;
pub mod weights;

pub use config::{
    BlockConfig, DiscriminatorConfig, Distribution, GeneratorConfig, LatentConfig, ModelConfig, NormConfig,
};
pub use device::{DeviceChoice, DeviceError};
pub use folder::{FolderError, ModelFiles};
pub use model::{ConfigError, Model};
pub use network::{Classifier, Discriminator, Generator, Network, NetworkError};
pub use open::{OpenError, Opened, ensure_statistics, networks, open};
pub use preset::{Preset, PresetError};
pub use sample::{draw, draw_latents};
