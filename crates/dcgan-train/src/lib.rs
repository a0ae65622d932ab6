//! Training of DCGANs: the step, the loop, the run folder.
//!
//! [`trainer::run`] trains by a checked [`config::Plan`] in a [`run_folder::RunFolder`] and reports by
//! [`event::Event`]s. The command line (feature `cli`) and the service (`service`, a feature as well) call it.
//!
//! ```
//! use dcgan_train::config::{Plan, RunOptions};
//!
//! // A preset with the defaults of a run: what `dcgan-train run --preset pytorch32` trains by.
//! let options = RunOptions { preset: Some("pytorch32".into()), ..RunOptions::default() };
//! let plan = Plan::resolve(&options).expect("a preset is valid");
//! assert_eq!((plan.training.learning_rate, plan.training.beta1), (2e-4, 0.5)); // paper, section 4
//! ```

pub mod alarm;
pub mod bench;
pub mod checkpoint;
pub mod compare;
pub mod config;
pub mod data_record;
pub mod engine;
pub mod error;
mod evaluation;
pub mod event;
pub mod frechet;
mod inception_metrics;
pub mod inputs;
mod memory;
pub mod options;
pub mod preset_choice;
mod processes;
mod recorder;
pub mod run_folder;
#[cfg(feature = "service")]
pub mod service;
pub mod skip_bad;
mod start;
pub mod step;
mod steps;
mod tensorboard;
pub mod trainer;
pub mod trend;
pub mod verify;
