//! Utilities shared by the crates of dcgan-rs: atomic file writing ([`files`]), random streams keyed by seed, purpose
//! and index ([`random`]), SHA-256 digests ([`digest`]), cancellation ([`Cancel`]), memory sizes ([`memory`]), dates
//! ([`time`]), Python's pickles as data ([`pickle`]), the matrix product of the CPU ([`matrix`]) and distances between
//! vectors of bytes ([`nearest_bytes`]).
//!
//! ```
//! use dcgan_base::random::{self, Purpose};
//!
//! // The same seed, purpose and index give the same numbers on every machine.
//! let z = random::normal(&mut random::stream(7, Purpose::SampleLatent, 0), 3, 0.0, 1.0);
//! assert_eq!(z, random::normal(&mut random::stream(7, Purpose::SampleLatent, 0), 3, 0.0, 1.0));
//! ```

mod cancel;
pub mod digest;
pub mod files;
pub mod matrix;
pub mod memory;
pub mod nearest_bytes;
pub mod pickle;
mod precision;
pub mod random;
pub mod time;

pub use cancel::Cancel;
pub use precision::Precision;
