//! Arguments of the commands on feature maps.

use super::{ComputeArgs, DataArgs, ModelArgs};
use clap::Args;
use dcgan_cli::integer;
use std::path::PathBuf;

/// Features of D, and images to search.
#[derive(Args, Debug)]
pub(crate) struct FeatureArgs {
    /// Block of the discriminator, `blocks.N` or N from 0 [default: the last]
    #[arg(long, value_name = "BLOCK")]
    pub(crate) block: Option<String>,
    /// Number of features to show, the most active ones
    #[arg(long, value_name = "K", default_value_t = 6, value_parser = integer::<usize>(1, 1024))]
    pub(crate) features: usize,
    /// Show these features instead: indices from 0, separated by commas
    #[arg(
        long, value_name = "LIST", value_delimiter = ',', conflicts_with = "features",
        value_parser = integer::<usize>(0, u64::MAX)
    )]
    pub(crate) feature: Vec<usize>,
    /// Images of the dataset to search, evenly spaced
    #[arg(
        long, alias = "pictures", value_name = "N", default_value_t = 2000,
        value_parser = integer::<usize>(1, 16777216)
    )]
    pub(crate) images: usize,
}

#[derive(Args, Debug)]
pub(crate) struct GuidedArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) what: FeatureArgs,
    /// Images per feature, those with its largest activations
    #[arg(long, value_name = "K", default_value_t = 4, value_parser = integer::<usize>(1, 32))]
    pub(crate) top: usize,
    /// Crop images to the feature's receptive field, resized
    #[arg(long)]
    pub(crate) crops: bool,
    /// Seed of the random weights to compare with
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: u64,
    /// Image to write: .png, .jpg or .webp; - is standard output
    #[arg(long, value_name = "FILE", default_value = "guided.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct MaxactArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) what: FeatureArgs,
    /// Images per feature, those with its largest activations
    #[arg(long, value_name = "K", default_value_t = 8, value_parser = integer::<usize>(1, 32))]
    pub(crate) top: usize,
    /// Image to write: .png, .jpg or .webp; - is standard output
    #[arg(long, value_name = "FILE", default_value = "maxact.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Options that --template and --grid would ignore.
const NOT_WITH_A_TEMPLATE: [&str; 8] =
    ["boxes", "filters", "block", "top", "penalty", "save", "save_z", "out"];

#[derive(Args, Debug)]
pub(crate) struct AblateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// File of bounding boxes of the object on samples of a seed, to find its feature maps
    #[arg(long, value_name = "BOXES.json", required_unless_present_any = ["filters", "template", "grid"])]
    pub(crate) boxes: Option<PathBuf>,
    /// Remove the feature maps of this file, written by --save, instead
    #[arg(long, value_name = "FILTERS.json", conflicts_with = "boxes")]
    pub(crate) filters: Option<PathBuf>,
    /// Write a template of a file of boxes and exit; combines with --grid
    #[arg(long, value_name = "BOXES.json", conflicts_with_all = NOT_WITH_A_TEMPLATE)]
    pub(crate) template: Option<PathBuf>,
    /// Write an image grid of enlarged samples with indices and rulers to draw boxes on, and exit
    #[arg(long, alias = "sheet", value_name = "GRID.png", conflicts_with_all = NOT_WITH_A_TEMPLATE)]
    pub(crate) grid: Option<PathBuf>,
    /// Block of the generator, `project`, `blocks.N` or N from 0 [default: the second-highest]
    #[arg(long, value_name = "BLOCK", conflicts_with = "filters")]
    pub(crate) block: Option<String>,
    /// Remove the K feature maps with the largest positive weights [default: all with positive weights]
    #[arg(long, value_name = "K", conflicts_with = "filters", value_parser = integer::<usize>(1, u64::MAX))]
    pub(crate) top: Option<usize>,
    /// L2 penalty of the logistic regression
    #[arg(long, value_name = "X", default_value_t = 1.0, conflicts_with = "filters")]
    pub(crate) penalty: f64,
    /// Number of samples to generate with and without the feature maps
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = integer::<usize>(1, 1000))]
    pub(crate) n: usize,
    /// Seed of the samples [default: that of the boxes, else 0]
    #[arg(long, value_name = "S", value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: Option<u64>,
    /// Write the feature maps, for `sample --without` and --filters
    #[arg(long, value_name = "FILTERS.json", conflicts_with = "filters")]
    pub(crate) save: Option<PathBuf>,
    /// Write the z of the samples
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// Image to write: .png, .jpg or .webp; - is standard output
    #[arg(long, value_name = "FILE", default_value = "ablate.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ConceptArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Attributes of the images in the format of CelebA's list_attr_celeba.txt, matched by path
    #[arg(long, value_name = "FILE")]
    pub(crate) attributes: PathBuf,
    /// An attribute that images of the concept have, or with a leading minus one that they do not have; repeatable, all
    /// must match
    #[arg(long, value_name = "NAME", required = true, allow_hyphen_values = true, value_delimiter = ',')]
    pub(crate) attribute: Vec<String>,
    /// Real images to fit the probe to, evenly spaced
    #[arg(
        long, alias = "pictures", value_name = "N", default_value_t = 2000,
        value_parser = integer::<usize>(1, 100000)
    )]
    pub(crate) images: usize,
    /// Samples to rank
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = integer::<usize>(1, 1000000))]
    pub(crate) candidates: usize,
    /// Samples to keep, those with the highest scores
    #[arg(long, value_name = "K", default_value_t = 16, value_parser = integer::<usize>(1, 1000000))]
    pub(crate) top: usize,
    /// Seed of the samples
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: u64,
    /// Write the z of the kept samples, for `arithmetic` and `turn`
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// Image to write: .png, .jpg or .webp; - is standard output
    #[arg(long, value_name = "FILE", default_value = "concept.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print the result as one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}
