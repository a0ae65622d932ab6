//! A discriminator as a feature extractor, and what the paper measures with it (sections 5.1, 5.2, supplement).

pub mod claim;
pub mod experiment;
pub mod extract;
pub mod file;
pub mod learner;
pub mod nearest;
pub mod neighbours;
pub mod origin;
pub mod pool;
pub mod protocol;
pub mod report;
pub mod supervised;
pub mod task;

pub use dcgan_svm as svm;
pub use dcgan_svm::features;
