//! Blocks of images that are read together.

/// Bytes of the blocks whose images are shuffled together. Sources keep three times as much.
pub(crate) const WINDOW_BYTES: u64 = 32 << 20;

/// Consecutive images that are read together: a page of a Parquet file, a chunk of an HDF5 array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Number of the first image.
    pub(crate) first: usize,
    /// Bytes in memory of all of them.
    pub(crate) bytes: u64,
}
