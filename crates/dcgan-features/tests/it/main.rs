//! The binary `dcgan-eval` from outside.

mod results;
mod support;
mod usage;
