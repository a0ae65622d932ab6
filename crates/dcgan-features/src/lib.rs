//! A discriminator as a feature extractor, and what the paper measures with it (sections 5.1, 5.2, supplement).

pub mod features;
pub mod nearest;
pub mod supervised;
pub mod svm;
