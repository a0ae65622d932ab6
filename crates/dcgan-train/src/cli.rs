//! The arguments of the command line.

use crate::option_args::OptionArgs;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use dcgan_cli::LogArgs;
use dcgan_model::DeviceChoice;
use dcgan_ops::Precision;
use dcgan_train::config::RunOptions;
use dcgan_train::options::parse_size;
use std::path::PathBuf;

/// Train image generators on your own images: the DCGAN of Radford, Metz and Chintala.
///
/// Without a command: trains the preset `digits` on the embedded hand-written digits, a run of about two minutes.
#[derive(Debug, Parser)]
#[command(name = "dcgan-train", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model
    Run(Box<RunArgs>),
    /// Resume an interrupted run from its newest checkpoint
    Resume(ResumeArgs),
    /// Time real training steps on synthetic images
    Bench(BenchArgs),
    /// List the presets, or print one as a file to start from
    Presets {
        /// Print the TOML of this preset
        name: Option<String>,
    },
    /// Draw images from a model
    Sample(SampleArgs),
    /// Serve training over HTTP: submit, watch, stop and resume jobs, download models, draw samples
    ///
    /// Jobs are stored under --store and survive a kill at any moment. GET /openapi.json describes the API.
    #[cfg(feature = "service")]
    Serve(ServeArgs),
    /// Import weights of another program (safetensors, PyTorch .pth, the authors' joblib folder) as a model folder
    Import(ImportArgs),
    /// Export the weights of a model with the names of another program
    Export(ExportArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Args, Debug, Default)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    options: OptionArgs<false>,
    /// Run folder to create [default: ./runs/<preset>-NNN]
    #[arg(long, value_name = "RUN")]
    pub(crate) out: Option<PathBuf>,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ResumeArgs {
    /// The run folder
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) options: OptionArgs<true>,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Networks by name
    #[arg(long, value_name = "NAME", default_value = "pytorch64")]
    pub(crate) preset: String,
    /// Images of a minibatch [default: that of the preset]
    #[arg(long, value_name = "B")]
    pub(crate) batch_size: Option<usize>,
    /// Timed steps
    #[arg(long, value_name = "K", default_value_t = 7)]
    pub(crate) steps: u64,
    /// What to time
    #[arg(long, value_enum, default_value_t)]
    pub(crate) work: Work,
    /// Images of --work samples
    #[arg(long, alias = "pictures", value_name = "N", default_value_t = 10_000)]
    pub(crate) images: usize,
    /// Precision of the factors of products; weights are f32
    #[arg(long, value_name = "TYPE", value_parser = dtype(), default_value_t)]
    pub(crate) dtype: Precision,
    /// auto, cpu, cuda:N or metal:N
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceChoice,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Print how each layer is computed, and its time
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
    /// Sampling with G
    Samples,
}

#[derive(Args, Debug)]
pub(crate) struct SampleArgs {
    /// A model folder, a run folder (its best checkpoint), a checkpoint, or a file of another program
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Networks of a file of another program: a preset [default: inferred from the tensors]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub(crate) preset: Option<String>,
    /// Networks of a file of another program: a TOML file
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
    /// Folder of the jobs and their run folders; created if missing
    #[arg(long, value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// Address and port; an address that other machines reach needs --token-file. Port 0 is any free port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8421")]
    pub(crate) listen: String,
    /// Folder of datasets for jobs [default: none, jobs train on the embedded digits]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_root: Option<PathBuf>,
    /// Folder of model folders to sample from and start from
    #[arg(long, value_name = "DIR", default_value = "models")]
    pub(crate) model_root: PathBuf,
    /// Device that jobs train on: auto, cpu, cuda:N or metal:N
    #[arg(long, value_name = "D", default_value_t)]
    pub(crate) device: DeviceChoice,
    /// File with the token of requests, `Authorization: Bearer TOKEN`
    #[arg(long, value_name = "F")]
    pub(crate) token_file: Option<PathBuf>,
    /// Allow requests of web pages of this origin
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) allow_origin: Option<String>,
    /// Limit of queued jobs
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) max_queued: u64,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// .safetensors, .pth / .pt (zip or legacy): one file of both networks, or netG and netD in any order; a folder of
    /// such files, of which the newest are taken; the authors' joblib folder; or a run or model folder, to keep its
    /// networks
    #[arg(required = true)]
    pub(crate) src: Vec<PathBuf>,
    /// Networks of a file of another program: a preset [default: inferred from the tensors]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub(crate) preset: Option<String>,
    /// Networks of a file of another program: a TOML file
    #[arg(long, value_name = "F.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Size of the images, N or HxW (height x width), where the tensors leave it open
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with_all = ["preset", "config"])]
    pub(crate) size: Option<(usize, usize)>,
    /// Import NaN and infinity as they are
    #[arg(long)]
    pub(crate) allow_non_finite: bool,
    /// Type of the values written: f32, or bf16 for half the size
    #[arg(long, value_name = "TYPE", value_parser = dtype(), default_value_t = Precision::F32)]
    pub(crate) dtype: Precision,
    /// The model folder to create
    #[arg(long, value_name = "MODEL")]
    pub(crate) out: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// A model folder, a run folder or a checkpoint
    pub(crate) model: PathBuf,
    /// The program whose tensor names are used
    #[arg(long, value_enum)]
    pub(crate) to: ExportFormat,
    /// The folder to create
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExportFormat {
    /// netG.safetensors and netD.safetensors of pytorch/examples
    Pytorch,
}

/// A type of floating-point values, by name.
fn dtype() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(Precision::ALL.map(Precision::name)).try_map(|name| name.parse())
}

impl RunArgs {
    /// The options as given, with the text of the configuration file.
    pub(crate) fn options(&self) -> Result<RunOptions, String> {
        let values = self.options.0.clone();
        let read = |path: PathBuf| match std::fs::read_to_string(&path) {
            Ok(text) => Ok((path, text)),
            Err(error) => Err(format!("--config {}: {error}", path.display())),
        };
        let config = values.get("config").and_then(|path| path.as_str()).map(PathBuf::from);
        RunOptions::new(values, config.map(read).transpose()?).map_err(|fault| fault.message)
    }
}
