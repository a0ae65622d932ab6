//! The binary `dcgan-eval` from outside.

mod background;
mod classes;
mod outputs;
mod results;
mod samples;
mod support;
mod usage;
