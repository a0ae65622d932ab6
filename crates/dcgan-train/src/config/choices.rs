//! Options that are one of a few words.

use crate::options::Kind;
use dcgan_ops::BatchNormOver;
use serde::{Deserialize, Serialize};

/// Which networks a minibatch updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// D, then G, on every minibatch: pytorch/examples.
    Both,
    /// G and D alternately, G first: the authors' code, where "each real minibatch feeds either" network.
    Alternate,
}

/// The learning rate schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Constant.
    None,
    /// Linear to zero over the second half of the run (the authors' MNIST settings).
    Linear,
}

/// The images that batch norm takes its statistics over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchNorm {
    /// All of the minibatch.
    #[default]
    Batch,
    /// Those of each shard.
    Shard,
}

impl From<BatchNorm> for BatchNormOver {
    fn from(over: BatchNorm) -> Self {
        match over {
            BatchNorm::Batch => Self::Batch,
            BatchNorm::Shard => Self::Shard,
        }
    }
}

/// Whether decoded images that do not fit into memory are kept on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecodedImages {
    /// In the cache folder ([`dcgan_data::default_cache_folder`]), if the disk has room.
    #[default]
    Keep,
    /// Never.
    Discard,
}

pub(super) const DECODED_IMAGES: Kind = Kind::Choice(&[
    ("keep", "Keep them on disk for the next epochs and runs (DCGAN_CACHE, default ~/.cache/dcgan)"),
    ("discard", "Decode them again in each epoch"),
]);
/// The metric that decides which checkpoint is the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BestBy {
    /// The random-feature Fréchet distance.
    #[default]
    Frechet,
    /// FID.
    Fid,
    /// KID.
    Kid,
}

pub(super) const BEST_BY: Kind = Kind::Choice(&[
    ("frechet", "The random-feature Fréchet distance, at every checkpoint"),
    ("fid", "FID, at the steps of --metrics-every"),
    ("kid", "KID, at the steps of --metrics-every"),
]);
pub(super) const BATCH_NORMS: Kind = Kind::Choice(&[
    ("batch", "Statistics of the whole minibatch, in all processes"),
    ("shard", "Statistics of each shard alone (what PyTorch does in each process by default)"),
]);
pub(super) const ORDERS: Kind = Kind::Choice(&[
    ("both", "D, then G, on every minibatch (pytorch/examples)"),
    ("alternate", "G or D on each minibatch, alternately (the authors)"),
]);
pub(super) const DECAYS: Kind =
    Kind::Choice(&[("none", "Constant"), ("linear", "Linear to zero over the second half of the run")]);
pub(super) const PRECISIONS: Kind = Kind::Choice(&[
    ("f32", "Single precision"),
    ("bf16", "bf16 inputs, f32 accumulation: faster on CPUs with AVX512-BF16; weights stay f32"),
]);
