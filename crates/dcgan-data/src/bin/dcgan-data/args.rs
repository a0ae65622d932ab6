//! Arguments as typed, and their turn into options of the library.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use dcgan_cli::{LogArgs, UsageError};
use dcgan_data::{Dataset, ImageShape, OnBad, OpenOptions, Split};

/// Side of images, in pixels, where --size is not given.
const DEFAULT_SIDE: usize = 64;

/// Looks at, packs and verifies datasets of images
#[derive(Debug, Parser)]
#[command(name = "dcgan-data", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Says what was read and skipped, counts per class, and the sizes of a few images
    Inspect(Inspect),
    /// Writes a decoded cache: one file that opens at once and needs no decoding
    Pack(Pack),
    /// Compares files with the SHA-256 in the manifests of known datasets
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Write images spread over the dataset, as they are after the transform, into one PNG
    #[arg(long, value_name = "FILE.png")]
    pub(crate) montage: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pack {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// The cache file to write
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// A folder with a publisher's files, or one such file
    pub(crate) path: PathBuf,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which data, and how to read it.
#[derive(Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// A folder, zip, file or cache; `digits` for the embedded ones
    pub(crate) path: PathBuf,
    /// Size that images are brought to, HEIGHTxWIDTH or one number for both [default: 64]
    #[arg(long, value_name = "HxW", value_parser = parse_size)]
    pub(crate) size: Option<(usize, usize)>,
    /// Channels that images are brought to: 1 grey, 3 RGB, 4 RGB and alpha
    #[arg(long, default_value_t = 3)]
    pub(crate) channels: usize,
    /// Cut the centre N x N of the original before resizing
    #[arg(long, value_name = "N")]
    pub(crate) crop: Option<usize>,
    /// Leave out images that cannot be decoded, and count them (decodes every image)
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Read the test part of CIFAR, MNIST or SVHN instead of the training part
    #[arg(long)]
    pub(crate) test: bool,
}

impl DataArgs {
    pub(crate) fn open(&self) -> anyhow::Result<Dataset> {
        let (height, width) = self.size.unwrap_or((DEFAULT_SIDE, DEFAULT_SIDE));
        let shape = ImageShape { height, width, channels: self.channels };
        let mut faults = Vec::new();
        if !matches!(self.channels, 1 | 3 | 4) {
            faults.push(format!("--channels {} is not possible: use 1, 3 or 4", self.channels));
        }
        if self.crop == Some(0) {
            faults.push("--crop 0 leaves no image: use 1 or more pixels".to_owned());
        }
        if !faults.is_empty() {
            return Err(UsageError { faults }.into());
        }
        if self.path == Path::new("digits") && !self.path.exists() {
            return Ok(Dataset::embedded_digits(shape)?);
        }
        let on_bad = if self.skip_bad { OnBad::Skip } else { OnBad::Fail };
        let split = if self.test { Split::Test } else { Split::Train };
        Ok(Dataset::open(
            &self.path,
            &OpenOptions { crop: self.crop, on_bad, split, ..OpenOptions::new(shape) },
        )?)
    }
}

/// `64` or `48x64`, each 1 to 8192.
fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    match (height.parse(), width.parse()) {
        (Ok(height @ 1..=8192), Ok(width @ 1..=8192)) => Ok((height, width)),
        _ => Err("expected HEIGHTxWIDTH or one number, each 1 to 8192, such as 64 or 48x64".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in
            [("64", Some((64, 64))), ("48x64", Some((48, 64))), ("0", None), ("9000", None), ("x", None)]
        {
            assert_eq!(parse_size(text).ok(), size, "{text}");
        }
    }

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
