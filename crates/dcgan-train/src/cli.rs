//! The command line as typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use dcgan_cli::LogArgs;
use dcgan_model::DeviceChoice;
use dcgan_ops::Precision;
use dcgan_train::config::{Decay, Order, RunOptions, parse_size};
use std::path::PathBuf;

/// Train image generators on your own images: the DCGAN of Radford, Metz and Chintala.
///
/// Without a command: trains the preset `digits` on the embedded hand-written digits, a run of about two minutes.
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
    /// Train
    Run(Box<RunArgs>),
    /// Go on with a run that was stopped, from its newest checkpoint
    Resume(ResumeArgs),
    /// Time real training steps on synthetic images
    Bench(BenchArgs),
    /// List the presets, or print one as a file to start from
    Presets {
        /// Print this preset's TOML
        name: Option<String>,
    },
    /// Draw images from a model
    Sample(SampleArgs),
    /// Train for others over HTTP: submit, watch, stop, resume, take the model, draw samples
    ///
    /// Jobs are kept under --store and survive a kill at any moment. GET /openapi.json says what can be asked.
    #[cfg(feature = "service")]
    Serve(ServeArgs),
    /// Turn weights from elsewhere (safetensors, PyTorch .pth, the authors' joblib folder) into a model folder
    Import(ImportArgs),
    /// Write a model's weights with the names of another program
    Export(ExportArgs),
}

#[derive(Args, Debug, Default)]
pub(crate) struct RunArgs {
    /// Networks and settings by name (see `dcgan-train presets`) [default: digits]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    preset: Option<String>,
    /// Networks and settings from a TOML file (start from `dcgan-train presets NAME`)
    #[arg(long, value_name = "F.toml")]
    config: Option<PathBuf>,
    /// Images: a folder, a zip, CIFAR / MNIST / SVHN files, or a cache by `dcgan-data pack` [default: embedded digits]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Run folder to make [default: ./runs/<preset>-NNN]
    #[arg(long, value_name = "RUN")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    length: LengthArgs,
    /// Images in a minibatch
    #[arg(long, value_name = "B")]
    batch_size: Option<usize>,
    /// Height and width of the images, N or HxW: a multiple of the networks' total stride
    #[arg(long, value_name = "HxW", value_parser = parse_size)]
    size: Option<(usize, usize)>,
    /// Seed of every random number [default: 0]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// auto, cpu, cuda:N or metal:N
    #[arg(long, default_value_t)]
    device: DeviceChoice,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// What products are computed with [default: f32]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Cut the N x N centre out of every image before resizing
    #[arg(long, value_name = "N")]
    crop: Option<usize>,
    /// Leave out images that cannot be read, and count them
    #[arg(long)]
    skip_bad: bool,
    /// Start from the weights of this model
    #[arg(long, value_name = "MODEL")]
    init_from: Option<PathBuf>,
    /// Steps between two log lines [default: 50]
    #[arg(long, value_name = "N")]
    log_every: Option<u64>,
    /// Steps between two checkpoints [default: 500]
    #[arg(long, value_name = "N")]
    checkpoint_every: Option<u64>,
    /// Steps between two sample grids [default: 500]
    #[arg(long, value_name = "N")]
    sample_every: Option<u64>,
    /// How many of the newest checkpoints to keep, beside the best [default: 3]
    #[arg(long, value_name = "K")]
    keep: Option<usize>,
    /// Adam's step size
    #[arg(long, value_name = "LR")]
    learning_rate: Option<f64>,
    /// Constant, or linearly to zero over the second half of the run
    #[arg(long, value_enum, value_name = "HOW")]
    learning_rate_decay: Option<DecayArg>,
    /// L2 added to the gradient of every parameter
    #[arg(long, value_name = "X")]
    weight_decay: Option<f64>,
    /// How far below 1 the target of real images is
    #[arg(long, value_name = "X")]
    label_smoothing: Option<f64>,
    /// Decay of the moving average of G's weights that samples and checkpoints use (0: off)
    #[arg(long, value_name = "X")]
    ema: Option<f64>,
    /// Show images mirrored left to right half of the time
    #[arg(long)]
    mirror: bool,
    /// D then G on every minibatch (pytorch/examples), or G and D in turn (the authors)
    #[arg(long, value_enum)]
    order: Option<OrderArg>,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Clone, Copy, Debug, Default)]
#[group(multiple = false)]
pub(crate) struct LengthArgs {
    /// Length of the run in real images read
    #[arg(long, value_name = "N")]
    pub(crate) images: Option<u64>,
    /// Length of the run in passes over the data
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<u64>,
    /// Length of the run in minibatches read
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct ResumeArgs {
    /// The run folder
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) length: LengthArgs,
    /// Another device than the run began on
    #[arg(long)]
    pub(crate) device: Option<DeviceChoice>,
    /// Threads [default: as the run began]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Networks by name
    #[arg(long, value_name = "NAME", default_value = "pytorch64")]
    pub(crate) preset: String,
    /// Images in a minibatch [default: the preset's]
    #[arg(long, value_name = "B")]
    pub(crate) batch_size: Option<usize>,
    /// Timed steps
    #[arg(long, value_name = "K", default_value_t = 7)]
    pub(crate) steps: u64,
    /// What to time
    #[arg(long, value_enum, default_value_t)]
    pub(crate) work: Work,
    /// Images that --work samples draws
    #[arg(long, alias = "pictures", value_name = "N", default_value_t = 10_000)]
    pub(crate) images: usize,
    /// What products are computed with
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dtype: Dtype,
    /// auto, cpu, cuda:N or metal:N
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceChoice,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Print how each layer is computed and what it takes
    #[arg(long)]
    pub(crate) explain: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `bench` times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Training steps, of D and of G
    #[default]
    Step,
    /// Drawing images with G
    Samples,
}

#[derive(Args, Debug)]
pub(crate) struct SampleArgs {
    /// A model folder, a run folder (its best checkpoint), a checkpoint, or a file of another program with --preset
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Networks of a file of another program, by name; or
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub(crate) preset: Option<String>,
    /// from a TOML file
    #[arg(long, value_name = "F.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Images to draw
    #[arg(long, default_value_t = 64)]
    pub(crate) n: usize,
    /// Seed of z
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// auto, cpu, cuda:N or metal:N
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceChoice,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// The PNG to write
    #[arg(long, value_name = "F.png")]
    pub(crate) out: PathBuf,
}

#[cfg(feature = "service")]
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Folder of the jobs and their run folders; made where it is missing
    #[arg(long, value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// Address and port; any but this machine's own needs --token-file. Port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8421")]
    pub(crate) listen: String,
    /// Folder of the datasets that jobs may name [default: none, jobs train on the embedded digits]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_root: Option<PathBuf>,
    /// Folder of model folders to draw from and start from
    #[arg(long, value_name = "DIR", default_value = "models")]
    pub(crate) model_root: PathBuf,
    /// Where jobs train: auto, cpu, cuda:N or metal:N
    #[arg(long, value_name = "D", default_value_t)]
    pub(crate) device: DeviceChoice,
    /// File with the token that requests must bring as `Authorization: Bearer TOKEN`
    #[arg(long, value_name = "F")]
    pub(crate) token_file: Option<PathBuf>,
    /// Answer requests of web pages of this origin
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) allow_origin: Option<String>,
    /// Jobs that may wait; more are refused until some have run
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) max_queued: u64,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// .safetensors, .pth / .pt (zip or legacy), the authors' joblib folder; or a run or model folder, to keep its networks
    pub(crate) src: PathBuf,
    /// Networks that another program's weights belong to, by name; or
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub(crate) preset: Option<String>,
    /// from a TOML file
    #[arg(long, value_name = "F.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Type of the values written: f32, or bf16 for half the size
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dtype: StoredDtype,
    /// The model folder to make
    #[arg(long, value_name = "MODEL")]
    pub(crate) out: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum StoredDtype {
    /// Four bytes, exact
    #[default]
    F32,
    /// Two bytes, rounded to nearest even
    Bf16,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// A model folder, a run folder or a checkpoint
    pub(crate) model: PathBuf,
    /// Whose names the tensors get
    #[arg(long, value_enum)]
    pub(crate) to: ExportFormat,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExportFormat {
    /// netG.safetensors and netD.safetensors of pytorch/examples
    Pytorch,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Dtype {
    /// Single precision
    #[default]
    F32,
    /// Products of bf16 summed in f32, on CPUs that multiply bf16 (AVX512-BF16) faster; weights stay f32
    Bf16,
}

impl Dtype {
    pub(crate) fn precision(self) -> Precision {
        match self {
            Dtype::F32 => Precision::F32,
            Dtype::Bf16 => Precision::Bf16,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrderArg {
    Both,
    Alternate,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DecayArg {
    None,
    Linear,
}

impl RunArgs {
    /// What was typed as what it means; the configuration file is read.
    pub(crate) fn options(&self) -> Result<RunOptions, String> {
        let read = |path: &PathBuf| {
            let text = std::fs::read_to_string(path);
            text.map(|text| (path.clone(), text)).map_err(|e| format!("--config {}: {e}", path.display()))
        };
        Ok(RunOptions {
            preset: self.preset.clone(),
            config: self.config.as_ref().map(read).transpose()?,
            data: self.data.clone(),
            images: self.length.images,
            epochs: self.length.epochs,
            steps: self.length.steps,
            batch_size: self.batch_size,
            size: self.size,
            seed: self.seed,
            device: self.device,
            threads: self.threads,
            crop: self.crop,
            skip_bad: self.skip_bad,
            init_from: self.init_from.clone(),
            log_every: self.log_every,
            checkpoint_every: self.checkpoint_every,
            sample_every: self.sample_every,
            keep: self.keep,
            learning_rate: self.learning_rate,
            learning_rate_decay: self.learning_rate_decay.map(|decay| match decay {
                DecayArg::None => Decay::None,
                DecayArg::Linear => Decay::Linear,
            }),
            weight_decay: self.weight_decay,
            label_smoothing: self.label_smoothing,
            ema: self.ema,
            mirror: self.mirror,
            dtype: self.dtype.map(Dtype::precision),
            order: self.order.map(|order| match order {
                OrderArg::Both => Order::Both,
                OrderArg::Alternate => Order::Alternate,
            }),
        })
    }
}
