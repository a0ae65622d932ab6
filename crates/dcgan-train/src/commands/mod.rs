//! What each command does.

pub(crate) mod bench;
pub(crate) mod convert;
pub(crate) mod presets;
pub(crate) mod sample;
#[cfg(feature = "service")]
pub(crate) mod serve;
pub(crate) mod train;
