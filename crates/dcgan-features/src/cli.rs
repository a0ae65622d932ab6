//! The command line as typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use dcgan_cli::LogArgs;
use dcgan_model::DeviceChoice;
use std::path::PathBuf;

/// What a discriminator's features are worth: the classification experiments of Radford, Metz and Chintala.
///
/// Without a command: the embedded digits on the embedded model, in seconds.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// CIFAR-10: accuracy of a linear SVM on D's features, all labels or --labels-per-class (section 5.1)
    Cifar10(Box<TaskArgs>),
    /// SVHN: error with 1,000 labels, over many draws of them (section 5.2)
    Svhn(Box<TaskArgs>),
    /// The embedded digits: 8,000 train, 2,000 test
    Digits(Box<TaskArgs>),
    /// MNIST: error of the nearest neighbour among labeled images, real or generated (supplement; the authors' nnc_score)
    MnistNn(MnistNnArgs),
    /// Mean distance of real images to the nearest of many samples (the authors' nnd_score)
    Nnd(NndArgs),
    /// Run a recorded claim again and compare within its tolerance
    Reproduce(ReproduceArgs),
    /// Extract features to a file
    Features(FeaturesArgs),
    /// Fit the SVM to one feature file and score it on another
    Probe(ProbeArgs),
    /// Time the extraction of features from synthetic images
    Bench(BenchArgs),
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Networks by name
    #[arg(long, value_name = "NAME", default_value = "svhn32")]
    pub(crate) preset: String,
    /// Images in a batch
    #[arg(long, value_name = "B", default_value_t = 128)]
    pub(crate) batch_size: usize,
    /// Images in all
    #[arg(long, alias = "pictures", value_name = "N", default_value_t = 10_000)]
    pub(crate) images: usize,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Default for TaskArgs {
    /// What clap makes of no option at all.
    fn default() -> Self {
        #[derive(Parser)]
        struct Nothing {
            #[command(flatten)]
            args: TaskArgs,
        }
        Nothing::parse_from(["dcgan-eval"]).args
    }
}

/// Which model, and what it is made of.
#[derive(Args, Debug, Default)]
pub(crate) struct ModelArgs {
    /// A model folder, a run folder (its best checkpoint), a checkpoint, or a file of another program with --preset [default:
    /// ./models/PRESET of the task; digits: the embedded model]
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

#[derive(Args, Debug)]
pub(crate) struct TaskArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The dataset in its publisher's layout, with training and test images [default: embedded digits]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Leave out images that cannot be read
    #[arg(long, requires = "data")]
    pub(crate) skip_bad: bool,
    /// Labels a class in a draw [default: svhn 100, others all labels]
    #[arg(long, value_name = "K")]
    pub(crate) labels_per_class: Option<usize>,
    /// Draws of labels scored on the test set [default: svhn 100, others 10]
    #[arg(long, value_name = "R")]
    pub(crate) repeats: Option<usize>,
    /// Draws of labels that choose C
    #[arg(long, value_name = "R", default_value_t = 10)]
    pub(crate) selection_draws: usize,
    /// Values of C to choose from, separated by commas [default: the task's]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true)]
    pub(crate) c: Vec<f64>,
    /// Seed of the draws and of random weights
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Who fits the SVM
    #[arg(long, value_enum, default_value_t)]
    pub(crate) solver: Solver,
    /// What to compare with, separated by commas [default: pixels,random]
    #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
    pub(crate) baseline: Vec<BaselineArg>,
    /// Trials of the supervised baseline's random search
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) trials: u64,
    /// Batch-norm statistics of D [default: svhn recalibrate, others stored where there are any]
    #[arg(long, value_enum)]
    pub(crate) statistics: Option<StatisticsArg>,
    /// How features are kept in memory and in --cache
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dtype: Dtype,
    /// Keep features in this folder, and take them from there the next time
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

#[derive(Args, Debug)]
pub(crate) struct MnistNnArgs {
    /// MNIST's idx files, or another dataset with training and test images [default: embedded digits, 8,000 and 2,000]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Labeled images to classify by: a folder of folders, a zip, or a cache by `dcgan-data pack` for millions of them
    /// [default: the training images of --data]
    #[arg(long, value_name = "PATH")]
    pub(crate) samples: Option<PathBuf>,
    /// Leave out images that cannot be read
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct NndArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Images: the test images of a publisher's dataset, or all of another [default: embedded digits]
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Leave out images that cannot be read
    #[arg(long, requires = "data")]
    pub(crate) skip_bad: bool,
    /// Images to measure from, the first ones
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) queries: usize,
    /// Numbers of samples to score at, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = [1000, 10_000, 100_000])]
    pub(crate) counts: Vec<usize>,
    /// Seed of the samples
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ReproduceArgs {
    /// The claim, as listed without one
    pub(crate) claim: Option<String>,
    /// The model that the claim is about, where it is not the embedded one
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// The data that the claim is about, where they are not the embedded digits
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
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
    /// Images: a folder, a zip, CIFAR / MNIST / SVHN files, or a cache by `dcgan-data pack` [default: embedded digits]
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Part of a publisher's dataset
    #[arg(long, value_enum, default_value_t)]
    pub(crate) split: SplitArg,
    /// Cut the N x N centre out of every image before resizing
    #[arg(long, value_name = "N")]
    pub(crate) crop: Option<usize>,
    /// Leave out images that cannot be read
    #[arg(long, requires = "data")]
    pub(crate) skip_bad: bool,
    /// Batch-norm statistics of D; recalibrate: on the training images of --data [default: stored where there are any]
    #[arg(long, value_enum)]
    pub(crate) statistics: Option<StatisticsArg>,
    /// How features are stored
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dtype: Dtype,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// The safetensors file to write
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) out: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct ProbeArgs {
    /// Features with labels to fit, made by `dcgan-eval features`
    #[arg(long, value_name = "F.safetensors")]
    pub(crate) train: PathBuf,
    /// Features with labels to score on
    #[arg(long, value_name = "G.safetensors")]
    pub(crate) test: PathBuf,
    /// Values of C to choose from, separated by commas; one: take it [default: 1e-4,1e-3 and beyond]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true)]
    pub(crate) c: Vec<f64>,
    /// Training images at the end of the file that choose C [default: the last fifth of each class]
    #[arg(long, value_name = "N")]
    pub(crate) held_out: Option<usize>,
    /// Who fits the SVM
    #[arg(long, value_enum, default_value_t)]
    pub(crate) solver: Solver,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Solver {
    /// This program's squared-hinge SVM, the objective of scikit-learn's LinearSVC
    #[default]
    L2,
    /// linfa-svm: hinge loss by SMO, for a few thousand rows at most
    Linfa,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BaselineArg {
    /// The images themselves
    Pixels,
    /// The same network with random weights
    Random,
    /// A supervised network of the same shape on the same labels, by random search (section 5.2); slow
    Supervised,
    /// Nothing
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatisticsArg {
    /// The model's own
    Stored,
    /// Averages over batches of 128 of the training images
    #[value(alias = "reestimate")]
    Recalibrate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// Four bytes a value
    #[default]
    F32,
    /// Two bytes a value
    Bf16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SplitArg {
    /// The training images
    #[default]
    Train,
    /// The test images
    Test,
}
