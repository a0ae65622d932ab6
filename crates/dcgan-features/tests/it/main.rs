//! The binary `dcgan-eval` from outside.

mod background;
mod classes;
mod dedup;
#[cfg(feature = "cuda")]
mod gpu;
mod metrics;
mod outputs;
mod results;
mod samples;
mod support;
mod usage;
