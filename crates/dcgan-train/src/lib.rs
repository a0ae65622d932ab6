//! Trains a DCGAN: one step, one loop, one run folder.
//!
//! [`trainer::run`] trains by a checked [`config::Plan`] in a [`run_folder::RunFolder`] and tells what happens through
//! [`event::Event`]s. The binary `dcgan-train` is its first caller.

pub mod alarm;
pub mod bench;
pub mod checkpoint;
pub mod config;
pub mod device;
pub mod error;
pub mod event;
mod files;
pub mod grid;
pub mod models;
pub mod pixels;
pub mod quality;
pub mod run_folder;
pub mod sample;
mod start;
pub mod step;
pub mod trainer;
