//! The binary `dcgan-train`, run as its users run it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod compare;
mod conditional;
#[cfg(feature = "cuda")]
mod cuda;
mod defaults;
mod kill;
mod lost;
mod metrics;
mod processes;
mod sample;
#[cfg(feature = "service")]
mod service;
#[cfg(unix)]
mod signals;
mod support;
mod usage;
mod version1;
