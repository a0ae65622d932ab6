//! Readers, one per format.

pub(crate) mod archive;
pub(crate) mod cache;
pub(crate) mod cifar;
pub(crate) mod digits;
pub(crate) mod folder;
pub(crate) mod idx;
pub(crate) mod labels;
pub(crate) mod matlab;
pub(crate) mod svhn;
