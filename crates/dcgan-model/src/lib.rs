//! DCGAN networks as data: configuration, presets, weights in and out.
//!
//! No files but weights and configurations, no clock, no printing.

mod candle;
pub mod checkpoints;
mod config;
mod folder;
pub mod import;
mod latents;
mod model;
mod network;
pub mod onnx;
mod open;
pub mod pixels;
mod preset;
pub mod random;
mod sample;
mod shipped;
pub mod weights;

pub use config::{
    BlockConfig, CONFIG_VERSION, DiscriminatorConfig, Distribution, GeneratorConfig, LatentConfig,
    ModelConfig, NormConfig, OnLayers,
};
pub use dcgan_ops::{Device, DeviceChoice, DeviceError};
pub use dcgan_remote::is_hub_address;
pub use folder::{FolderError, ModelFiles};
pub use latents::{Classes, Latents};
pub use model::{ConfigError, Model};
pub use network::{
    BuildExecutor, Classifier, Discriminator, Generator, NetworkError, load_weights, network_weights,
};
pub use open::{OpenError, Opened, networks, open, open_files};
pub use preset::{Preset, PresetError};
pub use shipped::shipped_model;
