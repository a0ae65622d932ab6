//! Command-line arguments.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dcgan_base::Precision;
use dcgan_cli::{LogArgs, integer};
use dcgan_data::Split;
use dcgan_data::arguments::ReadArgs;
use dcgan_features::dedup::Rule;
use dcgan_features::neighbours::SampleStatistics;
use dcgan_metrics::Convention;
use dcgan_model::DeviceChoice;
use std::path::PathBuf;

/// Evaluate a discriminator's features: the classification experiments of Radford, Metz and Chintala.
///
/// Without a command: the embedded digits with the embedded model, in seconds.
#[derive(Debug, Parser)]
#[command(name = "dcgan-eval", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// CIFAR-10: accuracy of a linear SVM on D's features, with all labels or --labels-per-class (section 5.1)
    Cifar10(Box<TaskArgs>),
    /// SVHN: error with 1,000 labels, over many draws of labels (section 5.2)
    Svhn(Box<TaskArgs>),
    /// Embedded digits: 8,000 training and 2,000 test images
    Digits(Box<TaskArgs>),
    /// MNIST: error of the nearest-neighbour classifier on real or generated images (supplement; the authors'
    /// nnc_score)
    MnistNn(MnistNnArgs),
    /// Mean distance of real images to the nearest sample (the authors' nnd_score)
    Nnd(NndArgs),
    /// Reproduce the recorded claims within their tolerances
    Reproduce(ReproduceArgs),
    /// Extract features to a file
    Features(FeaturesArgs),
    /// Fit the SVM to one feature file and score it on another
    Probe(ProbeArgs),
    /// Find near-duplicate images of a dataset by semantic hashing (section 4.1)
    Dedup(DedupArgs),
    /// FID, KID, Inception score, precision and recall of generated images against real ones
    Metrics(MetricsArgs),
    /// Time feature extraction on synthetic images
    Bench(BenchArgs),
}

/// How near-duplicates are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuleArg {
    /// Codes that are equal in one of several subsets of bits, and pixels that agree
    #[default]
    Tables,
    /// Codes that are equal in all bits (the paper)
    EqualCodes,
    /// Perceptual hashes that differ in few bits
    Phash,
}

impl From<RuleArg> for Rule {
    fn from(rule: RuleArg) -> Self {
        match rule {
            RuleArg::Tables => Self::Tables,
            RuleArg::EqualCodes => Self::EqualCodes,
            RuleArg::Phash => Self::Phash,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct DedupArgs {
    /// Images: everything that `dcgan-train run --data` reads but caches, which have no originals
    pub(crate) data: PathBuf,
    /// The list to write: a line for each near-duplicate, its name and that of the image that is kept, for
    /// `dcgan-train run --exclude`
    #[arg(long, value_name = "LIST")]
    pub(crate) out: Option<PathBuf>,
    /// Write a PNG of pairs, near-duplicate and kept image side by side
    #[arg(long, value_name = "FILE.png")]
    pub(crate) montage: Option<PathBuf>,
    /// Pairs of the PNG
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = integer::<usize>(1, 1000))]
    pub(crate) pairs: usize,
    /// Crop the center N x N pixels of the original before resizing
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, u64::MAX))]
    pub(crate) crop: Option<usize>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Read this split: train, val or test
    #[arg(long, value_name = "SPLIT", default_value_t = Split::Train)]
    pub(crate) split: Split,
    /// Training steps of the autoencoder, of 128 images
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = integer::<usize>(1, 10000000))]
    pub(crate) steps: usize,
    /// Hash tables: more find more near-duplicates
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = integer::<usize>(1, 1000))]
    pub(crate) tables: usize,
    /// Minimum pixel correlation of near-duplicates
    #[arg(long, value_name = "R", default_value_t = 0.75)]
    pub(crate) min_correlation: f32,
    /// The rule of the list: tables; equal-codes, the paper's; phash, perceptual hashes
    #[arg(long, value_enum, default_value_t)]
    pub(crate) rule: RuleArg,
    /// Seed of the autoencoder and of the tables
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct MetricsArgs {
    /// Generated images: a model, from which they are drawn, or everything that `dcgan-train run --data` reads
    pub(crate) generated: PathBuf,
    /// Real images, or statistics (`mu` and `sigma` in .npz) of pytorch-fid, ADM or clean-fid; of a file with both, FID
    /// uses the statistics and the other metrics the images
    pub(crate) reference: PathBuf,
    /// The Inception weights: pt_inception-2015-12-05-6726825d.pth, weights-inception-2015-12-05-6726825d.pth or
    /// inception-2015-12-05.pt [default: the file that DCGAN_INCEPTION names]
    #[arg(long, value_name = "FILE")]
    pub(crate) inception: Option<PathBuf>,
    /// The program whose numbers are computed: torch-fidelity, pytorch-fid, clean, nvlabs or studiogan
    #[arg(long, value_name = "PROGRAM", default_value_t)]
    pub(crate) like: Convention,
    /// Generated images: the first samples of a model, or images of a dataset drawn at random [default: 50,000 samples
    /// of a model, all images of a dataset]
    #[arg(long, value_name = "N", value_parser = integer::<usize>(2, 100000000))]
    pub(crate) n: Option<usize>,
    /// Real images, drawn at random; statistics beside them are not used [default: all]
    #[arg(long, value_name = "N", value_parser = integer::<usize>(2, 100000000))]
    pub(crate) reference_n: Option<usize>,
    /// Read this split of the real images: train, val or test [default: train]
    #[arg(long, value_name = "SPLIT")]
    pub(crate) split: Option<Split>,
    /// Seed of the samples of a model [default: 0]
    #[arg(long, value_name = "S", value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: Option<u64>,
    /// Seed of subsets and splits, that of torch-fidelity
    #[arg(long, value_name = "S", default_value_t = dcgan_metrics::SUBSET_SEED, value_parser = integer::<u32>(0, u32::MAX as u64))]
    pub(crate) subset_seed: u32,
    /// Write the statistics of the real images, for later comparisons
    #[arg(long, value_name = "FILE.npz")]
    pub(crate) save_statistics: Option<PathBuf>,
    /// Folder of features: an interrupted extraction resumes from there, later commands use it [default:
    /// ~/.cache/dcgan/features, or that in DCGAN_CACHE]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Name of the preset
    #[arg(long, value_name = "NAME", default_value = "svhn32")]
    pub(crate) preset: String,
    /// Batch size, in images
    #[arg(long, value_name = "B", default_value_t = 128, value_parser = integer::<usize>(2, 65536))]
    pub(crate) batch_size: usize,
    /// Number of images
    #[arg(
        long, alias = "pictures", value_name = "N", default_value_t = 10_000,
        value_parser = integer::<usize>(1, 100000000)
    )]
    pub(crate) images: usize,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Default for TaskArgs {
    /// The defaults of the command line.
    fn default() -> Self {
        #[derive(Parser)]
        struct Defaults {
            #[command(flatten)]
            args: TaskArgs,
        }
        Defaults::parse_from(["dcgan-eval"]).args
    }
}

/// The model.
#[derive(Args, Debug, Default)]
pub(crate) struct ModelArgs {
    /// A model folder, a run folder (its best checkpoint), a checkpoint, or a file of another program
    /// [default: models/PRESET of the task; digits: the embedded model]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Preset of a file of another program [default: inferred from the tensors]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub(crate) preset: Option<String>,
    /// Configuration of a file of another program (TOML)
    #[arg(long, value_name = "F.toml")]
    pub(crate) config: Option<PathBuf>,
}

/// Device and threads.
#[derive(Args, Debug, Default)]
pub(crate) struct ComputeArgs {
    /// auto, cpu, cuda:N or metal:N
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceChoice,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, 4096))]
    pub(crate) threads: Option<usize>,
}

#[derive(Args, Debug)]
pub(crate) struct TaskArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Published dataset with training and test images, in its original layout (cifar10 and svhn need it) [default:
    /// embedded digits]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Labels per class in a draw [default: svhn 100, others all labels]
    #[arg(long, value_name = "K", value_parser = integer::<usize>(1, 1000000))]
    pub(crate) labels_per_class: Option<usize>,
    /// Draws of labels that are scored on the test set [default: svhn 100, others 10]
    #[arg(long, value_name = "R", value_parser = integer::<usize>(1, 1000000))]
    pub(crate) repeats: Option<usize>,
    /// Draws of labels that C is chosen on [default: 10]
    #[arg(long, value_name = "R", value_parser = integer::<usize>(1, 1000000))]
    pub(crate) selection_draws: Option<usize>,
    /// Search grid of C, separated by commas [default: the task's]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true)]
    pub(crate) c: Vec<f64>,
    /// Seed of draws and random weights
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: u64,
    /// SVM solver
    #[arg(long, value_enum, default_value_t)]
    pub(crate) solver: Solver,
    /// Baselines, separated by commas [default: pixels,random]
    #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
    pub(crate) baseline: Vec<BaselineArg>,
    /// Trials of the supervised baseline's random search [default: 64]
    #[arg(long, value_name = "N", value_parser = integer::<u64>(1, 1000000))]
    pub(crate) trials: Option<u64>,
    /// Batch norm statistics of D [default: cifar10 and svhn recalibrate, digits running if the model has them]
    #[arg(long, value_enum)]
    pub(crate) statistics: Option<StatisticsArg>,
    /// Data type (dtype) of the features, in memory and in --cache
    #[arg(long, value_name = "TYPE", value_parser = precision(), default_value_t)]
    pub(crate) dtype: Precision,
    /// Folder of cached features and results: an interrupted evaluation continues from it
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Write the rows of every draw of labels to this file, for checks by other programs
    #[arg(long, value_name = "F.json")]
    pub(crate) save_draws: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

/// Batch norm statistics of a generator.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Statistics {
    Running,
    Minibatch,
}

impl From<Statistics> for SampleStatistics {
    fn from(statistics: Statistics) -> Self {
        match statistics {
            Statistics::Running => Self::Running,
            Statistics::Minibatch => Self::Minibatch,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct MnistNnArgs {
    /// MNIST's idx files, or another dataset with training and test images [default: embedded digits, 8,000 and 2,000]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Labeled reference images: a folder of folders, a zip, or a cache by `dcgan-data pack` for millions of images
    /// [default: with --data, samples of models/mnist-cond if it exists; else real training images]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["model", "preset", "config", "count", "sample_seed", "statistics"])]
    pub(crate) samples: Option<PathBuf>,
    /// With a conditional model its samples are the references
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Samples of the model; errors are reported at powers of ten and at 50,000 on the way [default: 50,000]
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, 1_000_000_000))]
    pub(crate) count: Option<usize>,
    /// Seed of the samples [default: 0]
    #[arg(long = "seed", value_name = "S", value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) sample_seed: Option<u64>,
    /// Batch norm statistics of the generator: running, or minibatch (of 128 samples, as in the authors' script)
    /// [default: running]
    #[arg(long, value_name = "WHICH", value_enum)]
    pub(crate) statistics: Option<Statistics>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Folder of cached results: an interrupted search continues from it
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct NndArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Dataset: the test split of a published dataset, otherwise all images [default: embedded digits]
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Number of query images, the first ones
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = integer::<usize>(1, u64::MAX))]
    pub(crate) queries: usize,
    /// Numbers of samples to score at, separated by commas
    #[arg(
        long, value_name = "LIST", value_delimiter = ',', default_values_t = [1000, 10_000, 100_000],
        value_parser = integer::<usize>(1, 1000000000)
    )]
    pub(crate) counts: Vec<usize>,
    /// Seed of the samples
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Folder of cached results: an interrupted search continues from it
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ReproduceArgs {
    /// Name of the claim [default: all whose models and data are there]
    pub(crate) claim: Option<String>,
    /// List the claims
    #[arg(long, conflicts_with_all = ["claim", "model", "data", "cache"])]
    pub(crate) list: bool,
    /// Model of the claim, if it is not one that comes with the program
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Folder with the folders mnist, cifar-10-batches-bin and so on; for one claim also the folder of its data
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Folder of cached features and results
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct FeaturesArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Dataset: a folder, zip or tar of images, LMDB, Parquet, HDF5 or numpy files, a published dataset, or a cache of
    /// `dcgan-data pack` [default: embedded digits]
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) split: SplitArgs,
    /// Center-crop every image to N x N before resizing
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, u64::MAX))]
    pub(crate) crop: Option<usize>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Batch norm statistics of D; recalibrate: on the training images of --data [default: running if the model has
    /// them]
    #[arg(long, value_enum)]
    pub(crate) statistics: Option<StatisticsArg>,
    /// Data type (dtype) of the features
    #[arg(long, value_name = "TYPE", value_parser = precision(), default_value_t)]
    pub(crate) dtype: Precision,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// The safetensors file to write; - is standard output
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) out: PathBuf,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ProbeArgs {
    /// Training features with labels, by `dcgan-eval features`
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) train: PathBuf,
    /// Test features with labels
    #[arg(long, value_name = "G.safetensors")]
    pub(crate) test: PathBuf,
    /// Search grid of C, separated by commas; a single value is not searched [default: open grid from 1e-4,1e-3]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true)]
    pub(crate) c: Vec<f64>,
    /// Training images at the end of the file that C is chosen on [default: the last fifth of each class]
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, u64::MAX))]
    pub(crate) held_out: Option<usize>,
    /// SVM solver
    #[arg(long, value_enum, default_value_t)]
    pub(crate) solver: Solver,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, 4096))]
    pub(crate) threads: Option<usize>,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Solver {
    /// Squared-hinge SVM with the objective of scikit-learn's LinearSVC
    #[default]
    L2,
    /// linfa-svm: hinge loss by SMO, up to a few thousand rows
    Linfa,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BaselineArg {
    /// Raw pixels
    Pixels,
    /// The same network with random weights
    Random,
    /// A supervised network of the same shape on the same labels, with random search (section 5.2); slow
    Supervised,
    /// No baseline
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatisticsArg {
    /// Running statistics of the model
    #[value(alias = "stored")]
    Running,
    /// Averages over minibatches of 128 training images
    #[value(alias = "reestimate")]
    Recalibrate,
}

/// The split of a dataset.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct SplitArgs {
    /// Split of a dataset that has splits: train, val or test
    #[arg(long, value_name = "SPLIT", default_value_t)]
    split: Split,
    /// Short for --split test
    #[arg(long, conflicts_with = "split")]
    test: bool,
}

impl SplitArgs {
    /// The split chosen.
    pub(crate) fn split(self) -> Split {
        if self.test { Split::Test } else { self.split }
    }
}

/// `f32` or `bf16`.
fn precision() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(Precision::ALL.map(Precision::name)).try_map(|name| name.parse())
}
