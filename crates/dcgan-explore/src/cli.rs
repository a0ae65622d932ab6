//! The command line as typed.

mod network;

use clap::{Args, Parser, Subcommand};
use dcgan_cli::LogArgs;
use dcgan_data::image_grid::Layout;
use dcgan_model::DeviceChoice;
use std::path::PathBuf;

pub(crate) use network::{AblateArgs, ConceptArgs, FeatureArgs, GuidedArgs, MaxactArgs};

/// Look inside an image generator and its discriminator: what a DCGAN learned (Radford, Metz and Chintala, section 6).
///
/// Without --model: the folder ./models/faces64 where it exists, else the embedded digits.
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
    /// Walk between samples through the latent space (figure 4)
    Interpolate(InterpolateArgs),
    /// Add and subtract concepts, each the mean of some z (figure 7)
    Arithmetic(ArithmeticArgs),
    /// Turn samples along the difference of two means (figure 8)
    Turn(TurnArgs),
    /// Find z of a concept by an attribute of real images, without picking by hand
    Concept(Box<ConceptArgs>),
    /// What the discriminator's features respond to, by guided backpropagation (figure 5)
    Guided(Box<GuidedArgs>),
    /// The images and crops that excite the discriminator's features most
    Maxact(Box<MaxactArgs>),
    /// Forget an object: find the generator's feature maps of it, and draw without them (figure 6)
    Ablate(Box<AblateArgs>),
    /// The training images nearest to samples, in pixels and in the discriminator's features
    Neighbours(NeighboursArgs),
    /// Find z of given images, by gradient descent through the generator
    Invert(InvertArgs),
}

/// Which model, and what it is made of.
#[derive(Args, Debug, Default)]
pub(crate) struct ModelArgs {
    /// A model folder, a run folder (its best checkpoint), a checkpoint, or a file of another program with --preset [default:
    /// ./models/faces64 where it exists, else the embedded digits model]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Networks of a file of another program, by name; or
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub(crate) preset: Option<String>,
    /// from a TOML file
    #[arg(long, value_name = "F.toml")]
    pub(crate) config: Option<PathBuf>,
}

/// Where and how to compute.
#[derive(Args, Debug, Default)]
pub(crate) struct ComputeArgs {
    /// auto, cpu, cuda:N or metal:N
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceChoice,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

/// Real images.
#[derive(Args, Debug, Default)]
pub(crate) struct DataArgs {
    /// Images: a folder, a zip, CIFAR / MNIST / SVHN files, or a cache by `dcgan-data pack` [default, for a model of
    /// 28x28 grey images alone: the embedded digits]
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Cut the N x N centre out of every image before resizing
    #[arg(long, value_name = "N")]
    pub(crate) crop: Option<usize>,
    /// Leave out images that cannot be read, and count them
    #[arg(long, requires = "data")]
    pub(crate) skip_bad: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SampleArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Images to draw [default: 64, or as many as --grid or --z has]
    #[arg(long, value_name = "N")]
    pub(crate) n: Option<usize>,
    /// Seed of z
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Rows and columns of the grid [default: as square as can be]
    #[arg(long, value_name = "RxC")]
    pub(crate) grid: Option<Layout>,
    /// Put the images that the discriminator takes for real first
    #[arg(long)]
    pub(crate) sort_by_score: bool,
    /// Draw values of z that are more than X standard deviations from 0 again; for models with normal z
    #[arg(long, value_name = "X", conflicts_with = "z")]
    pub(crate) truncate: Option<f32>,
    /// Draw with the feature maps of this file removed, which `dcgan-explore ablate` wrote
    #[arg(long, value_name = "FILTERS.json")]
    pub(crate) without: Option<PathBuf>,
    /// Print a number below every image, for other commands: i of `seed:S:i`, or with --save-z that of `FILE:i`
    #[arg(long)]
    pub(crate) numbers: bool,
    /// These z instead of random ones: FILE, FILE:i,j,k or seed:S:i,j,k; may be given several times
    #[arg(long, value_name = "SPEC", conflicts_with = "seed")]
    pub(crate) z: Vec<String>,
    /// Write the z of the images, in their order
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// The PNG to write
    #[arg(long, value_name = "F.png", default_value = "sample.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct InterpolateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Walks, one a row; each goes on where the one before ended [default: 8, or as many as --z allows]
    #[arg(long, value_name = "R")]
    pub(crate) rows: Option<usize>,
    /// Images of a walk, both ends included
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) steps: usize,
    /// Seed of the z to walk between
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Walk between these z: FILE, FILE:i,j,k or seed:S:i,j,k; may be given several times
    #[arg(long, value_name = "SPEC", conflicts_with = "seed")]
    pub(crate) z: Vec<String>,
    /// Walk along great circles (slerp) [default for models with normal z]
    #[arg(long, conflicts_with = "linear")]
    pub(crate) spherical: bool,
    /// Walk along straight lines (lerp) [default for models with uniform z]
    #[arg(long)]
    pub(crate) linear: bool,
    /// Write the whole walk, back to its beginning, as an animation as well
    #[arg(long, value_name = "F.gif")]
    pub(crate) gif: Option<PathBuf>,
    /// Images a second of the animation
    #[arg(long, value_name = "N", default_value_t = 12, requires = "gif")]
    pub(crate) rate: u32,
    /// Write the z of the images, row by row
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// The PNG to write
    #[arg(long, value_name = "F.png", default_value = "interpolate.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ArithmeticArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A concept to add, the mean of these z: FILE, FILE:i,j,k or seed:S:i,j,k (numbers of `sample --seed S --numbers`);
    /// may be given several times
    #[arg(long, value_name = "SPEC", required = true)]
    pub(crate) plus: Vec<String>,
    /// A concept to subtract; may be given several times
    #[arg(long, value_name = "SPEC")]
    pub(crate) minus: Vec<String>,
    /// Uniform noise added to the result's eight neighbours, up to plus or minus X
    #[arg(long, value_name = "X", default_value_t = 0.25, allow_negative_numbers = true)]
    pub(crate) noise: f32,
    /// Seed of the noise
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Write z of the result and of its neighbours, the result first
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// The PNG to write
    #[arg(long, value_name = "F.png", default_value = "arithmetic.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct TurnArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// z that look one way: FILE, FILE:i,j,k or seed:S:i,j,k (numbers of `sample --seed S --numbers`)
    #[arg(long, value_name = "SPEC", required = true)]
    pub(crate) left: Vec<String>,
    /// z that look the other way
    #[arg(long, value_name = "SPEC", required = true)]
    pub(crate) right: Vec<String>,
    /// Samples to turn, one a row [default: the first four of --seed]
    #[arg(long, value_name = "SPEC")]
    pub(crate) apply: Vec<String>,
    /// Images of a turn, the sample itself in the middle
    #[arg(long, value_name = "N", default_value_t = 9)]
    pub(crate) steps: usize,
    /// How far to turn: the ends are this part of mean(left) - mean(right) away from the sample
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) strength: f32,
    /// Seed of the samples to turn
    #[arg(long, value_name = "S", default_value_t = 0, conflicts_with = "apply")]
    pub(crate) seed: u64,
    /// Write the z of the images, row by row
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// The PNG to write
    #[arg(long, value_name = "F.png", default_value = "turn.png")]
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
    /// Training images to search, the first ones [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) among: Option<usize>,
    /// Samples to look at
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) n: usize,
    /// Nearest images of each to show, and as many in features
    #[arg(long, value_name = "K", default_value_t = 3)]
    pub(crate) nearest: usize,
    /// Seed of the samples
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// These z instead of random ones: FILE, FILE:i,j,k or seed:S:i,j,k; may be given several times
    #[arg(long, value_name = "SPEC", conflicts_with_all = ["seed", "n"])]
    pub(crate) z: Vec<String>,
    /// Write the z of the samples
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// The PNG to write
    #[arg(long, value_name = "F.png", default_value = "neighbours.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InvertArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Images of the data by their numbers from 0, separated by commas [default: the first --n]
    #[arg(long, alias = "pictures", value_name = "LIST", value_delimiter = ',', conflicts_with = "n")]
    pub(crate) images: Vec<usize>,
    /// How many images, the first ones
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) n: usize,
    /// z to start from, for each image; the best end is kept
    #[arg(long, value_name = "K", default_value_t = 4)]
    pub(crate) restarts: usize,
    /// Steps of Adam
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) steps: usize,
    /// Adam's step size at the beginning; it falls to a tenth
    #[arg(long, value_name = "LR", default_value_t = 0.2)]
    pub(crate) learning_rate: f64,
    /// Seed of the z to start from
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Write the z found
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// The PNG to write
    #[arg(long, value_name = "F.png", default_value = "invert.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}
