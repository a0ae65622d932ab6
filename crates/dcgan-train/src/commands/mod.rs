//! What each command does.

pub(crate) mod bench;
pub(crate) mod convert;
pub(crate) mod presets;
pub(crate) mod sample;
pub(crate) mod train;
