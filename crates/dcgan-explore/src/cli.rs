//! Command-line arguments.

mod network;

use clap::{Args, Parser, Subcommand};
use dcgan_cli::{LogArgs, integer};
use dcgan_data::Split;
use dcgan_data::arguments::ReadArgs;
use dcgan_data::image_grid::Layout;
use dcgan_model::DeviceChoice;
use std::path::PathBuf;

pub(crate) use network::{AblateArgs, ConceptArgs, FeatureArgs, GuidedArgs, MaxactArgs};

/// Explore what a DCGAN learned: latent space and feature maps (Radford, Metz and Chintala, section 6).
///
/// The default --model is models/faces64 if it exists (for commands that name a class: models/mnist-cond), else the
/// embedded digits model.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Draw samples
    Sample(SampleArgs),
    /// Interpolate between samples in the latent space (figure 4)
    Interpolate(InterpolateArgs),
    /// Vector arithmetic on concepts, each the mean of several z (figure 7)
    Arithmetic(ArithmeticArgs),
    /// Move samples along the difference of two mean z (figure 8)
    Turn(TurnArgs),
    /// Find z of a concept from an attribute of real images, without manual selection
    Concept(Box<ConceptArgs>),
    /// Visualize features of the discriminator by guided backpropagation (figure 5)
    Guided(Box<GuidedArgs>),
    /// Show the images and crops with the largest activations of the discriminator's features
    Maxact(Box<MaxactArgs>),
    /// Forget an object: find its feature maps in the generator and generate without them (figure 6)
    Ablate(Box<AblateArgs>),
    /// Show the training images nearest to samples, in pixels and in the discriminator's features
    Neighbours(NeighboursArgs),
    /// Invert the generator: find z of given images by gradient descent
    Invert(InvertArgs),
}

/// The model and its networks.
#[derive(Args, Debug, Default)]
pub(crate) struct ModelArgs {
    /// A model folder, a run folder (its best checkpoint), a checkpoint, or a file of another program
    /// [default: models/faces64 if it exists, else the embedded digits model; models/mnist-cond if a class is named]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Networks of a file of another program: a preset [default: inferred from the tensors]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub(crate) preset: Option<String>,
    /// Networks of a file of another program: a TOML file
    #[arg(long, value_name = "F.toml")]
    pub(crate) config: Option<PathBuf>,
}

/// The class of samples.
#[derive(Args, Debug, Default)]
pub(crate) struct ClassArgs {
    /// Class of z that name none, for conditional models: a name or number [default: the classes in turn]. A z can name
    /// its class: SPEC@CLASS
    #[arg(long, value_name = "CLASS")]
    pub(crate) class: Option<String>,
}

/// Device and threads.
#[derive(Args, Debug, Default)]
pub(crate) struct ComputeArgs {
    /// Device: auto, cpu, cuda:N or metal:N
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceChoice,
    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, 4096))]
    pub(crate) threads: Option<usize>,
}

/// Real images.
#[derive(Args, Debug, Default)]
pub(crate) struct DataArgs {
    /// Dataset: a folder, zip or tar of images, LMDB, Parquet, HDF5 or numpy files, a published dataset, or a cache of
    /// `dcgan-data pack` [default for models of 28x28 grey images: the embedded digits]
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Split of a dataset that has splits: train, val or test
    #[arg(long, value_name = "SPLIT", default_value_t, requires = "data")]
    split: Split,
    /// Short for --split test
    #[arg(long, conflicts_with = "split", requires = "data")]
    test: bool,
    /// Crop every image to its N x N center before resizing
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, u64::MAX))]
    pub(crate) crop: Option<usize>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

impl DataArgs {
    /// The split chosen.
    pub(crate) fn split(&self) -> Split {
        if self.test { Split::Test } else { self.split }
    }
}

#[derive(Args, Debug)]
pub(crate) struct SampleArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) class: ClassArgs,
    /// Number of samples [default: 64, or that of --grid or --z]
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, u64::MAX))]
    pub(crate) n: Option<usize>,
    /// Seed of z
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: u64,
    /// Rows and columns of the image grid [default: square]
    #[arg(long, value_name = "RxC")]
    pub(crate) grid: Option<Layout>,
    /// Sort the samples by the discriminator's logit, highest first
    #[arg(long)]
    pub(crate) sort_by_score: bool,
    /// Truncate z: redraw values beyond X standard deviations; for models with normal z
    #[arg(long, value_name = "X", conflicts_with = "z")]
    pub(crate) truncate: Option<f32>,
    /// Remove the feature maps of this file, written by `dcgan-explore ablate --save`
    #[arg(long, value_name = "FILTERS.json")]
    pub(crate) without: Option<PathBuf>,
    /// Print an index below every sample, for other commands: i of `seed:S:i`, or with --save-z of `FILE:i`
    #[arg(long)]
    pub(crate) numbers: bool,
    /// Use these z instead of random ones: FILE, FILE:i,j,k or seed:S:i,j,k; repeatable
    #[arg(long, value_name = "SPEC", conflicts_with = "seed")]
    pub(crate) z: Vec<String>,
    /// Write the z of the images, in order
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// Image to write: .png, .jpg or .webp; - is standard output
    #[arg(long, value_name = "FILE", default_value = "sample.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct InterpolateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) class: ClassArgs,
    /// Number of walks, one per row; each starts at the end of the previous one [default: 8, or that of --z]
    #[arg(long, value_name = "R", value_parser = integer::<usize>(1, 1000))]
    pub(crate) rows: Option<usize>,
    /// Images per walk, including both ends
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = integer::<usize>(2, 1000))]
    pub(crate) steps: usize,
    /// Seed of z
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: u64,
    /// Walk between these z: FILE, FILE:i,j,k or seed:S:i,j,k; repeatable
    #[arg(long, value_name = "SPEC", conflicts_with = "seed")]
    pub(crate) z: Vec<String>,
    /// Spherical interpolation (slerp) [default for models with normal z]
    #[arg(long, conflicts_with = "linear")]
    pub(crate) spherical: bool,
    /// Linear interpolation (lerp) [default for models with uniform z]
    #[arg(long)]
    pub(crate) linear: bool,
    /// Also write the closed walk as a looping animation
    #[arg(long, value_name = "F.gif")]
    pub(crate) gif: Option<PathBuf>,
    /// Frames per second of the animation
    #[arg(
        long, value_name = "N", default_value_t = 12, requires = "gif",
        value_parser = integer::<u32>(1, 50)
    )]
    pub(crate) rate: u32,
    /// Write the z of the images, row by row
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// Image to write: .png, .jpg or .webp; - is standard output
    #[arg(long, value_name = "FILE", default_value = "interpolate.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ArithmeticArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) class: ClassArgs,
    /// A concept to add, the mean of these z: FILE, FILE:i,j,k or seed:S:i,j,k (indices of `sample --seed S
    /// --numbers`); repeatable
    #[arg(long, value_name = "SPEC", required = true)]
    pub(crate) plus: Vec<String>,
    /// A concept to subtract; repeatable
    #[arg(long, value_name = "SPEC")]
    pub(crate) minus: Vec<String>,
    /// Range of the uniform noise in [-X, X] of the eight perturbed copies
    #[arg(long, value_name = "X", default_value_t = 0.25, allow_negative_numbers = true)]
    pub(crate) noise: f32,
    /// Seed of the noise
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: u64,
    /// Write z of the result, then of its perturbed copies
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// Image to write: .png, .jpg or .webp; - is standard output
    #[arg(long, value_name = "FILE", default_value = "arithmetic.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct TurnArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) class: ClassArgs,
    /// z of samples that face left: FILE, FILE:i,j,k or seed:S:i,j,k (indices of `sample --seed S --numbers`);
    /// repeatable
    #[arg(long, value_name = "SPEC", required = true)]
    pub(crate) left: Vec<String>,
    /// z of samples that face right; repeatable
    #[arg(long, value_name = "SPEC", required = true)]
    pub(crate) right: Vec<String>,
    /// z of the samples to turn, one per row; repeatable [default: the first four of --seed]
    #[arg(long, value_name = "SPEC")]
    pub(crate) apply: Vec<String>,
    /// Images per row, the sample itself in the center
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = integer::<usize>(2, 1000))]
    pub(crate) steps: usize,
    /// Strength: the ends of a row are X times mean(left) - mean(right) away from the sample
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) strength: f32,
    /// Seed of the samples to turn
    #[arg(
        long, value_name = "S", default_value_t = 0, conflicts_with = "apply",
        value_parser = integer::<u64>(0, u64::MAX)
    )]
    pub(crate) seed: u64,
    /// Write the z of the images, row by row
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// Image to write: .png, .jpg or .webp; - is standard output
    #[arg(long, value_name = "FILE", default_value = "turn.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct NeighboursArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Search the first N training images [default: all]
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, u64::MAX))]
    pub(crate) among: Option<usize>,
    /// Number of samples
    #[arg(
        long, value_name = "N", default_value_t = 8,
        value_parser = integer::<usize>(1, 200)
    )]
    pub(crate) n: usize,
    /// Neighbours per sample in pixels, and as many in features
    #[arg(
        long, value_name = "K", default_value_t = 3,
        value_parser = integer::<usize>(1, 50)
    )]
    pub(crate) nearest: usize,
    /// Seed of the samples
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: u64,
    /// Use these z instead of random ones: FILE, FILE:i,j,k or seed:S:i,j,k; repeatable
    #[arg(long, value_name = "SPEC", conflicts_with_all = ["seed", "n"])]
    pub(crate) z: Vec<String>,
    /// Write the z of the samples
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// Image to write: .png, .jpg or .webp; - is standard output
    #[arg(long, value_name = "FILE", default_value = "neighbours.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print the result as one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InvertArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Indices of images of the dataset from 0, separated by commas [default: the first --n]
    #[arg(
        long, alias = "pictures", value_name = "LIST", value_delimiter = ',', conflicts_with = "n",
        value_parser = integer::<usize>(0, u64::MAX)
    )]
    pub(crate) images: Vec<usize>,
    /// Number of images, the first ones of the dataset
    #[arg(
        long, value_name = "N", default_value_t = 8,
        value_parser = integer::<usize>(1, 1000)
    )]
    pub(crate) n: usize,
    /// Restarts per image from different z; the best result is kept
    #[arg(
        long, value_name = "K", default_value_t = 4,
        value_parser = integer::<usize>(1, 1000)
    )]
    pub(crate) restarts: usize,
    /// Adam steps per restart
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = integer::<usize>(1, 100000))]
    pub(crate) steps: usize,
    /// Initial learning rate of Adam; it decays linearly to a tenth
    #[arg(long, value_name = "LR", default_value_t = 0.2)]
    pub(crate) learning_rate: f64,
    /// Seed of the initial z
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: u64,
    /// Write the z of the images
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// Image to write: .png, .jpg or .webp; - is standard output
    #[arg(long, value_name = "FILE", default_value = "invert.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print the result as one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}
