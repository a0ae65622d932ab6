//! A discriminator as a feature extractor, and what the paper measures with it (sections 5.1, 5.2, supplement).

pub mod extract;
pub mod features;
pub mod file;
pub mod nearest;
pub mod pool;
pub mod supervised;
pub mod svm;
