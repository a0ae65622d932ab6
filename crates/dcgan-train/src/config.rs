//! Training settings: what a preset or `--config` file says, what the command line changes, and the checked plan.

use dcgan_data::ImageShape;
use dcgan_model::DeviceChoice;
use dcgan_model::{Model, ModelConfig, Preset};
use dcgan_ops::Precision;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which networks a minibatch updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// D, then G, on every minibatch: pytorch/examples.
    Both,
    /// G and D in turn, G first: the authors' code, where «each real minibatch feeds either» network.
    Alternate,
}

/// How the learning rate changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// It does not.
    None,
    /// Linearly to zero over the second half of the run (the authors' MNIST settings).
    Linear,
}

/// `[training]` of a preset or configuration file. Every number is written out; there are no hidden defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Images in a minibatch.
    pub batch_size: usize,
    /// Real images to read in all; or
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    /// passes over the data; or
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// minibatches to read. Exactly one of the three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Which networks a minibatch updates.
    pub order: Order,
    /// Adam's step size (paper: 2e-4).
    pub learning_rate: f64,
    /// How it changes.
    pub learning_rate_decay: Decay,
    /// Adam's first decay (paper: 0.5).
    pub beta1: f64,
    /// Adam's second decay.
    pub beta2: f64,
    /// Added to the root of Adam's second moment.
    pub adam_eps: f64,
    /// L2 added to the gradient of every parameter (authors' faces: 1e-5).
    pub weight_decay: f64,
    /// How far below 1 the target of real images is; 0 is off, as in the paper.
    pub label_smoothing: f64,
    /// Decay of the moving average of G's weights that samples are drawn from; 0 is off, as in the paper.
    pub ema: f64,
    /// Kernels start as N(0, `weight_std`^2) (paper: 0.02).
    pub weight_std: f64,
    /// Batch-norm gains start as N(1, `norm_weight_std`^2).
    #[serde(alias = "gain_std")]
    pub norm_weight_std: f64,
    /// Whether images are shown mirrored left to right half of the time: twice the data where left and right are alike.
    #[serde(default)]
    pub mirror: bool,
    /// What products are computed with.
    #[serde(default)]
    pub dtype: Precision,
}

/// What the command line (later: a job) asks for on top of a preset or file.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// `--preset`
    pub preset: Option<String>,
    /// Text of `--config`, and its path for messages.
    pub config: Option<(PathBuf, String)>,
    /// `--data`; none means the embedded digits.
    pub data: Option<PathBuf>,
    /// `--images`
    pub images: Option<u64>,
    /// `--epochs`
    pub epochs: Option<u64>,
    /// `--steps`
    pub steps: Option<u64>,
    /// `--batch-size`
    pub batch_size: Option<usize>,
    /// `--size`: height and width in place of the preset's.
    pub size: Option<(usize, usize)>,
    /// `--seed`
    pub seed: Option<u64>,
    /// `--device`
    pub device: DeviceChoice,
    /// `--threads`
    pub threads: Option<usize>,
    /// `--crop`
    pub crop: Option<usize>,
    /// `--skip-bad`
    pub skip_bad: bool,
    /// `--init-from`
    pub init_from: Option<PathBuf>,
    /// `--log-every`
    pub log_every: Option<u64>,
    /// `--checkpoint-every`
    pub checkpoint_every: Option<u64>,
    /// `--sample-every`
    pub sample_every: Option<u64>,
    /// `--keep`: how many of the newest checkpoints stay, beside the best.
    pub keep: Option<usize>,
    /// `--learning-rate`
    pub learning_rate: Option<f64>,
    /// `--learning-rate-decay`
    pub learning_rate_decay: Option<Decay>,
    /// `--weight-decay`
    pub weight_decay: Option<f64>,
    /// `--label-smoothing`
    pub label_smoothing: Option<f64>,
    /// `--ema`
    pub ema: Option<f64>,
    /// `--mirror`
    pub mirror: bool,
    /// `--order`
    pub order: Option<Order>,
    /// `--dtype`
    pub dtype: Option<Precision>,
}

/// `[run]` of plan.toml: where the data is and how the run goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Dataset; none means the embedded digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Centre crop before resizing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<usize>,
    /// Whether images that cannot be read are skipped and counted rather than ending the run.
    pub skip_bad: bool,
    /// Seed of every random number of the run.
    pub seed: u64,
    /// As given; `auto` is resolved anew where a run is resumed.
    pub device: String,
    /// Threads; none means one per core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// A model whose weights the run starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// Steps between two lines of the log.
    pub log_every: u64,
    /// Steps between two checkpoints; one more is always written at the last step.
    pub checkpoint_every: u64,
    /// Steps between two sample grids.
    pub sample_every: u64,
    /// How many of the newest checkpoints stay, beside the best.
    pub keep: usize,
}

/// One thing that is wrong with what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The option, as plan.toml and the service name it (`checkpoint_every`); `model` where the networks do not fit together.
    pub field: String,
    /// A sentence that names the option or field, what was given and what is expected.
    pub message: String,
}

impl Fault {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The faults' sentences, for a reader who sees no fields.
pub fn sentences(faults: Vec<Fault>) -> Vec<String> {
    faults.into_iter().map(|fault| fault.message).collect()
}

/// A run with every option resolved and checked: `plan.toml`.
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

impl Plan {
    /// Merges preset or file with the options and checks the result.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn resolve(options: &RunOptions) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let preset = match (&options.preset, &options.config) {
            (Some(_), Some(_)) => Err(Fault::new("config", "--preset and --config exclude each other")),
            (None, Some((path, text))) => {
                Preset::parse(text).map_err(|e| Fault::new("config", format!("{}: {e}", path.display())))
            }
            (name, None) => Preset::named(name.as_deref().unwrap_or("digits"))
                .map_err(|e| Fault::new("preset", e.to_string())),
        };
        let preset = preset.map_err(|fault| vec![fault])?;
        let training = preset.training.clone().try_into::<TrainingConfig>();
        let mut training = training.map_err(|e| vec![Fault::new("config", format!("[training]: {e}"))])?;
        let mut model = preset.model;
        if let Some((height, width)) = options.size {
            (model.height, model.width) = (height, width);
        }
        let lengths = [options.images, options.epochs, options.steps];
        match lengths.iter().flatten().count() {
            0 => {}
            1 => [training.images, training.epochs, training.steps] = lengths,
            _ => faults.push(Fault::new("steps", "--images, --epochs and --steps exclude each other")),
        }
        fn set<T: Copy>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        set(&mut training.batch_size, options.batch_size);
        set(&mut training.learning_rate, options.learning_rate);
        set(&mut training.learning_rate_decay, options.learning_rate_decay);
        set(&mut training.weight_decay, options.weight_decay);
        set(&mut training.label_smoothing, options.label_smoothing);
        set(&mut training.ema, options.ema);
        set(&mut training.order, options.order);
        set(&mut training.dtype, options.dtype);
        training.mirror |= options.mirror;
        let run = RunConfig {
            data: options.data.clone(),
            crop: options.crop,
            skip_bad: options.skip_bad,
            seed: options.seed.unwrap_or(0),
            device: options.device.to_string(),
            threads: options.threads,
            init_from: options.init_from.clone(),
            log_every: options.log_every.unwrap_or(50),
            checkpoint_every: options.checkpoint_every.unwrap_or(500),
            sample_every: options.sample_every.unwrap_or(500),
            keep: options.keep.unwrap_or(3),
        };
        let plan = Self { run, training, model };
        faults.extend(plan.faults());
        if faults.is_empty() { Ok(plan) } else { Err(faults) }
    }

    /// Everything that is wrong with the numbers.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = match Model::new(self.model.clone()) {
            Ok(_) => Vec::new(),
            Err(error) => error.faults.into_iter().map(|fault| Fault::new("model", fault)).collect(),
        };
        let mut expect = |holds: bool, field: &str, message: String| {
            if !holds {
                faults.push(Fault::new(field, message));
            }
        };
        let Self { run, training: t, .. } = self;
        expect(
            (2..=1 << 16).contains(&t.batch_size),
            "batch_size",
            format!("batch size is {}, expected 2 to 65536", t.batch_size),
        );
        let lengths = [("images", t.images), ("epochs", t.epochs), ("steps", t.steps)];
        let given = lengths.iter().filter(|(_, length)| length.is_some()).count();
        expect(
            given == 1,
            "steps",
            format!("the length of the run is given {given} times, expected one of images, epochs, steps"),
        );
        for (name, length) in lengths {
            expect(length != Some(0), name, format!("{name} is 0, expected at least 1"));
        }
        let number = |value: f64, low: f64, high: f64| value >= low && value < high;
        expect(
            t.learning_rate > 0.0 && t.learning_rate <= 1.0,
            "learning_rate",
            format!("learning rate is {}, expected above 0 and at most 1", t.learning_rate),
        );
        expect(
            (f64::from(f32::MIN_POSITIVE)..1.0).contains(&t.adam_eps), // as f32 it must not become zero
            "config",
            format!("adam_eps is {}, expected at least 1.2e-38 and below 1", t.adam_eps),
        );
        expect(
            number(t.weight_std, 0.0, 10.0) && t.weight_std > 0.0,
            "config",
            format!("weight_std is {}, expected above 0 and below 10", t.weight_std),
        );
        for (name, field, value, below) in [
            ("beta1", "config", t.beta1, 1.0),
            ("beta2", "config", t.beta2, 1.0),
            ("weight decay", "weight_decay", t.weight_decay, 1.0),
            ("label smoothing", "label_smoothing", t.label_smoothing, 0.5),
            ("ema", "ema", t.ema, 1.0),
            ("norm_weight_std", "config", t.norm_weight_std, 10.0),
        ] {
            expect(
                number(value, 0.0, below),
                field,
                format!("{name} is {value}, expected at least 0 and below {below}"),
            );
        }
        let intervals = [
            ("log-every", run.log_every),
            ("checkpoint-every", run.checkpoint_every),
            ("sample-every", run.sample_every),
        ];
        for (name, interval) in intervals {
            expect(interval > 0, &name.replace('-', "_"), format!("--{name} is 0, expected at least 1"));
        }
        expect(run.keep > 0, "keep", "--keep is 0, expected at least 1".to_owned());
        expect(run.threads != Some(0), "threads", "--threads is 0, expected at least 1".to_owned());
        expect(run.threads.is_none_or(|n| n <= 4096), "threads", "--threads is above 4096".to_owned());
        expect(run.crop != Some(0), "crop", "--crop is 0, expected at least 1".to_owned());
        let from_files = run.data.is_some();
        expect(
            from_files || run.crop.is_none(),
            "crop",
            "--crop needs --data: the embedded digits are not cut".to_owned(),
        );
        expect(
            from_files || !run.skip_bad,
            "skip_bad",
            "--skip-bad needs --data: the embedded digits are whole".to_owned(),
        );
        if let Err(fault) = run.device.parse::<DeviceChoice>() {
            faults.push(Fault::new("device", fault));
        }
        faults
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
            (_, Some(epochs), _) => epochs.saturating_mul(per_epoch),
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

/// Parses `--size`: `64` or `48x80` (height x width).
///
/// # Errors
/// What is expected.
pub fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let (height, width) = text.split_once(['x', 'X']).unwrap_or((text, text));
    let side =
        |side: &str| side.trim().parse().map_err(|_| format!("{text:?} is not a size; expected N or HxW"));
    Ok((side(height)?, side(width)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_over_presets() {
        let options = RunOptions {
            preset: Some("svhn32".into()),
            steps: Some(10),
            learning_rate: Some(1e-3),
            learning_rate_decay: Some(Decay::Linear),
            ..RunOptions::default()
        };
        let plan = Plan::resolve(&options).unwrap();
        let length = (plan.training.images, plan.training.epochs, plan.training.steps);
        assert_eq!(length, (None, None, Some(10)));
        assert_eq!((plan.training.batch_size, plan.training.order), (64, Order::Alternate));
        // Constant over the first half, then linearly to zero.
        let rates: Vec<f64> = (0..=10).map(|step| plan.learning_rate(step, 10) / 1e-3).collect();
        for (rate, expected) in rates.iter().zip([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
        // A plan written down and read again is the same plan.
        assert_eq!(toml::from_str::<Plan>(&toml::to_string(&plan).unwrap()).unwrap(), plan);
    }

    #[test]
    fn lengths_of_runs() {
        // images, epochs, steps, batch size, images of the dataset -> steps
        for (images, epochs, steps, batch_size, dataset_len, expected) in [
            (Some(1000), None, None, 64, 500, 16),
            (Some(128), None, None, 64, 500, 2),
            (None, Some(3), None, 64, 500, 21), // short last batches are dropped
            (None, Some(2), None, 100, 500, 10),
            (None, None, Some(7), 64, 500, 7),
        ] {
            let options =
                RunOptions { images, epochs, steps, batch_size: Some(batch_size), ..RunOptions::default() };
            assert_eq!(Plan::resolve(&options).unwrap().total_steps(dataset_len), expected, "{options:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [("64", Ok((64, 64))), ("48x80", Ok((48, 80))), ("48X 80", Ok((48, 80)))] {
            assert_eq!(parse_size(text), expected);
        }
        for text in ["", "x", "a", "3x", "-4", "1x2x3"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
