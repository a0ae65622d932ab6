//! Command-line arguments, and their conversion to options of the library.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use dcgan_cli::{LogArgs, UsageError, integer};
use dcgan_data::arguments::ReadArgs;
use dcgan_data::{Dataset, ImageShape, OpenOptions, Split, cache_shape, default_cache_folder, local_path};

/// Side of images in pixels, if --size is not given.
const DEFAULT_SIDE: usize = 64;

/// Inspect, pack and verify image datasets
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
    /// Decode every image, and print the format, what is skipped or unreadable, counts per class, and a few sizes
    Inspect(Inspect),
    /// Write a cache: one file of decoded images that opens immediately
    Pack(Pack),
    /// Measure how many images a second are read for training
    Bench(Bench),
    /// Compare files with the SHA-256 in the manifests of known datasets
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Write a PNG of images spread over the dataset, after the transform
    #[arg(long, value_name = "FILE.png")]
    pub(crate) montage: Option<PathBuf>,
    /// Read the headers of images only, not their pixels
    #[arg(long, conflicts_with = "skip_bad")]
    pub(crate) headers: bool,
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

/// Whether decoded images that do not fit into memory are kept on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DecodedImages {
    /// Keep them on disk for the next epochs and runs
    #[default]
    Keep,
    /// Decode them again in each epoch
    Discard,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Duration of the measurement, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = positive)]
    pub(crate) seconds: f64,
    /// Stop after this many images
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, u64::MAX))]
    pub(crate) images: Option<usize>,
    /// Read at this rate, as training would [default: as fast as possible]
    #[arg(long, value_name = "IMAGES_PER_SECOND", value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// Maximum number of decoding threads
    #[arg(long, default_value_t = 2, value_parser = integer::<usize>(1, 4096))]
    pub(crate) threads: usize,
    /// Batch size, in images
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = integer::<usize>(1, 1 << 20))]
    pub(crate) batch_size: usize,
    /// Memory for decoded images, in MiB; 0 keeps none there
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = integer::<u64>(0, 1 << 24))]
    pub(crate) loader_memory: u64,
    /// Decoded images that do not fit into this memory
    #[arg(long, value_enum, default_value_t)]
    pub(crate) decoded_images: DecodedImages,
    /// Seed of the shuffle
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: u64,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// A folder with the files of a published dataset, or a single file of it
    pub(crate) path: PathBuf,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The dataset and its options.
#[derive(Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// A folder, zip, file or cache, or a URL (https://, s3://); `digits` for the embedded digits
    pub(crate) path: PathBuf,
    /// Resize images to this size, HEIGHTxWIDTH or one number for both [default: 64, or that of a cache]
    #[arg(long, value_name = "HxW", value_parser = parse_size)]
    pub(crate) size: Option<(usize, usize)>,
    /// Convert images to this many channels: 1 grey, 3 RGB, 4 RGB and alpha [default: 3, or those of a cache]
    #[arg(long, value_parser = integer::<usize>(1, 4))]
    pub(crate) channels: Option<usize>,
    /// Crop the center N x N pixels of the original before resizing
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, u64::MAX))]
    pub(crate) crop: Option<usize>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Split to read: train, val or test
    #[arg(long, value_name = "SPLIT", default_value_t = Split::Train)]
    pub(crate) split: Split,
    /// Short for --split test
    #[arg(long, conflicts_with = "split")]
    pub(crate) test: bool,
}

impl DataArgs {
    pub(crate) fn open(&self) -> anyhow::Result<Dataset> {
        self.open_with(|options| options)
    }

    /// Opens the dataset as training does, with decoded images in `memory` bytes, or on disk unless they are discarded.
    pub(crate) fn open_for_training(&self, memory: u64, decoded: DecodedImages) -> anyhow::Result<Dataset> {
        let cache_folder = default_cache_folder().filter(|_| decoded == DecodedImages::Keep);
        self.open_with(|options| OpenOptions { memory_limit_bytes: memory, cache_folder, ..options })
    }

    fn open_with(&self, change: impl FnOnce(OpenOptions) -> OpenOptions) -> anyhow::Result<Dataset> {
        let mut faults = Vec::new();
        if let Some(channels) = self.channels.filter(|channels| !matches!(channels, 1 | 3 | 4)) {
            faults.push(format!("--channels is {channels}, expected 1, 3 or 4"));
        }
        if self.crop == Some(0) {
            faults.push("--crop is 0, expected 1 pixel or more".to_owned());
        }
        if !faults.is_empty() {
            return Err(UsageError { faults }.into());
        }
        let path = local_path(&self.path, &|| false)?;
        let stored = cache_shape(&path)?;
        let default = stored.unwrap_or(ImageShape { height: DEFAULT_SIDE, width: DEFAULT_SIDE, channels: 3 });
        let (height, width) = self.size.unwrap_or((default.height, default.width));
        let shape = ImageShape { height, width, channels: self.channels.unwrap_or(default.channels) };
        if self.path == Path::new("digits") && !self.path.exists() {
            return Ok(Dataset::embedded_digits(shape)?);
        }
        let split = if self.test { Split::Test } else { self.split };
        let options = OpenOptions { crop: self.crop, split, ..self.read.options(shape) };
        Ok(Dataset::open(&path, &change(options))?)
    }
}

/// A number above zero.
fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "expected a number above zero".to_owned())
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
    fn arguments_are_valid() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
