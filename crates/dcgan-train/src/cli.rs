//! The arguments of the command line.

use crate::option_args::OptionArgs;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use dcgan_cli::{LogArgs, integer};
use dcgan_model::DeviceChoice;
use dcgan_ops::Precision;
use dcgan_train::config::{LENGTHS, Plan, RunOptions, messages};
use dcgan_train::options::{self, Section, TrainOption, Values, parse_size};
use dcgan_train::preset_choice::PresetChoice;
use dcgan_train::run_folder::RunFolder;
#[cfg(feature = "service")]
use dcgan_train::service::KeepDone;
use std::path::{Path, PathBuf};

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed; 2 invalid arguments, configuration or data, nothing was written; 130 stopped by Ctrl-C,
SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 or SIGXCPU, with a checkpoint";

/// Train image generators on your own images: the DCGAN of Radford, Metz and Chintala.
///
/// Without a command: trains the preset `digits` on the embedded handwritten digits, a run of about two minutes.
#[derive(Debug, Parser)]
#[command(name = "dcgan-train", version, after_help = EXIT_CODES)]
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
    /// Compare runs: steps, speed, random-feature Fréchet distance, losses, options that differ; means over seeds
    Compare(CompareArgs),
    /// Animate the sample grids of a run
    Animate(AnimateArgs),
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
    /// Export a model for PyTorch, ONNX runtimes, or the browser
    Export(ExportArgs),
    /// Store a model folder of `export --to hub` on the Hugging Face Hub
    #[cfg(feature = "hub")]
    #[command(after_help = TOKENS)]
    Push(PushArgs),
    /// Copy a model of the Hugging Face Hub to a folder
    #[cfg(feature = "hub")]
    #[command(after_help = TOKENS)]
    Pull(PullArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    options: OptionArgs<false>,
    /// Run folder to create [default: ./runs/<preset>-NNN]
    #[arg(long, value_name = "RUN")]
    pub(crate) out: Option<PathBuf>,
    /// Run once with each of these seeds, separated by commas: in RUN-s1, RUN-s2 and so on. The same command continues
    /// after an interruption
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        conflicts_with_all = ["repeat", "seed"],
        value_parser = integer::<u64>(0, u64::MAX)
    )]
    pub(crate) seeds: Vec<u64>,
    /// Run with N seeds, starting at --seed, as with --seeds
    #[arg(long, value_name = "N", value_parser = integer::<u64>(1, 1000))]
    pub(crate) repeat: Option<u64>,
    /// Whether the command is one of several runs, whose results are printed together.
    #[arg(skip)]
    is_part: bool,
    /// Resume the run in --out if there is one: for jobs that a scheduler starts again with the same command. What
    /// `resume` cannot change must be as before
    #[arg(long, requires = "out")]
    pub(crate) resume_if_exists: bool,
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
    /// Continue also if images were added, removed, replaced or repaired. From here on the run differs from one on
    /// unchanged data
    #[arg(long)]
    pub(crate) accept_data_change: bool,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
    /// As in [`RunArgs`].
    #[arg(skip)]
    is_part: bool,
}

/// What a run prints at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Summary {
    Text,
    Json,
    /// The runs of a command with `--json` are printed together.
    None,
}

impl Summary {
    fn of(json: bool, is_part: bool) -> Self {
        match (json, is_part) {
            (false, _) => Self::Text,
            (true, false) => Self::Json,
            (true, true) => Self::None,
        }
    }
}

impl ResumeArgs {
    /// What the command prints at its end.
    pub(crate) fn summary(&self) -> Summary {
        Summary::of(self.json, self.is_part)
    }
}

#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// Run folders, or folders that contain them
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
    /// Draw the curves of the runs: random-feature Fréchet distance and losses
    #[arg(long, value_name = "F.png")]
    pub(crate) out: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct AnimateArgs {
    /// The run folder
    pub(crate) run: PathBuf,
    /// The animation to write
    #[arg(long, value_name = "F.gif")]
    pub(crate) out: PathBuf,
    /// Enlarge the sample grids by this factor
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = integer::<usize>(1, 16))]
    pub(crate) scale: usize,
    /// Sample grids per second; the last one stays for two seconds
    #[arg(long, value_name = "F", default_value_t = 8, value_parser = integer::<u32>(1, 50))]
    pub(crate) fps: u32,
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Networks by name
    #[arg(long, value_name = "NAME", default_value = "pytorch64")]
    pub(crate) preset: String,
    /// Batch size, in images [default: that of the preset]
    #[arg(long, value_name = "B", value_parser = integer::<usize>(2, 65536))]
    pub(crate) batch_size: Option<usize>,
    /// Timed steps
    #[arg(long, value_name = "K", default_value_t = 7, value_parser = integer::<u64>(1, 1000000))]
    pub(crate) steps: u64,
    /// What to time
    #[arg(long, value_enum, default_value_t)]
    pub(crate) work: Work,
    /// Images of --work samples
    #[arg(
        long, alias = "pictures", value_name = "N", default_value_t = 10_000,
        value_parser = integer::<usize>(1, 100000000)
    )]
    pub(crate) images: usize,
    /// Precision of the inputs of matrix products and convolutions; accumulation and weights are f32
    #[arg(long, value_name = "TYPE", value_parser = dtype(), default_value_t)]
    pub(crate) dtype: Precision,
    /// auto, cpu, cuda:N or metal:N
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceChoice,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, 4096))]
    pub(crate) threads: Option<usize>,
    /// Print how each layer is computed, and its time; on an NVIDIA GPU, the engine and the speed of each convolution
    #[arg(long, conflicts_with = "verify")]
    pub(crate) explain: bool,
    /// Instead of timing, compare passes of both networks on the device with the CPU in f32, and check that repeated
    /// passes are bit-identical
    #[arg(long, conflicts_with_all = ["steps", "work", "images"])]
    pub(crate) verify: bool,
    /// Seed of --verify
    #[arg(
        long, value_name = "S", default_value_t = 0, requires = "verify",
        value_parser = integer::<u64>(0, u64::MAX)
    )]
    pub(crate) seed: u64,
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
    /// Images to draw: up to 10,000 in a grid, up to 100,000,000 with --each
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = integer::<usize>(1, 100_000_000))]
    pub(crate) n: usize,
    /// Draw images of one class of a conditional model, by name or number [default: the classes in turn]
    #[arg(long, value_name = "CLASS", conflicts_with = "per_class")]
    pub(crate) class: Option<String>,
    /// Draw N images of every class of a conditional model: a grid with a row for each class
    #[arg(long, value_name = "N", conflicts_with = "n", value_parser = integer::<usize>(1, 100_000_000))]
    pub(crate) per_class: Option<usize>,
    /// Seed of z
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = integer::<u64>(0, u64::MAX))]
    pub(crate) seed: u64,
    /// Enlarge every image K times (nearest neighbour)
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = integer::<usize>(1, 64))]
    pub(crate) scale: usize,
    /// Pixels between and around the images of a grid [default: 2, a single image has none]
    #[arg(long, value_name = "N", conflicts_with = "each", value_parser = integer::<usize>(0, 1024))]
    pub(crate) gap: Option<usize>,
    /// auto, cpu, cuda:N or metal:N
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceChoice,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = integer::<usize>(1, 4096))]
    pub(crate) threads: Option<usize>,
    /// The image grid to write: .png, .jpg or .webp; - is standard output
    #[arg(long, value_name = "FILE", required_unless_present = "each")]
    pub(crate) out: Option<PathBuf>,
    /// Write every image as a PNG of its own, 00000000.png and so on, to a new folder or a zip, in a folder for each
    /// class of a conditional model. The same command continues an interrupted folder
    #[arg(long, value_name = "FOLDER|F.zip", conflicts_with = "out")]
    pub(crate) each: Option<PathBuf>,
    /// Print one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(feature = "service")]
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Folder of the jobs and their run folders; created if missing
    #[arg(long, value_name = "DIR", env = "DCGAN_STORE")]
    pub(crate) store: PathBuf,
    /// Address and port; an address that other machines reach needs --token-file. Port 0 is any free port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8421", env = "DCGAN_LISTEN")]
    pub(crate) listen: String,
    /// Folder of datasets for jobs [default: none, jobs train on the embedded digits]
    #[arg(long, value_name = "DIR", env = "DCGAN_DATA_ROOT")]
    pub(crate) data_root: Option<PathBuf>,
    /// Folder of model folders to sample from and start from
    #[arg(long, value_name = "DIR", default_value = "models", env = "DCGAN_MODEL_ROOT")]
    pub(crate) model_root: PathBuf,
    /// Devices that jobs train on: auto, cpu, cuda:N or metal:N, separated by commas or in repeated options. Each
    /// trains one job at a time; cpu given twice splits the threads between two jobs
    #[arg(
        long,
        visible_alias = "devices",
        value_name = "D",
        value_delimiter = ',',
        default_value = "auto",
        env = "DCGAN_DEVICE"
    )]
    pub(crate) device: Vec<DeviceChoice>,
    /// File with the token of requests, `Authorization: Bearer TOKEN`
    #[arg(long, value_name = "F", env = "DCGAN_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Allow requests of web pages of this origin
    #[arg(long, value_name = "ORIGIN", env = "DCGAN_ALLOW_ORIGIN")]
    pub(crate) allow_origin: Option<String>,
    /// Limit of queued jobs
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        value_parser = integer::<u64>(1, u64::MAX),
        env = "DCGAN_MAX_QUEUED"
    )]
    pub(crate) max_queued: u64,
    /// Done jobs that keep their optimizer state, most of their size: the newest N, or those of the last DAYS, as in
    /// 30d; others cannot be extended [default: all]
    #[arg(long, value_name = "N|DAYSd", env = "DCGAN_KEEP_DONE")]
    pub(crate) keep_done: Option<KeepDone>,
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
    /// The network to keep [default: all that SRC has]
    #[arg(long, value_enum)]
    pub(crate) network: Option<Network>,
    /// The model folder to create
    #[arg(long, value_name = "MODEL")]
    pub(crate) out: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// A model folder, a run folder or a checkpoint
    pub(crate) model: PathBuf,
    /// The format
    #[arg(long, value_enum)]
    pub(crate) to: ExportFormat,
    /// The folder to create; for onnx, the file to write
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,
    /// onnx: the network of the file
    #[arg(long, value_enum, default_value_t)]
    pub(crate) network: Network,
    /// onnx: images of the generator are u8 (n, h, w, c), as in image files, instead of f32 (n, c, h, w)
    #[arg(long)]
    pub(crate) bytes: bool,
    /// onnx: the second input of a conditional generator is `labels`, f32 (n, classes), instead of `label`, i64 (n), so
    /// that classes can be interpolated
    #[arg(long)]
    pub(crate) label_vectors: bool,
    /// onnx: the discriminator also returns its features, the activations of every block max-pooled to 4x4
    #[arg(long)]
    pub(crate) features: bool,
    /// onnx, web, hub: a license, for the metadata of the file, the foot of the page, or the card
    #[arg(long, value_name = "TEXT")]
    pub(crate) license: Option<String>,
    /// web: the npm package onnxruntime-web, its folder or the file of `npm pack onnxruntime-web` [default: the nearest
    /// node_modules/onnxruntime-web]
    #[arg(long, value_name = "PATH")]
    pub(crate) runtime: Option<PathBuf>,
    /// hub: a dataset that the model was trained on, by its name on the Hub; can be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: Vec<String>,
    /// hub: a file with metrics for the card, the JSON of `dcgan-eval metrics` or result.json of a run; can be repeated
    #[arg(long, value_name = "F.json")]
    pub(crate) results: Vec<PathBuf>,
    /// hub: the type of the stored weights [default: f32]
    #[arg(long, value_parser = dtype())]
    pub(crate) dtype: Option<Precision>,
}

#[cfg(feature = "hub")]
const TOKENS: &str = "The token is that of the Hub's own programs: HF_TOKEN, or what `hf auth login` stored. Copies are \
                      in HF_HOME. HF_ENDPOINT names another server.";

#[cfg(feature = "hub")]
#[derive(Args, Debug)]
pub(crate) struct PushArgs {
    /// The folder
    pub(crate) folder: PathBuf,
    /// hf://OWNER/NAME, created if it is not there; followed by @BRANCH for a branch other than main
    pub(crate) address: String,
    /// Create a private repository
    #[arg(long)]
    pub(crate) private: bool,
    /// Message of the commit
    #[arg(long, value_name = "TEXT", default_value = "Upload a model of dcgan-rs")]
    pub(crate) message: String,
}

#[cfg(feature = "hub")]
#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    /// hf://OWNER/NAME, or hf://OWNER/NAME@REVISION
    pub(crate) address: String,
    /// The folder to create
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// A network of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    #[default]
    Generator,
    Discriminator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// netG.safetensors and netD.safetensors of pytorch/examples; for networks that are no nn.Sequential, networks.py
    /// with their PyTorch definitions beside them
    Pytorch,
    /// One network as an ONNX file, opset 17, of any batch size
    Onnx,
    /// A page that draws from the generator in the browser, offline: open its index.html, or put the folder on a web
    /// server
    Web,
    /// A model folder whose card and configuration have the metadata of the Hugging Face Hub
    Hub,
}

/// A type of floating-point values, by name.
fn dtype() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(Precision::ALL.map(Precision::name)).try_map(|name| name.parse())
}

impl RunArgs {
    /// Whether the command is a run for each of several seeds.
    pub(crate) fn is_repeated(&self) -> bool {
        self.repeat.is_some() || !self.seeds.is_empty()
    }

    /// The run with `seed` in the folder `out`, of a command with several.
    pub(crate) fn part(&self, seed: u64, out: &Path) -> Self {
        let mut part = Self {
            out: Some(out.to_owned()),
            seeds: Vec::new(),
            repeat: None,
            is_part: true,
            ..self.clone()
        };
        part.options.0.insert("seed", seed.into());
        part
    }

    /// The arguments that continue the run in `out` with these options.
    pub(crate) fn resumed(&self, out: &Path) -> ResumeArgs {
        ResumeArgs {
            run: out.to_owned(),
            options: OptionArgs(self.resumable()),
            accept_data_change: false,
            json: self.json,
            is_part: self.is_part,
        }
    }

    /// What the command prints at its end.
    pub(crate) fn summary(&self) -> Summary {
        Summary::of(self.json, self.is_part)
    }

    /// The plan of the run, with absolute paths; where no preset is named, that which fits the images.
    ///
    /// # Errors
    /// Every fault.
    pub(crate) fn plan(&self) -> Result<Plan, Vec<String>> {
        let mut options = self.options().map_err(|fault| vec![fault])?;
        // The images choose the networks.
        if let Some(address) = options.values.get("data").and_then(|data| data.as_str()) {
            dcgan_data::local_path(Path::new(address), &|| false).map_err(|error| vec![error.to_string()])?;
        }
        if let Some(choice) = PresetChoice::apply(&mut options) {
            tracing::info!("{choice}");
        }
        let mut plan = Plan::resolve(&options).map_err(messages)?;
        plan.make_paths_absolute();
        Ok(plan)
    }

    /// Whether the options name the networks; otherwise the images choose them.
    pub(crate) fn names_networks(&self) -> bool {
        ["preset", "config", "size", "channels"].iter().any(|name| self.options.0.contains_key(name))
    }

    /// Whether the images are named but not there.
    pub(crate) fn is_data_missing(&self) -> bool {
        let data = self.options.0.get("data").and_then(|data| data.as_str()).map(Path::new);
        data.is_some_and(|data| !dcgan_data::is_remote(data) && !data.exists())
    }

    /// The plan of the run in `out` with the options given.
    ///
    /// # Errors
    /// Every fault.
    pub(crate) fn plan_in(&self, out: &Path) -> Result<Plan, Vec<String>> {
        let (_, mut plan) = RunFolder::open(out).map_err(|error| vec![error.to_string()])?;
        plan.set(&self.options.0).map_err(messages)?;
        plan.make_paths_absolute();
        let faults = messages(plan.faults());
        if faults.is_empty() { Ok(plan) } else { Err(faults) }
    }

    /// The options given that `resume` can change, on the command line or in the configuration file.
    pub(crate) fn resumable(&self) -> Values {
        let is_resumable = |name: &str| options::all().any(|option| option.resumable && option.name == name);
        let given = self.options.0.iter().filter(|(name, _)| is_resumable(name));
        let given: Values = given.map(|(name, value)| (*name, value.clone())).collect();
        let mut values = self.resumable_in_config();
        if LENGTHS.iter().any(|length| given.contains_key(length)) {
            values.retain(|name, _| !LENGTHS.contains(name));
        }
        values.extend(given);
        values
    }

    /// The options in the configuration file that `resume` can change. A file that cannot be read is reported by
    /// [`RunArgs::plan`].
    fn resumable_in_config(&self) -> Values {
        let path = self.options.0.get("config").and_then(|path| path.as_str());
        let text = path.and_then(|path| std::fs::read_to_string(path).ok());
        let file = text.and_then(|text| text.parse::<toml::Table>().ok()).unwrap_or_default();
        let value = |option: &TrainOption| {
            let section = match option.section {
                Section::Run => "run",
                Section::Training => "training",
                Section::Networks => return None,
            };
            serde_json::to_value(file.get(section)?.get(option.name)?).ok()
        };
        let resumable = options::all().filter(|option| option.resumable);
        resumable.filter_map(|option| Some((option.name, value(option)?))).collect()
    }

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
