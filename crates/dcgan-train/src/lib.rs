//! Trains a DCGAN: one step, one loop, one run folder.
//!
//! [`trainer::run`] trains by a checked [`config::Plan`] in a [`run_folder::RunFolder`] and tells what happens through
//! [`event::Event`]s. The binary `dcgan-train` is its first caller.

pub mod alarm;
pub mod bench;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod event;
pub mod quality;
pub mod run_folder;
mod start;
pub mod step;
pub mod trainer;
