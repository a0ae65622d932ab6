//! One binary for all integration tests.

mod candle;
mod classifier;
mod features;
mod goldens;
mod imports;
mod inferred;
mod layering;
mod presets;
mod support;
mod svm;
mod vocabulary;
