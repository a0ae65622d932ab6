//! Readers, one per format.

pub(crate) mod archive;
pub(crate) mod array;
pub(crate) mod cache;
pub(crate) mod cifar;
pub(crate) mod cifar_python;
pub(crate) mod digits;
pub(crate) mod folder;
pub(crate) mod idx;
pub(crate) mod label_file;
pub(crate) mod labels;
pub(crate) mod matlab;
pub(crate) mod npy;
pub(crate) mod pickle;
pub(crate) mod splits;
pub(crate) mod svhn;
