//! The commands of the binary.

pub(crate) mod animate;
pub(crate) mod bench;
pub(crate) mod compare;
mod compare_plot;
pub(crate) mod completions;
pub(crate) mod convert;
mod hub;
pub(crate) mod presets;
pub(crate) mod processes;
#[cfg(feature = "hub")]
pub(crate) mod push;
pub(crate) mod repeat;
pub(crate) mod resume;
pub(crate) mod sample;
#[cfg(feature = "service")]
pub(crate) mod serve;
pub(crate) mod train;
mod web;
