//! The plan of a run: a preset or configuration file with the options of the run, merged and checked.

use crate::options::{
    Kind, MAX_LENGTH, Section, TrainOption, Value, Values, at_least, between, from_to_below, length, option,
    parse_size, section,
};
use crate::skip_bad::SkipBad;
use dcgan_base::memory::machine_memory_bytes;
use dcgan_data::{Background, ImageShape};
use dcgan_metrics::SUBSET_SIZE;
use dcgan_model::{DeviceChoice, Model, ModelConfig, Preset, PresetError};
use dcgan_ops::Precision;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ops::Bound;
use std::path::PathBuf;

mod choices;

use choices::{BATCH_NORMS, BEST_BY, DECAYS, DECODED_IMAGES, ORDERS, PRECISIONS};
pub use choices::{BatchNorm, BestBy, Decay, DecodedImages, Order};

impl RunConfig {
    /// Memory for decoded images and prefetched minibatches, in bytes.
    pub fn loader_memory_bytes(&self) -> u64 {
        const USUAL: u64 = 1 << 30;
        let quarter = || machine_memory_bytes().map_or(USUAL, |bytes| (bytes / 4).min(USUAL));
        self.loader_memory.map_or_else(quarter, |mib| mib << 20)
    }
}

section! {
    /// `[run]` of the plan: where the data is, and how often the run reports and checkpoints.
    #[serde(default)]
    pub struct RunConfig in Run {
        /// Dataset: a folder, zip or tar of images, LMDB, Parquet, HDF5 or numpy files, a published dataset, or a cache
        /// of `dcgan-data pack`.
        data: Option<PathBuf> = None, option(Kind::Path("PATH")).otherwise("embedded digits").resumable();
        /// Crop every image to its center N x N before resizing.
        crop: Option<usize> = None, at_least(1);
        /// Composite images with alpha on this color: black, white or #rrggbb.
        background: String = "black".to_owned(), option(Kind::Text("COLOR"));
        /// Skip unreadable images, and count them; with N, at most N of them.
        skip_bad: SkipBad = SkipBad::default(), option(Kind::FlagOrCount).resumable();
        /// Leave out the images that this file names: the first column of a list by `dcgan-eval dedup`, or a name in
        /// each line.
        exclude: Option<PathBuf> = None, option(Kind::Path("LIST")).resumable();
        /// Seed of every random number.
        seed: u64 = 0, at_least(0);
        /// auto, cpu, cuda:N or metal:N.
        device: String = "auto".to_owned(), option(Kind::Text("DEVICE")).resumable();
        /// Threads for training and decoding.
        threads: Option<usize> = None, between(1, 4096).otherwise("one per core").resumable();
        /// Maximum number of decoding threads; only as many run as training needs.
        loader_threads: Option<usize> = None, between(1, 4096).otherwise("one per core").resumable();
        /// Memory for decoded images and prefetched minibatches, in MiB.
        loader_memory: Option<u64> = None, between(16, 1 << 24).otherwise("1024, or a quarter of the machine's").resumable();
        /// Decoded images that do not fit into this memory.
        decoded_images: DecodedImages = DecodedImages::default(), option(DECODED_IMAGES).resumable();
        /// Processes on this machine that train together, each on its shards; started through mpirun.
        processes: Option<usize> = None, between(1, 1024).otherwise("1").resumable();
        /// Start from the weights of this model.
        init_from: Option<PathBuf> = None, option(Kind::Path("MODEL"));
        /// Steps between two log lines.
        log_every: u64 = 50, at_least(1);
        /// Steps between two checkpoints; the last step writes one too.
        checkpoint_every: u64 = 500, at_least(1);
        /// Steps between two sample grids.
        sample_every: u64 = 500, at_least(1);
        /// Newest checkpoints to keep, in addition to the best.
        keep: usize = 3, at_least(1);
        /// Steps between two measurements of FID and KID; a multiple of checkpoint_every. Needs the Inception weights.
        metrics_every: Option<u64> = None, at_least(1).otherwise("never").resumable();
        /// File of the Inception weights.
        inception: Option<PathBuf> = None, option(Kind::Path("F.pth")).otherwise("that of DCGAN_INCEPTION").resumable();
        /// Samples, and real images, of FID and KID.
        metrics_images: usize = 2500, between(2, 1 << 20).resumable();
        /// Metric that selects the best checkpoint.
        best_by: BestBy = BestBy::default(), option(BEST_BY);
    }
}

section! {
    /// `[training]` of a preset, configuration file or plan. Files write every number out; there are no hidden
    /// defaults.
    pub struct TrainingConfig in Training {
        /// Size of a minibatch, in images.
        batch_size: usize, between(2, 1 << 16);
        /// Length of the run in real images read; excludes epochs and steps.
        images: Option<u64>, length();
        /// Length of the run in passes over the data; excludes images and steps.
        epochs: Option<u64>, length();
        /// Length of the run in minibatches read; excludes images and epochs.
        steps: Option<u64>, length();
        /// Networks that a minibatch updates.
        order: Order, option(ORDERS);
        /// Adam's learning rate (paper: 2e-4).
        learning_rate: f64, option(Kind::Float(Bound::Excluded(0.0), Bound::Included(1.0)));
        /// Learning rate schedule.
        learning_rate_decay: Decay, option(DECAYS);
        /// Adam's beta1 (paper: 0.5).
        beta1: f64, from_to_below(0.0, 1.0).file_only();
        /// Adam's beta2.
        beta2: f64, from_to_below(0.0, 1.0).file_only();
        /// Adam's epsilon, added to the square root of the second moment; as f32 it must not become zero.
        adam_eps: f64, from_to_below(f32::MIN_POSITIVE as f64, 1.0).file_only();
        /// L2 penalty: every gradient gets this times its parameter before Adam (authors' faces: 1e-5).
        weight_decay: f64, from_to_below(0.0, 1.0);
        /// One-sided label smoothing: how far below 1 the target of real images is (paper: 0).
        label_smoothing: f64, from_to_below(0.0, 0.5);
        /// Decay of the EMA of G's weights that samples and checkpoints use; 0 is off, as in the paper.
        ema: f64, from_to_below(0.0, 1.0);
        /// Kernels are initialized from N(0, `weight_std`^2) (paper: 0.02).
        weight_std: f64, option(Kind::Float(Bound::Excluded(0.0), Bound::Excluded(10.0))).file_only();
        /// Weights of batch norm are initialized from N(1, `norm_weight_std`^2).
        #[serde(alias = "gain_std")]
        norm_weight_std: f64, from_to_below(0.0, 10.0).file_only();
        /// Condition both networks on the class labels of the dataset (supplement of the paper).
        #[serde(default)]
        conditional: bool, option(Kind::Flag);
        /// Flip images horizontally with probability 1/2, for data where left and right are interchangeable.
        #[serde(default)]
        mirror: bool, option(Kind::Flag);
        /// Precision of the inputs of matrix products and convolutions; accumulation and weights are f32.
        #[serde(default)]
        dtype: Precision, option(PRECISIONS);
        /// Equal parts of a minibatch, a power of two. Processes that train together divide them among themselves: the
        /// same shards give the same bytes in any number of processes. On GPUs: the number of processes.
        #[serde(default = "one_shard")]
        shards: usize, between(1, 1 << 16);
        /// The images that batch norm takes its statistics over, with several shards.
        #[serde(default)]
        batch_norm: BatchNorm, option(BATCH_NORMS);
    }
}

fn one_shard() -> usize {
    1
}

/// The options of a run, on top of a preset or configuration file.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// `--preset`
    pub preset: Option<String>,
    /// Text of `--config`, and its path for messages.
    pub config: Option<(PathBuf, String)>,
    /// `--size`: height and width in place of the networks' own.
    pub size: Option<(usize, usize)>,
    /// `--channels`: in place of the networks' own.
    pub channels: Option<usize>,
    /// The other options that were given.
    pub values: Values,
}

impl RunOptions {
    /// Options from values of the table. `config` is the text of the configuration file, and its path for messages.
    ///
    /// # Errors
    /// A size that is neither `N` nor `HxW`.
    pub fn new(mut values: Values, config: Option<(PathBuf, String)>) -> Result<Self, Fault> {
        let mut take = |name| values.remove(name).and_then(|value| value.as_str().map(str::to_owned));
        let (preset, size) = (take("preset"), take("size"));
        let size = size.as_deref().map(parse_size).transpose();
        let size = size.map_err(|message| Fault::new("size", message))?;
        let channels = values.remove("channels").map(|value| {
            let channels = value.as_u64().and_then(|channels| usize::try_from(channels).ok());
            channels
                .filter(|channels| matches!(channels, 1 | 3 | 4))
                .ok_or_else(|| Fault::new("channels", format!("--channels is {value}, expected 1, 3 or 4")))
        });
        let channels = channels.transpose()?;
        values.remove("config");
        Ok(Self { preset, config, size, channels, values })
    }
}

/// A preset, a configuration file, or the plan of a run, whose `[run]` presets and most configuration files leave out.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    #[serde(default)]
    pub(crate) run: RunConfig,
    training: TrainingConfig,
    model: ModelConfig,
}

impl ConfigFile {
    /// Reads TOML; neither the networks nor the limits are checked yet.
    pub(crate) fn parse(text: &str) -> Result<Self, PresetError> {
        Ok(toml::from_str(text)?)
    }
}

/// One invalid option or field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The option by its name in plan.toml and JSON (`checkpoint_every`); `model` where the networks do not fit
    /// together.
    pub field: String,
    /// A sentence with the option or field, what was found and what is expected.
    pub message: String,
}

impl Fault {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The messages alone, for readers that do not need the fields.
pub fn messages(faults: Vec<Fault>) -> Vec<String> {
    faults.into_iter().map(|fault| fault.message).collect()
}

/// A run with every option resolved and checked: `plan.toml`, which is a configuration file as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// `[run]`
    pub run: RunConfig,
    /// `[training]`
    pub training: TrainingConfig,
    /// `[model]`
    pub model: ModelConfig,
}

/// The options that give the length of a run. They exclude each other.
pub const LENGTHS: [&str; 3] = ["images", "epochs", "steps"];

impl Plan {
    /// Merges preset or file with the options and checks the result.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn resolve(options: &RunOptions) -> Result<Self, Vec<Fault>> {
        let file = match (&options.preset, &options.config) {
            (Some(_), Some(_)) => Err(Fault::new("config", "--preset and --config exclude each other")),
            (None, Some((path, text))) => ConfigFile::parse(text)
                .map_err(|error| Fault::new("config", format!("{}: {error}", path.display()))),
            (name, None) => Preset::text(name.as_deref().unwrap_or("digits"))
                .and_then(ConfigFile::parse)
                .map_err(|error| Fault::new("preset", error.to_string())),
        };
        let ConfigFile { run, training, mut model } = file.map_err(|fault| vec![fault])?;
        if let Some((height, width)) = options.size {
            (model.height, model.width) = (height, width);
        }
        if let Some(channels) = options.channels {
            model.channels = channels;
            if let Some(image) = model.generator.blocks.last_mut() {
                image.channels = channels;
            }
        }
        let mut plan = Self { run, training, model };
        let mut faults = plan.set(&options.values).err().unwrap_or_default();
        if options.values.get("conditional") == Some(&Value::Bool(false)) {
            (plan.model.classes, plan.model.class_names) = (0, Vec::new());
        }
        faults.extend(plan.faults());
        if faults.is_empty() { Ok(plan) } else { Err(faults) }
    }

    /// Sets options of `[run]` and `[training]`. A length replaces the one before. The limits are those of
    /// [`Plan::faults`].
    ///
    /// # Errors
    /// More than one length; values of another type than their option's.
    pub fn set(&mut self, values: &Values) -> Result<(), Vec<Fault>> {
        let mut values = values.clone();
        let mut faults = Vec::new();
        match LENGTHS.iter().filter(|length| values.contains_key(**length)).count() {
            0 => {}
            1 => (self.training.images, self.training.epochs, self.training.steps) = (None, None, None),
            _ => {
                values.retain(|name, _| !LENGTHS.contains(name));
                faults.push(Fault::new("steps", "--images, --epochs and --steps exclude each other"));
            }
        }
        // The plan has no place for these, so the limits are checked here.
        for option in RunConfig::OPTIONS.iter().chain(TrainingConfig::OPTIONS) {
            let is_no_integer = |value: &Value| value.is_number() && value.as_u64().is_none();
            if matches!(option.kind, Kind::Integer(..))
                && values.get(option.name).is_some_and(is_no_integer)
                && let Some(Err(message)) = values.remove(option.name).map(|value| option.check(&value))
            {
                faults.push(Fault::new(option.field(), message));
            }
        }
        let run = with_values(&self.run, RunConfig::OPTIONS, &mut values);
        let training = with_values(&self.training, TrainingConfig::OPTIONS, &mut values);
        match run {
            Ok(run) => self.run = run,
            Err(error) => faults.push(Fault::new("run", format!("[run]: {error}"))),
        }
        match training {
            Ok(training) => self.training = training,
            Err(error) => faults.push(Fault::new("training", format!("[training]: {error}"))),
        }
        faults.extend(values.keys().map(|name| Fault::new(*name, format!("unknown option {name}"))));
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Every invalid value, and options that do not fit together.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = match Model::new(self.model.clone()) {
            Ok(_) => Vec::new(),
            Err(error) => error.faults.into_iter().map(|fault| Fault::new("model", fault)).collect(),
        };
        if self.model.is_conditional() && !self.training.conditional {
            let message = format!(
                "classes is {}, but conditional is false: set conditional = true in [training], or remove classes",
                self.model.classes
            );
            faults.push(Fault::new("conditional", message));
        }
        let Self { run, training, .. } = self;
        faults.extend(limit_faults(training, TrainingConfig::OPTIONS));
        let (shards, batch_size) = (training.shards, training.batch_size);
        if shards > 0 && !(shards.is_power_of_two() && batch_size.is_multiple_of(shards)) {
            let message = format!(
                "--shards is {shards}, expected a power of two that divides the batch size, {batch_size}"
            );
            faults.push(Fault::new("shards", message));
        }
        if let Some(processes) = run.processes.filter(|&n| n > 1 && !(n.is_power_of_two() && n <= shards)) {
            let message = format!(
                "--processes is {processes}, expected a power of two that is at most --shards, {shards}"
            );
            faults.push(Fault::new("processes", message));
        }
        let given = [training.images, training.epochs, training.steps].iter().flatten().count();
        if given != 1 {
            let message = format!("the run has {given} lengths, expected one of {}", LENGTHS.join(", "));
            faults.push(Fault::new("steps", message));
        }
        faults.extend(limit_faults(run, RunConfig::OPTIONS));
        match run.metrics_every {
            Some(every) if !every.is_multiple_of(run.checkpoint_every.max(1)) => {
                let message = format!(
                    "--metrics-every is {every}, expected a multiple of --checkpoint-every, {}",
                    run.checkpoint_every
                );
                faults.push(Fault::new("metrics_every", message));
            }
            None if run.best_by != BestBy::Frechet => {
                faults.push(Fault::new("best_by", "--best-by fid and kid need --metrics-every"));
            }
            _ => {}
        }
        if run.best_by == BestBy::Kid && run.metrics_images < SUBSET_SIZE {
            let message =
                format!("--metrics-images is {}, KID needs {SUBSET_SIZE} or more", run.metrics_images);
            faults.push(Fault::new("metrics_images", message));
        }
        if run.data.is_none() && run.crop.is_some() {
            faults.push(Fault::new("crop", "--crop needs --data: the embedded digits are not cropped"));
        }
        if run.data.is_none() && run.exclude.is_some() {
            faults.push(Fault::new("exclude", "--exclude needs --data: the embedded digits are all used"));
        }
        if run.data.is_none() && run.skip_bad.is_on() {
            faults.push(Fault::new(
                "skip_bad",
                "--skip-bad needs --data: the embedded digits are all readable",
            ));
        }
        match run.background.parse::<Background>() {
            Err(message) => faults.push(Fault::new("background", format!("--{message}"))),
            Ok(background) if run.data.is_none() && background != Background::BLACK => {
                let message = "--background needs --data: the embedded digits have no alpha";
                faults.push(Fault::new("background", message));
            }
            Ok(_) => {}
        }
        if let Err(message) = run.device.parse::<DeviceChoice>() {
            faults.push(Fault::new("device", message));
        }
        faults
    }

    /// Makes relative paths absolute by the current folder, so that the run can be resumed from another one.
    pub fn make_paths_absolute(&mut self) {
        let RunConfig { data, init_from, inception, exclude, .. } = &mut self.run;
        for path in [data, init_from, inception, exclude].into_iter().flatten() {
            if dcgan_data::is_remote(path) || dcgan_model::is_hub_address(path) {
                continue;
            }
            // Fails for an empty path, which opening reports.
            if let Ok(absolute) = std::path::absolute(&path) {
                *path = absolute;
            }
        }
    }

    /// Shape of the images that the networks see.
    pub fn image_shape(&self) -> ImageShape {
        self.model.image_shape().into()
    }

    /// Steps of the whole run over a dataset of `dataset_len` images: one step is one minibatch read.
    pub fn total_steps(&self, dataset_len: usize) -> u64 {
        let t = &self.training;
        let batch = (t.batch_size as u64).max(1);
        let per_epoch = (dataset_len as u64 / batch).max(1);
        match (t.images, t.epochs, t.steps) {
            (Some(images), _, _) => images.div_ceil(batch),
            (_, Some(epochs), _) => epochs.saturating_mul(per_epoch).min(MAX_LENGTH),
            (_, _, steps) => steps.unwrap_or(0),
        }
    }

    /// The learning rate of step `step` (counted from 0) of `total`.
    pub fn learning_rate(&self, step: u64, total: u64) -> f64 {
        let rate = self.training.learning_rate;
        match self.training.learning_rate_decay {
            Decay::None => rate,
            Decay::Linear => {
                let half = total as f64 / 2.0;
                rate * ((total as f64 - step as f64) / half).clamp(0.0, 1.0)
            }
        }
    }
}

/// `section` with the values of its `options`, which are taken out of `values`.
fn with_values<T: Serialize + DeserializeOwned>(
    section: &T,
    options: &[TrainOption],
    values: &mut Values,
) -> Result<T, serde_json::Error> {
    let mut table = serde_json::to_value(section)?;
    for option in options {
        if let Some(value) = values.remove(option.name) {
            table[option.name] = value;
        }
    }
    serde_json::from_value(table)
}

/// The values of `section` outside the limits of its `options`.
fn limit_faults<T: Serialize>(section: &T, options: &[TrainOption]) -> Vec<Fault> {
    let table = match serde_json::to_value(section) {
        Ok(table) => table,
        Err(error) => return vec![Fault::new("config", error.to_string())],
    };
    let check = |option: &TrainOption| {
        // JSON has null for a value that is not given, and for NaN.
        let is_given = |value: &&Value| !value.is_null() || matches!(option.kind, Kind::Float(..));
        let message = option.check(table.get(option.name).filter(is_given)?).err()?;
        Some(Fault::new(option.field(), message))
    };
    options.iter().filter_map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options by name.
    fn options<const N: usize>(preset: &str, values: [(&'static str, Value); N]) -> RunOptions {
        RunOptions { preset: Some(preset.into()), values: values.into(), ..RunOptions::default() }
    }

    #[test]
    fn options_over_presets() {
        let values =
            [("steps", 10.into()), ("learning_rate", 1e-3.into()), ("learning_rate_decay", "linear".into())];
        let plan = Plan::resolve(&options("svhn32", values)).unwrap();
        let length = (plan.training.images, plan.training.epochs, plan.training.steps);
        assert_eq!(length, (None, None, Some(10)));
        assert_eq!((plan.training.batch_size, plan.training.order), (64, Order::Alternate));
        // Constant over the first half, then linearly to zero.
        let rates: Vec<f64> = (0..=10).map(|step| plan.learning_rate(step, 10) / 1e-3).collect();
        for (rate, expected) in rates.iter().zip([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
        // Every file that is read again at a resume.
        let mut elsewhere = plan.clone();
        let RunConfig { data, init_from, inception, exclude, .. } = &mut elsewhere.run;
        [data, init_from, inception, exclude].into_iter().for_each(|path| *path = Some("a".into()));
        elsewhere.make_paths_absolute();
        let RunConfig { data, init_from, inception, exclude, .. } = &elsewhere.run;
        assert!(
            [data, init_from, inception, exclude].iter().all(|path| path.as_ref().unwrap().is_absolute())
        );
        // A plan written and read again is the same plan.
        assert_eq!(toml::from_str::<Plan>(&toml::to_string(&plan).unwrap()).unwrap(), plan);
    }

    #[test]
    fn every_preset_and_every_choice_is_valid() {
        for name in Preset::names() {
            Plan::resolve(&options(name, [])).unwrap();
        }
        for option in crate::options::all() {
            let Kind::Choice(choices) = option.kind else { continue };
            for (choice, _) in choices {
                let values = [(option.name, (*choice).into()), ("metrics_every", 500.into())];
                Plan::resolve(&options("digits", values)).unwrap();
            }
        }
    }

    #[test]
    fn a_plan_is_a_configuration_file() {
        let values = [
            ("data", "images.zip".into()),
            ("crop", 20.into()),
            ("background", "#102030".into()),
            ("skip_bad", true.into()),
            ("seed", 7.into()),
            ("device", "cpu".into()),
            ("log_every", 10.into()),
            ("steps", 10.into()),
            ("mirror", true.into()),
            ("dtype", "bf16".into()),
        ];
        let size = Some((32, 48));
        let plan = Plan::resolve(&RunOptions { size, ..options("digits", values) }).unwrap();
        let text = toml::to_string(&plan).unwrap();
        let with = |values: Values| {
            let config = Some(("plan.toml".into(), text.clone()));
            Plan::resolve(&RunOptions { config, values, ..RunOptions::default() }).unwrap()
        };
        assert_eq!(with(Values::new()), plan);
        // Options override the file, also flags and the kind of length.
        let changed = with(Values::from([
            ("epochs", 2.into()),
            ("mirror", false.into()),
            ("skip_bad", false.into()),
            ("seed", 8.into()),
        ]));
        let mut expected = plan.clone();
        (expected.training.epochs, expected.training.steps, expected.training.mirror) =
            (Some(2), None, false);
        (expected.run.skip_bad, expected.run.seed) = (SkipBad::Flag(false), 8);
        assert_eq!(changed, expected);
        // [run] may be a part of it, and its faults are reported with all others.
        let start = text.find("[training]").unwrap();
        let config = |run: &str| Some(("own.toml".into(), format!("[run]\n{run}\n{}", &text[start..])));
        let of = |run: &str| Plan::resolve(&RunOptions { config: config(run), ..RunOptions::default() });
        let expected = RunConfig { seed: 3, keep: 1, ..RunConfig::default() };
        assert_eq!(of("seed = 3\nkeep = 1").unwrap().run, expected);
        for (text, expected) in
            [("true", SkipBad::Flag(true)), ("3", SkipBad::AtMost(3)), ("0", SkipBad::AtMost(0))]
        {
            let run = of(&format!("data = \"images\"\nskip_bad = {text}")).unwrap().run;
            assert_eq!((run.skip_bad, run.skip_bad.is_on()), (expected, true));
        }
        let fields = |run| of(run).unwrap_err().into_iter().map(|fault| fault.field).collect::<Vec<_>>();
        assert_eq!(
            fields("keep = 0\nthreads = 5000\ncrop = 3\ndevice = \"tpu\""),
            ["threads", "keep", "crop", "device"]
        );
        assert_eq!(fields("skip_bad = 3"), ["skip_bad"]); // without data
        assert_eq!(fields("sed = 3"), ["config"]);
        assert_eq!(fields("skip_bad = \"some\""), ["config"]);
    }

    /// A plan as earlier versions wrote it.
    #[test]
    fn plans_of_earlier_versions_load() {
        let plan = Plan::resolve(&options("digits", [("steps", 10.into())])).unwrap();
        let text = toml::to_string(&plan).unwrap();
        let mut earlier = text.clone();
        for (now, then) in [
            ("negative_slope", "leak"),      // earlier name
            ("norm_weight_std", "gain_std"), // earlier name
            ("project_norm = \"per-channel\"", "project_norm = \"channel\""),
            ("mirror = false\n", ""),
            ("dtype = \"f32\"\n", ""),
        ] {
            assert!(earlier.contains(now), "{now}");
            earlier = earlier.replace(now, then);
        }
        assert_eq!(toml::from_str::<Plan>(&earlier).unwrap(), plan);
        let config = Some(("plan.toml".into(), earlier));
        assert_eq!(Plan::resolve(&RunOptions { config, ..RunOptions::default() }).unwrap(), plan);
    }

    #[test]
    fn lengths_of_runs() {
        // length, batch size, images of the dataset -> steps
        for (name, length, batch_size, dataset_len, expected) in [
            ("images", 1000, 64, 500, 16),
            ("images", 128, 64, 500, 2),
            ("epochs", 3, 64, 500, 21), // incomplete last batches are dropped
            ("epochs", 2, 100, 500, 10),
            ("steps", 7, 64, 500, 7),
        ] {
            let options = options("digits", [(name, length.into()), ("batch_size", batch_size.into())]);
            assert_eq!(Plan::resolve(&options).unwrap().total_steps(dataset_len), expected, "{options:?}");
        }
    }
}
