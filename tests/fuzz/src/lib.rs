//! Fuzzing of the readers of untrusted bytes: files of other programs, datasets, requests.
//!
//! A [`Target`] feeds bytes to one reader. [`fuzz`] mutates its seeds at random. An input that panics, aborts, or takes
//! more memory than [`MEMORY_LIMIT`] is a bug of the reader.

mod mutate;
mod seeds;
mod targets;

use mutate::Mutator;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

pub use targets::{TARGETS, Target};

/// Bytes that a process may have allocated at once. The readers' own limits (256 MiB for an image, 64 MiB for labels)
/// are below it.
pub const MEMORY_LIMIT: usize = 768 << 20;

/// Longest input in bytes.
pub const MAX_INPUT: usize = 64 << 10;

/// What [`fuzz`] did.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Inputs tried.
    pub inputs: u64,
    /// Inputs that the reader accepted.
    pub accepted: u64,
    /// Inputs that panicked.
    pub panics: Vec<Vec<u8>>,
}

/// Runs the seeds and the files of `corpus` as they are, then `inputs` mutations of them drawn from `seed`.
///
/// # Errors
/// A corpus that cannot be read.
pub fn fuzz(target: &Target, corpus: Option<&Path>, inputs: u64, seed: u64) -> std::io::Result<Summary> {
    let mut seeds = (target.seeds)();
    if let Some(folder) = corpus.filter(|folder| folder.is_dir()) {
        let mut paths: Vec<_> = std::fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        paths.sort();
        for path in paths {
            seeds.push(std::fs::read(path)?);
        }
    }
    let mut summary = Summary::default();
    let mut attempt = |bytes: &[u8]| {
        summary.inputs += 1;
        match catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))) {
            Ok(accepted) => summary.accepted += u64::from(accepted),
            Err(_) => summary.panics.push(bytes.to_vec()),
        }
    };
    seeds.iter().for_each(|seed| attempt(seed));
    let mut mutator = Mutator::new(seed, seeds);
    for _ in 0..inputs {
        attempt(mutator.next());
    }
    Ok(summary)
}
