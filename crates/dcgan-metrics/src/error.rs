//! Errors of metrics.

use std::io;
use std::path::PathBuf;

use dcgan_model::import::ImportError;
use dcgan_ops::OpsError;

/// Why a metric cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// A file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The weights file cannot be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The tensors of a file are not those of the Inception network.
    #[error("{}: these are not the weights of Inception 2015-12-05:{}", .path.display(), list(.faults))]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is missing or has another shape.
        faults: Vec<String>,
    },
    /// A file of statistics is damaged, or of another program.
    #[error("{}: {problem}", .path.display())]
    Statistics {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// Too few images for a metric.
    #[error("{metric} needs at least {needed} images, found {found}")]
    TooFew {
        /// The metric.
        metric: &'static str,
        /// Images needed.
        needed: usize,
        /// Images found.
        found: usize,
    },
    /// An eigenvalue decomposition that does not converge: values that are not finite.
    #[error("the covariance matrices have no eigenvalues: a feature is not finite")]
    Eigenvalues,
    /// Computing features failed.
    #[error(transparent)]
    Ops(#[from] OpsError),
}

/// The first faults, a line each.
fn list(faults: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text: String = faults.iter().take(SHOWN).map(|fault| format!("\n  {fault}")).collect();
    if faults.len() > SHOWN {
        text += &format!("\n  and {} more", faults.len() - SHOWN);
    }
    text
}
