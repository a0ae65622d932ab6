//! One binary for all integration tests.

mod goldens;
mod imports;
mod layering;
mod presets;
mod support;
