//! Arguments of the commands that look into the networks.

use super::{ComputeArgs, DataArgs, ModelArgs};
use clap::Args;
use std::path::PathBuf;

/// Which features of D, over which images.
#[derive(Args, Debug)]
pub(crate) struct FeatureArgs {
    /// Block of the discriminator, `blocks.N` or N from 0 [default: the last]
    #[arg(long, value_name = "BLOCK")]
    pub(crate) block: Option<String>,
    /// Features to show, the most active ones
    #[arg(long, value_name = "K", default_value_t = 6)]
    pub(crate) features: usize,
    /// Show these features instead, by number from 0, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "features")]
    pub(crate) feature: Vec<usize>,
    /// Images of the data to look through, evenly spaced
    #[arg(long, alias = "pictures", value_name = "N", default_value_t = 2000)]
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
    /// Images of each feature, those that excite it most
    #[arg(long, value_name = "K", default_value_t = 4)]
    pub(crate) top: usize,
    /// Show what the feature sees of an image, enlarged, instead of all of it
    #[arg(long)]
    pub(crate) crops: bool,
    /// Seed of the random weights to compare with
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// The PNG to write
    #[arg(long, value_name = "F.png", default_value = "guided.png")]
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
    /// Images of each feature, those that excite it most
    #[arg(long, value_name = "K", default_value_t = 8)]
    pub(crate) top: usize,
    /// The PNG to write
    #[arg(long, value_name = "F.png", default_value = "maxact.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Options of finding and removing maps, which a template and an image grid to draw on do not: ignored, they would mislead.
const NOT_WITH_A_TEMPLATE: [&str; 8] =
    ["boxes", "filters", "block", "top", "penalty", "save", "save_z", "out"];

#[derive(Args, Debug)]
pub(crate) struct AblateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Boxes around the object on samples of a seed: find its feature maps
    #[arg(long, value_name = "BOXES.json", required_unless_present_any = ["filters", "template", "grid"])]
    pub(crate) boxes: Option<PathBuf>,
    /// Remove the feature maps of this file, which --save wrote, instead
    #[arg(long, value_name = "FILTERS.json", conflicts_with = "boxes")]
    pub(crate) filters: Option<PathBuf>,
    /// Write a file of boxes to fill in, and nothing else; with --grid
    #[arg(long, value_name = "BOXES.json", conflicts_with_all = NOT_WITH_A_TEMPLATE)]
    pub(crate) template: Option<PathBuf>,
    /// Write an image grid of numbered samples, enlarged, with a ruler of pixels, to draw boxes on
    #[arg(long, alias = "sheet", value_name = "SHEET.png", conflicts_with_all = NOT_WITH_A_TEMPLATE)]
    pub(crate) grid: Option<PathBuf>,
    /// Block of the generator, `project`, `blocks.N` or N from 0 [default: the second-highest that gives feature maps]
    #[arg(long, value_name = "BLOCK", conflicts_with = "filters")]
    pub(crate) block: Option<String>,
    /// Remove the K maps of greatest weight [default: all of positive weight]
    #[arg(long, value_name = "K", conflicts_with = "filters")]
    pub(crate) top: Option<usize>,
    /// Penalty on the squared weights of the logistic regression
    #[arg(long, value_name = "X", default_value_t = 1.0, conflicts_with = "filters")]
    pub(crate) penalty: f64,
    /// Samples to draw, each with all maps and below that without
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) n: usize,
    /// Seed of these samples [default: that of the boxes, else 0]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Write the list of maps, for `sample --without` and --filters
    #[arg(long, value_name = "FILTERS.json", conflicts_with = "filters")]
    pub(crate) save: Option<PathBuf>,
    /// Write the z of the samples
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// The PNG to write
    #[arg(long, value_name = "F.png", default_value = "ablate.png")]
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
    /// Attributes of the images in the format of CelebA's list_attr_celeba.txt, joined by path
    #[arg(long, value_name = "FILE")]
    pub(crate) attributes: PathBuf,
    /// The concept: an attribute that its images have, or with a minus in front one that they have not; may be given
    /// several times, all must hold
    #[arg(long, value_name = "NAME", required = true, allow_hyphen_values = true, value_delimiter = ',')]
    pub(crate) attribute: Vec<String>,
    /// Real images to learn the concept from, evenly spaced
    #[arg(long, alias = "pictures", value_name = "N", default_value_t = 2000)]
    pub(crate) images: usize,
    /// Samples to search
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) candidates: usize,
    /// Samples to keep, those that show the concept most
    #[arg(long, value_name = "K", default_value_t = 16)]
    pub(crate) top: usize,
    /// Seed of the samples
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Write the z of the samples kept, for `arithmetic` and `turn`
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) save_z: Option<PathBuf>,
    /// The PNG to write
    #[arg(long, value_name = "F.png", default_value = "concept.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}
