//! One binary for all integration tests.

mod classifier;
mod features;
mod goldens;
mod imports;
mod layering;
mod presets;
mod support;
mod svm;
mod vocabulary;
